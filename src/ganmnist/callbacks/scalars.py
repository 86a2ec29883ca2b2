"""Scalars of a run: to the loggers, to the terminal and into losses.png.

The GAN keeps its scalars on the device. This callback fetches a window of batches in one transfer,
because a fetch after every batch would make a GPU wait.
"""

from __future__ import annotations

import gc
import logging
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from ganmnist.gan import GAN
from ganmnist.reporting.loggers import hparams_of
from ganmnist.reporting.plots import plot_losses
from ganmnist.utils.errors import ForcedExit
from ganmnist.utils.hooks import FlushLogger, LogFinalHparams, LogRows, OnScalars, TruncateAfter
from ganmnist.utils.values import check_interval

log = logging.getLogger(__name__)

Row = dict[str, float]

PLOT_SECONDS = 20  # least time between two plots of losses.png: one takes half a second


class Scalars(Callback):
    """Sends scalars to loggers and callbacks, prints a line every `print_every` batches, and plots
    the losses.

    Loggers with `log_rows` and callbacks with `on_scalars` receive every batch. Other loggers
    receive the means of windows of at most `log_every` batches. Means over an epoch go to loggers
    and to `trainer.callback_metrics` as `epoch/...`. One of them is `epoch/d/advantage`, the mean
    of D(x) - D(G(z)): 0 if D cannot separate real from generated images. Under DDP all scalars
    are those of rank 0.
    """

    def __init__(self, folder: str | Path, log_every: int, print_every: int) -> None:
        check_interval("log_every", log_every)
        check_interval("print_every", print_every)
        self.folder = Path(folder)
        self.log_every = log_every
        self.print_every = print_every
        self.per_batch: dict[str, array[float]] = defaultdict(lambda: array("d"))
        self.per_epoch: dict[str, list[float]] = defaultdict(list)
        self.epoch_rows: list[Row] = []
        self.plotted_at = self.fetched_at = perf_counter()
        self.fetched_batch = 0  # batches seen at the last fetch

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        self.fetched_at = self.plotted_at = perf_counter()
        self.fetched_batch = gan.state.batches_seen
        if gan.state.batches_seen:
            for logger in trainer.loggers:
                if isinstance(logger, TruncateAfter):
                    self.restore_scalars(logger.truncate_after(gan.state.batches_seen) or {}, gan)

    def restore_scalars(self, rows: Mapping[int, Row], gan: GAN) -> None:
        """Restores the state of a resumed run from its rows, keyed by batches seen."""
        for step, row in rows.items():
            self.keep_losses(step, row)
            if step > gan.state.epoch_start:
                self.epoch_rows.append({n: v for n, v in row.items() if n.startswith("train/")})
            if row.get("epoch", math.inf) <= gan.state.epochs_seen:
                for name in row:
                    if name.startswith("epoch/"):
                        self.per_epoch[name].append(row[name])

    def flush(self, trainer: L.Trainer, gan: GAN) -> None:
        """Sends and writes everything until this batch."""
        if rows := self.fetch(trainer, gan):
            self.send_to_loggers(trainer, rows)
            self.send_to_callbacks(trainer, gan, rows)
        for logger in trainer.loggers:
            if isinstance(logger, FlushLogger):
                logger.flush()

    def on_train_batch_end(
        self, trainer: L.Trainer, gan: GAN, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        log_due, print_due = (
            gan.state.batches_seen % every == 0 for every in (self.log_every, self.print_every)
        )
        if (log_due or print_due) and (rows := self.fetch(trainer, gan)):
            window = self.send_to_loggers(trainer, rows)
            self.send_to_callbacks(trainer, gan, rows)
            gan.log_dict(window, logger=False, prog_bar=True, on_step=True, on_epoch=False)
            if print_due:
                self.print_line(trainer, gan, window)

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        rows = self.fetch(trainer, gan)
        epoch = {
            name.replace("train/", "epoch/"): value
            for name, value in means(self.epoch_rows).items()
            if not name.endswith("images_per_s")
        }
        if {"epoch/d/real_prob", "epoch/d/fake_prob"} <= epoch.keys():
            epoch["epoch/d/advantage"] = epoch["epoch/d/real_prob"] - epoch["epoch/d/fake_prob"]
        for name, value in epoch.items():
            self.per_epoch[name].append(value)
        self.epoch_rows.clear()
        gan.log_dict(epoch, logger=False)
        rows.setdefault(gan.state.batches_seen, {}).update(epoch, epoch=trainer.current_epoch + 1)
        self.send_to_loggers(trainer, rows)
        self.send_to_callbacks(trainer, gan, rows)
        if perf_counter() - self.plotted_at > PLOT_SECONDS:
            self.plot(trainer, gan)
            gc.collect()  # a figure holds reference cycles; without this, figures pile up

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        self.plot(trainer, gan)
        final = {name.replace("epoch/", "final/"): v[-1] for name, v in self.per_epoch.items()}
        for logger in trainer.loggers:
            logger.log_metrics(final, step=gan.state.batches_seen)
            if isinstance(logger, LogFinalHparams):
                row = {**hparams_of(gan.hparams), "data": trainer.datamodule.dataset.name}
                logger.log_final_hparams(row, step=gan.state.batches_seen)

    def on_exception(self, trainer: L.Trainer, gan: GAN, exception: BaseException) -> None:
        if gan.pending_scalars:
            self.send_to_loggers(trainer, self.fetch(trainer, gan))
        if not isinstance(exception, ForcedExit):
            self.plot(trainer, gan)

    def fetch(self, trainer: L.Trainer, gan: GAN) -> dict[int, Row]:
        """Takes the scalars since the last fetch off the device: rows by batches seen."""
        history = gan.pending_scalars
        if not history:
            return {}
        flat = torch.stack([value.float() for row in history.values() for value in row.values()])
        values = iter(flat.tolist())
        rows = {step: {name: next(values) for name in row} for step, row in history.items()}
        gan.pending_scalars = {}

        now = perf_counter()
        batches = gan.state.batches_seen - self.fetched_batch
        images = batches * trainer.datamodule.batch_size * trainer.world_size
        rows[max(rows)]["train/images_per_s"] = images / (now - self.fetched_at)
        self.fetched_batch, self.fetched_at = gan.state.batches_seen, now

        self.epoch_rows += rows.values()
        for step, row in rows.items():
            self.keep_losses(step, row)
        return rows

    def keep_losses(self, step: int, row: Row) -> None:
        for name in ("train/d/loss", "train/g/loss"):  # G has no step in some batches
            if name in row:
                self.per_batch[name].extend((step, row[name]))

    def send_to_loggers(self, trainer: L.Trainer, rows: dict[int, Row]) -> Row:
        """Sends rows, keyed by batches seen, to all loggers. Returns the means over the rows."""
        window = {name: mean for name, mean in means(rows.values()).items() if name != "epoch"}
        for logger in trainer.loggers:
            if isinstance(logger, LogRows):
                logger.log_rows(rows)
            else:
                logger.log_metrics(window, step=max(rows))
        return window

    def send_to_callbacks(self, trainer: L.Trainer, gan: GAN, rows: dict[int, Row]) -> None:
        """Sends rows, keyed by batches seen, to callbacks, which may end the run."""
        for callback in trainer.callbacks:
            if isinstance(callback, OnScalars):
                callback.on_scalars(rows, gan)

    def print_line(self, trainer: L.Trainer, gan: GAN, window: Row) -> None:
        if not trainer.is_global_zero:
            return
        kind = "prob" if gan.objective.probability else "logit"
        names = ("d/loss", "g/loss", f"d/real_{kind}", f"d/fake_{kind}")
        log.info(
            "epoch %d/%d  batch %s/%s  D loss %.3f  G loss %.3f  D(x) %.3f  D(G(z)) %.3f  "
            "%s images/s",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            f"{gan.state.batches_seen:,}",
            f"{gan.batches_of_run:,}",
            *(window.get(f"train/{name}", math.nan) for name in names),
            f"{window['train/images_per_s']:,.0f}",
        )

    def plot(self, trainer: L.Trainer, gan: GAN) -> None:
        if not (trainer.is_global_zero and self.per_batch):
            return
        plot_losses(
            self.folder / "losses.png",
            self.per_batch,
            self.per_epoch,
            equilibrium=gan.loss_terms.equilibrium,
            title=f"{trainer.datamodule.dataset.name}, {gan.state.batches_seen:,} batches",
        )
        self.plotted_at = perf_counter()


def means(rows: Iterable[Mapping[str, float]]) -> Row:
    """The mean of every scalar over the rows that have it."""
    values = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            values[name].append(value)
    return {name: fmean(v) for name, v in values.items()}
