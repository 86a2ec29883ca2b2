"""The progress bar of the run."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar as Base
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ganmnist.gan import GAN
from ganmnist.reporting.console import console


class ProgressBar(Base):
    """Epoch, losses, images/s and the remaining time. It is shown in terminals only."""

    def __init__(self) -> None:
        super().__init__()
        self.progress: Progress | None = None

    def disable(self) -> None:
        """Lightning calls this on ranks above 0, which show no bar anyway."""

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        if not (trainer.is_global_zero and console.is_terminal):
            return
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("left"),
            TextColumn("{task.fields[scalars]}"),
            console=console,
            refresh_per_second=4,
            transient=True,
        )
        self.task = self.progress.add_task("", total=gan.batches_of_run, epoch="", scalars="")
        self.progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, gan: GAN, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.progress is None:
            return
        latest = trainer.progress_bar_metrics
        shown = {
            "D {:.3f}": "train/d/loss",
            "G {:.3f}": "train/g/loss",
            "{:,.0f} images/s": "train/images_per_s",
        }
        scalars = "  ".join(
            text.format(float(latest[name])) for text, name in shown.items() if name in latest
        )
        self.progress.update(
            self.task,
            completed=gan.state.batches_seen,
            epoch=f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
            scalars=scalars,
        )

    def stop(self) -> None:
        if self.progress is not None:
            with suppress(OSError, SystemExit):  # the terminal may be closed
                self.progress.stop()
            self.progress = None

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        self.stop()

    def on_exception(self, trainer: L.Trainer, gan: GAN, exception: BaseException) -> None:
        self.stop()
