"""Figures during training: val_fid, best.ckpt by it, the full table at the end."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torchvision.transforms.v2 import functional as transforms

from ganmnist import images
from ganmnist.callbacks.checkpoint import save_checkpoint
from ganmnist.gan import GAN
from ganmnist.loading import load
from ganmnist.metrics import Evaluator, Seen
from ganmnist.metrics.class_kl import frequencies
from ganmnist.metrics.neighbours import nearest

log = logging.getLogger(__name__)


class Evaluation(Callback):
    """Measures the generator, as trained and averaged (`..._ema`).

    Every few epochs `metrics/val_fid` and `metrics/val_class_entropy`; a new lowest `monitor`
    makes checkpoints/best.ckpt. At the end the evaluator's table, for the last and for the best
    weights: `summary` has it for summary.json.

    Args:
        folder: the run's.
        evaluator: the protocol; one without a table measures nothing.
        every_epochs: None is about ten times a run, and always at its end.
        monitor: val_fid or val_fid_ema, without the prefix of the data.
    """

    def __init__(
        self,
        folder: str | Path,
        evaluator: Evaluator,
        every_epochs: int | None = None,
        monitor: str = "val_fid",
    ) -> None:
        self.folder = Path(folder)
        self.evaluator = evaluator
        self.every_epochs = every_epochs
        self.monitor = monitor
        self.lowest = math.inf
        self.summary: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, gan: GAN, stage: str) -> None:
        self.active = bool(self.evaluator.table)
        if self.active:
            self.evaluator.prepare(trainer.datamodule, trainer.strategy.root_device)

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 1
        every = self.every_epochs or math.ceil(epochs / 10)
        if not self.active or (epoch % every and epoch != epochs):
            return
        value = self.validate(trainer, gan, epoch) if trainer.is_global_zero else math.inf
        if trainer.strategy.broadcast(value < self.lowest):
            self.lowest = value
            save_checkpoint(trainer, self.folder / "checkpoints/best.ckpt")
            if trainer.is_global_zero:
                self.summary["best"] = {"epoch": epoch, self.evaluator.key(self.monitor): value}

    def validate(self, trainer: L.Trainer, gan: GAN, epoch: int) -> float:
        """Logs the validation figures; returns the one that is monitored."""
        figures: dict[str, float] = {}
        for weights in weights_of(gan):
            drawn = self.evaluator.draw(gan, self.evaluator.val_n, weights == "ema")
            for name, value in self.evaluator.validate(drawn).items():
                figures[f"metrics/{name}{ENDING[weights]}"] = value
        gan.log_dict(figures, logger=False, rank_zero_only=True)
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=gan.batches_seen)
        shown = "  ".join(f"{name.split('/')[1]} {value:.2f}" for name, value in figures.items())
        log.info("epoch %d  %s", epoch, shown)
        return figures[f"metrics/{self.evaluator.key(self.monitor)}"]

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        if not (self.active and trainer.is_global_zero):
            return
        log.info("measuring %s images a time", f"{self.evaluator.n:,}")
        seen = self.look(gan)
        final = {weights: self.evaluator.measure(s) for weights, s in seen.items()}
        epoch = trainer.current_epoch
        best = self.summary.get("best", {})
        if best.get("epoch") == epoch:
            best |= final
        elif best:
            gan_then = load(self.folder / "checkpoints/best.ckpt", device=gan.device, trust=None)
            then = self.look(gan_then).items()
            best |= {weights: self.evaluator.measure(s) for weights, s in then}
        self.summary |= {
            "protocol": self.evaluator.protocol,
            "val_fid_floor": self.evaluator.val_fid_floor,
            "final": {"epoch": epoch, **final},
            "class_histogram": {
                "generated": histogram(seen["raw"]),
                "test": histogram(self.evaluator.real.test),
            },
        }
        self.draw_neighbours(seen["raw"])
        flat = {
            f"final/{name}{ENDING[weights]}": value
            for weights, figures in final.items()
            for name, value in figures.items()
        }
        for logger in trainer.loggers:
            logger.log_metrics(flat, step=gan.batches_seen)

    def look(self, gan: GAN) -> dict[str, Seen]:
        """What the classifier sees of as many images as the protocol asks for."""
        evaluator = self.evaluator
        return {
            weights: evaluator.extractor(evaluator.draw(gan, evaluator.n, weights == "ema"))
            for weights in weights_of(gan)
        }

    def draw_neighbours(self, seen: Seen, count: int = 10) -> None:
        """samples/neighbours.png: generated images above, their nearest training images below."""
        real, generated = self.evaluator.real, seen.images[:count].cpu()
        train = vars(real).get("train") or real.validation  # all only if the table needed them
        _, index = nearest(seen.features[:count], train.features)
        theirs = transforms.resize(train.images[index], list(generated.shape[-2:]))
        pairs = torch.cat([generated, theirs])
        picture = images.grid(pairs.permute(0, 2, 3, 1).numpy(), count)
        caption = f"{self.evaluator.data}: generated, and the nearest training image of each"
        images.save(images.captioned(picture, caption), self.folder / "samples/neighbours.png")


ENDING = {"raw": "", "ema": "_ema"}


def weights_of(gan: GAN) -> list[str]:
    """Whose images there are: the trained generator's, and the averaged one's."""
    return ["raw"] if gan.ema is None else ["raw", "ema"]


def histogram(seen: Seen) -> list[float]:
    return frequencies(seen.classes, seen.logits.shape[-1]).tolist()
