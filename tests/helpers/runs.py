"""Runs of a few batches, and callbacks that end them."""

import csv
from pathlib import Path
from typing import Any

import lightning as L

from ganmnist.gan import GAN
from helpers.launch import BRIEFLY_MEASURED

SMALL = (
    *("data=digits", "trainer=cpu", "batch_size=16"),
    *("model.generator.widths=[16,8,8]", "model.discriminator.widths=[8,8]"),
)
# Two epochs of 7 batches with samples at 3, 6, 9 and 12. TensorBoard has every even batch as well.
TWO_EPOCHS = (
    *(*SMALL, *BRIEFLY_MEASURED, "epochs=2", "trainer.limit_train_batches=7"),
    *("sample_every=3", "print_every=3", "log_every=2"),
)


class StopAt(L.Callback):
    """Raises KeyboardInterrupt after a number of batches."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: L.Trainer, gan: GAN, *args: Any) -> None:
        if gan.state.batches_seen >= self.batch:
            raise KeyboardInterrupt


class StopAfter(StopAt):
    """The same, after the other callbacks of this batch."""

    def on_train_batch_start(self, trainer: L.Trainer, gan: GAN, *args: Any) -> None:
        super().on_train_batch_end(trainer, gan)

    def on_train_batch_end(self, trainer: L.Trainer, gan: GAN, *args: Any) -> None: ...


def rows(run: Path) -> list[dict[str, float]]:
    """metrics.csv without its empty cells."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
