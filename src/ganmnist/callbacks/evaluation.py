"""Metrics: val_fid during training, which chooses best.ckpt, and the full table at the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.progress import track
from torchvision.transforms.v2 import functional as transforms

from ganmnist.callbacks.checkpoint import save_checkpoint
from ganmnist.gan import GAN
from ganmnist.metrics import Evaluator, FeatureBatch, Metric
from ganmnist.metrics.class_kl import frequencies
from ganmnist.reporting import images
from ganmnist.reporting.console import console
from ganmnist.reporting.metric_info import describe, is_number
from ganmnist.utils.errors import UserError
from ganmnist.utils.neighbors import nearest
from ganmnist.utils.values import check_interval, is_plain

log = logging.getLogger(__name__)


class Evaluation(Callback):
    """Measures the generator, with trained and with EMA weights (`..._ema`).

    Validation logs `metrics/val_fid` and others. A new lowest `monitor` writes best.ckpt. At the
    end of training it measures the full table of the last and of the best weights, for
    summary.json.

    Args:
        folder: the folder of the run.
        evaluator: the protocol. Without a table nothing is measured.
        every_epochs: epochs between validations; None: about ten validations per run.
        monitor: a validation metric, such as val_fid or val_fid_ema, without the data's prefix.
        target: training ends once `monitor` is at most this; None: no target.
        neighbors: save samples/neighbors.png.
    """

    def __init__(
        self,
        folder: str | Path,
        evaluator: Evaluator,
        every_epochs: int | None = None,
        monitor: str = "val_fid",
        target: float | None = None,
        neighbors: bool = True,
    ) -> None:
        check_interval("callbacks.evaluation.every_epochs", every_epochs)
        self.folder = Path(folder)
        self.evaluator = evaluator
        self.every_epochs = every_epochs
        self.monitor = monitor
        self.target = target
        self.neighbors = neighbors
        self.lowest = math.inf
        self.summary: dict[str, Any] = {}

    @property
    def criterion(self) -> list[Any]:
        """What chooses best.ckpt. Values of another criterion are not comparable."""
        return [self.monitor, self.evaluator.val_n, self.evaluator.seed]

    def state_dict(self) -> dict[str, Any]:
        return {"lowest": self.lowest, "summary": self.summary, "criterion": self.criterion}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of a checkpoint.

        Raises:
            ValueError: it is not a state.
        """
        summary, lowest = state_dict["summary"], state_dict["lowest"]
        seconds, best = summary.get("validation_seconds", 0.0), summary.get("best", {})
        if not (is_number(seconds) and isinstance(lowest, float) and is_plain(best)):
            raise ValueError("the state of the evaluation has other types")
        # The others are measured again.
        self.summary = {"validation_seconds": seconds}
        if type(best.get("epoch")) is int:
            self.summary["best"] = {k: value for k, value in best.items() if is_number(value)}
        if state_dict["criterion"] == self.criterion:
            self.lowest = lowest

    def setup(self, trainer: L.Trainer, gan: GAN, stage: str) -> None:
        self.active = bool(self.evaluator.table)
        suffixes = [SUFFIX[weights] for weights in weights_of(gan)]
        monitors = [f"{name}{suffix}" for name in self.evaluator.monitors for suffix in suffixes]
        if self.active and self.monitor not in monitors:
            raise UserError(
                f"callbacks.evaluation.monitor={self.monitor}: this run does not measure it. Use "
                f"one of {', '.join(monitors)}, or other metrics."
            )
        if self.active:
            self.evaluator.prepare(trainer.datamodule, trainer.strategy.root_device)

    # During training.

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 1
        every = self.every_epochs or math.ceil(epochs / 10)
        if not self.active or (epoch % every and epoch != epochs):
            return
        start = perf_counter()
        value = self.validate(trainer, gan, epoch) if trainer.is_global_zero else math.inf
        seconds = self.summary.get("validation_seconds", 0.0) + perf_counter() - start
        self.summary["validation_seconds"] = round(seconds, 2)
        if self.target is not None and trainer.strategy.broadcast(value <= self.target):
            log.info(
                "callbacks.evaluation.target=%g: %s is %.3g. Stopping after this epoch.",
                *(self.target, self.monitor, value),
            )
            trainer.should_stop = True
        if trainer.strategy.broadcast(value < self.lowest):
            saved = save_checkpoint(trainer, self.folder / "checkpoints/best.ckpt")
            if saved and trainer.is_global_zero:
                self.lowest = value
                self.summary["best"] = {"epoch": epoch, self.evaluator.key(self.monitor): value}

    def validate(self, trainer: L.Trainer, gan: GAN, epoch: int) -> float:
        """Logs the validation metrics. Returns the monitored one."""
        metrics = {
            weights: self.evaluator.validate(
                self.evaluator.sample(gan, self.evaluator.val_n, weights == "ema")
            )
            for weights in weights_of(gan)
        }
        scalars: dict[str, float] = {}
        for weights, values in metrics.items():
            scalars |= named("metrics", values, weights)
        gan.log_dict(scalars, logger=False, rank_zero_only=True)
        self.send_to_loggers(trainer, gan, scalars)
        floors = self.evaluator.floors
        for key in metrics["raw"]:
            values = {weights: metrics[weights][key] for weights in metrics}
            log.info("epoch %d  %s", epoch, describe(key, values, floors))
        return scalars[f"metrics/{self.evaluator.key(self.monitor)}"]

    # At the end.

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        if not (self.active and trainer.is_global_zero):
            return
        log.info("Measuring the final metrics of %s images ...", f"{self.evaluator.n:,}")
        try:
            self.measure(trainer, gan)
        except Exception:  # the weights are saved; the run has not failed
            log.exception("Not all final metrics could be measured.")

    def measure(self, trainer: L.Trainer, gan: GAN) -> None:
        """The full table of the last and of the best weights. The summary keeps each at once."""
        epoch = trainer.current_epoch
        floors = self.evaluator.floors
        final: dict[str, Any] = {"epoch": epoch}
        self.summary |= {"protocol": self.evaluator.protocol, **floors, "final": final}
        key = self.evaluator.key
        of_real = {f"final/{key(name)}": value for name, value in floors.items()}
        self.send_to_loggers(trainer, gan, of_real)
        features = {}
        for weights in weights_of(gan):
            features[weights] = self.generated_features(gan, weights)
            final[weights] = self.evaluator.measure(features[weights], progress(weights))
            if weights == "raw":  # the family's own metrics use the trained weights alone
                final[weights] |= self.evaluator.measure_extra(gan, trainer.datamodule)
            self.send_to_loggers(trainer, gan, named("final", final[weights], weights))
        self.summary["class_histogram"] = {
            "generated": histogram(features["raw"]),
            "test": histogram(self.evaluator.real.test),
        }
        if self.neighbors:
            self.save_neighbors(features["raw"])

        best = self.summary.get("best", {})
        if best.get("epoch") == epoch:
            best |= {weights: final[weights] for weights in features}
        elif best:
            self.measure_best(trainer, gan, best)
        for weights in features:
            self.send_to_loggers(trainer, gan, named("best", best.get(weights, {}), weights))

    def measure_best(self, trainer: L.Trainer, gan: GAN, best: dict[str, Any]) -> None:
        """Adds the table of best.ckpt. Afterwards the GAN has its last weights again."""
        checkpoint = torch.load(
            self.folder / "checkpoints/best.ckpt", map_location=gan.device, weights_only=True
        )
        last = {name: value.clone() for name, value in gan.state_dict().items()}
        gan.load_state_dict(checkpoint["state_dict"])
        try:
            for weights in weights_of(gan):
                generated = self.generated_features(gan, weights)
                best[weights] = self.evaluator.measure(generated, progress(f"best, {weights}"))
                if weights == "raw":
                    best[weights] |= self.evaluator.measure_extra(gan, trainer.datamodule)
        finally:
            gan.load_state_dict(last)

    def send_to_loggers(self, trainer: L.Trainer, gan: GAN, scalars: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=gan.state.batches_seen)

    def generated_features(self, gan: GAN, weights: str) -> FeatureBatch:
        """Features of the protocol's `n` generated images."""
        evaluator = self.evaluator
        generated = evaluator.sample(gan, evaluator.n, weights == "ema")
        features: FeatureBatch = evaluator.extractor(generated)
        return features._replace(labels=gan.sampler.labels(evaluator.n))

    def save_neighbors(self, features: FeatureBatch, count: int = 10) -> None:
        """samples/neighbors.png: generated images above, their nearest training images below."""
        real, generated = self.evaluator.real, features.images[:count].cpu()
        # The features of all training images exist only if a metric needs them.
        train = vars(real).get("train") or real.validation
        _, index = nearest(features.features[:count], train.features)
        neighbors = transforms.resize(train.images[index], list(generated.shape[-2:]))
        pairs = torch.cat([generated, neighbors])
        grid = images.grid(pairs.permute(0, 2, 3, 1).numpy(), count)
        caption = f"{self.evaluator.data}: generated, and the nearest of {len(train.images):,} real"
        images.save(images.captioned(grid, caption), self.folder / "samples/neighbors.png")


def progress(weights: str) -> Callable[[Iterable[Metric]], Iterable[Metric]]:
    """A progress bar over the metrics, in terminals only."""
    return partial(
        track,
        description=f"metrics ({weights})",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


SUFFIX = {"raw": "", "ema": "_ema"}


def named(prefix: str, metrics: Mapping[str, float], weights: str) -> dict[str, float]:
    """Metrics under their names in the loggers."""
    return {f"{prefix}/{name}{SUFFIX[weights]}": value for name, value in metrics.items()}


def weights_of(gan: GAN) -> list[str]:
    """The weights that exist: trained ("raw") and EMA."""
    return ["raw"] if gan.ema is None else ["raw", "ema"]


def histogram(features: FeatureBatch) -> list[float]:
    """Shares of the predicted classes."""
    return frequencies(features.predicted_classes, features.logits.shape[-1]).tolist()
