"""Figures during training: val_fid, best.ckpt by it, the full table at the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torchvision.transforms.v2 import functional as transforms

from ganmnist import images
from ganmnist.callbacks.checkpoint import save_checkpoint
from ganmnist.errors import UserError
from ganmnist.gan import GAN
from ganmnist.metrics import Evaluator, Seen
from ganmnist.metrics.class_kl import frequencies
from ganmnist.metrics.neighbours import nearest

log = logging.getLogger(__name__)


class Evaluation(Callback):
    """Measures the generator, as trained and averaged (`..._ema`).

    Every few epochs `metrics/val_fid` and its like, or what else the evaluator validates by; a new
    lowest `monitor` makes checkpoints/best.ckpt. At the end the evaluator's table, for the last and
    for the best weights: `summary` has it for summary.json.

    Args:
        folder: the run's.
        evaluator: the protocol; one without a table measures nothing.
        every_epochs: None is about ten times a run, and always at its end.
        monitor: a figure of the evaluator's validation, such as val_fid or val_fid_ema, without the
            prefix of the data.
        target: training ends once `monitor` is as low as this; None is no end.
        neighbours: draw samples/neighbours.png.
    """

    def __init__(
        self,
        folder: str | Path,
        evaluator: Evaluator,
        every_epochs: int | None = None,
        monitor: str = "val_fid",
        target: float | None = None,
        neighbours: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.evaluator = evaluator
        self.every_epochs = every_epochs
        self.monitor = monitor
        self.target = target
        self.neighbours = neighbours
        self.lowest = math.inf
        self.summary: dict[str, Any] = {}

    @property
    def by(self) -> list[Any]:
        """What the best weights are chosen by."""
        return [self.monitor, self.evaluator.val_n, self.evaluator.seed]

    def state_dict(self) -> dict[str, Any]:
        return {"lowest": self.lowest, "summary": self.summary, "by": self.by}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.summary = state_dict["summary"]
        if state_dict["by"] == self.by:  # else figures that do not compare
            self.lowest = state_dict["lowest"]

    def setup(self, trainer: L.Trainer, gan: GAN, stage: str) -> None:
        self.active = bool(self.evaluator.table)
        ends = [ENDING[weights] for weights in weights_of(gan)]
        monitors = [f"{name}{end}" for name in self.evaluator.monitors for end in ends]
        if self.active and self.monitor not in monitors:
            raise UserError(
                f"callbacks.evaluation.monitor={self.monitor} is not measured: choose one of "
                f"{', '.join(monitors)}, or other metrics."
            )
        if self.active:
            self.evaluator.prepare(trainer.datamodule, trainer.strategy.root_device)

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 1
        every = self.every_epochs or math.ceil(epochs / 10)
        if not self.active or (epoch % every and epoch != epochs):
            return
        began = perf_counter()
        value = self.validate(trainer, gan, epoch) if trainer.is_global_zero else math.inf
        spent = self.summary.get("validation_seconds", 0.0) + perf_counter() - began
        self.summary["validation_seconds"] = round(spent, 2)
        if self.target is not None and trainer.strategy.broadcast(value <= self.target):
            log.info("%s has come to callbacks.evaluation.target=%g", self.monitor, self.target)
            trainer.should_stop = True
        if trainer.strategy.broadcast(value < self.lowest):
            saved = save_checkpoint(trainer, self.folder / "checkpoints/best.ckpt")
            if saved and trainer.is_global_zero:
                self.lowest = value
                self.summary["best"] = {"epoch": epoch, self.evaluator.key(self.monitor): value}

    def validate(self, trainer: L.Trainer, gan: GAN, epoch: int) -> float:
        """Logs the validation figures; returns the one that is monitored."""
        figures: dict[str, float] = {}
        for weights in weights_of(gan):
            drawn = self.evaluator.draw(gan, self.evaluator.val_n, weights == "ema")
            figures |= named("metrics", self.evaluator.validate(drawn), weights)
        gan.log_dict(figures, logger=False, rank_zero_only=True)
        self.report(trainer, gan, figures)
        shown = "  ".join(f"{name.split('/')[1]} {value:.2f}" for name, value in figures.items())
        log.info("epoch %d  %s", epoch, shown)
        return figures[f"metrics/{self.evaluator.key(self.monitor)}"]

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        if not (self.active and trainer.is_global_zero):
            return
        log.info("measuring %s images a time", f"{self.evaluator.n:,}")
        try:
            self.measure(trainer, gan)
        except Exception:  # no reason to call a run failed whose weights are safe
            log.exception("The final figures could not all be measured.")

    def measure(self, trainer: L.Trainer, gan: GAN) -> None:
        """The full table of the last and of the best weights; what is measured is kept at once."""
        epoch = trainer.current_epoch
        floors = self.evaluator.floors
        final: dict[str, Any] = {"epoch": epoch}
        self.summary |= {"protocol": self.evaluator.protocol, **floors, "final": final}
        key = self.evaluator.key
        self.report(trainer, gan, {f"final/{key(name)}": value for name, value in floors.items()})
        seen = {}
        for weights in weights_of(gan):
            seen[weights] = self.look(gan, weights)
            final[weights] = self.evaluator.measure(seen[weights])
            if weights == "raw":  # of the family's own figures nothing is averaged
                final[weights] |= self.evaluator.measure_family(gan, trainer.datamodule)
            self.report(trainer, gan, named("final", final[weights], weights))
        self.summary["class_histogram"] = {
            "generated": histogram(seen["raw"]),
            "test": histogram(self.evaluator.real.test),
        }
        if self.neighbours:
            self.draw_neighbours(seen["raw"])

        best = self.summary.get("best", {})
        if best.get("epoch") == epoch:
            best |= {weights: final[weights] for weights in seen}
        elif best:
            self.measure_best(trainer, gan, best)
        for weights in seen:
            self.report(trainer, gan, named("best", best.get(weights, {}), weights))

    def measure_best(self, trainer: L.Trainer, gan: GAN, best: dict[str, Any]) -> None:
        """The table of best.ckpt, whose weights the GAN has meanwhile."""
        checkpoint = torch.load(
            self.folder / "checkpoints/best.ckpt", map_location=gan.device, weights_only=True
        )
        last = {name: value.clone() for name, value in gan.state_dict().items()}
        gan.load_state_dict(checkpoint["state_dict"])
        try:
            for weights in weights_of(gan):
                best[weights] = self.evaluator.measure(self.look(gan, weights))
                if weights == "raw":
                    best[weights] |= self.evaluator.measure_family(gan, trainer.datamodule)
        finally:
            gan.load_state_dict(last)

    def report(self, trainer: L.Trainer, gan: GAN, figures: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=gan.batches_seen)

    def look(self, gan: GAN, weights: str) -> Seen:
        """What the classifier sees of as many images as the protocol asks for."""
        evaluator = self.evaluator
        seen = evaluator.extractor(evaluator.draw(gan, evaluator.n, weights == "ema"))
        return seen._replace(labels=gan.labels(evaluator.n))

    def draw_neighbours(self, seen: Seen, count: int = 10) -> None:
        """samples/neighbours.png: generated images above, their nearest training images below."""
        real, generated = self.evaluator.real, seen.images[:count].cpu()
        train = vars(real).get("train") or real.validation  # all only if the table needed them
        _, index = nearest(seen.features[:count], train.features)
        theirs = transforms.resize(train.images[index], list(generated.shape[-2:]))
        pairs = torch.cat([generated, theirs])
        picture = images.grid(pairs.permute(0, 2, 3, 1).numpy(), count)
        caption = f"{self.evaluator.data}: generated, and the nearest of {len(train.images):,} real"
        images.save(images.captioned(picture, caption), self.folder / "samples/neighbours.png")


ENDING = {"raw": "", "ema": "_ema"}


def named(when: str, figures: Mapping[str, float], weights: str) -> dict[str, float]:
    """Figures under the names that loggers know them by."""
    return {f"{when}/{name}{ENDING[weights]}": value for name, value in figures.items()}


def weights_of(gan: GAN) -> list[str]:
    """Whose images there are: the trained generator's, and the averaged one's."""
    return ["raw"] if gan.ema is None else ["raw", "ema"]


def histogram(seen: Seen) -> list[float]:
    return frequencies(seen.classes, seen.logits.shape[-1]).tolist()
