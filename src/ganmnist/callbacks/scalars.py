"""Every scalar of a run: to the loggers, to the terminal, into losses.png.

The model notes its scalars batch by batch and leaves them on the device. Here they are fetched,
a window at a time in one transfer, because a fetch after every batch would make a GPU wait.
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

from ganmnist.duel import Sample
from ganmnist.errors import Hurry
from ganmnist.gan import GAN
from ganmnist.plots import plot_losses

log = logging.getLogger(__name__)

Row = dict[str, float]

REDRAW = 20  # seconds before each drawing of losses.png, which takes half a second, but the last


class Scalars(Callback):
    """Hands scalars on, prints a line every `print_every` batches, draws the losses.

    Loggers with `log_rows` get every batch, others the mean of each window of at most `log_every`,
    callbacks with `look_at` every batch too. Means over an epoch go to loggers and to
    `trainer.callback_metrics` as `epoch/...`, among them `epoch/d/advantage`, the mean of D(x)
    minus that of D(G(z)): 0 where D cannot tell. Under DDP all of it is what rank 0 sees.
    """

    def __init__(self, folder: str | Path, log_every: int, print_every: int) -> None:
        self.folder = Path(folder)
        self.log_every = log_every
        self.print_every = print_every
        self.per_batch: dict[str, array[float]] = defaultdict(lambda: array("d"))
        self.per_epoch: dict[str, list[float]] = defaultdict(list)
        self.epoch_rows: list[Row] = []
        self.images = 0
        self.since = perf_counter()
        self.drawn = perf_counter()

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        self.since = self.drawn = perf_counter()
        if gan.batches_seen:
            for logger in trainer.loggers:
                if hasattr(logger, "rewind"):
                    self.remember(logger.rewind(gan.batches_seen) or {}, gan)

    def remember(self, rows: Mapping[int, Row], gan: GAN) -> None:
        """Takes up rows of a run that goes on."""
        for step, row in rows.items():
            self.note(step, row)
            if step > gan.epoch_start:
                self.epoch_rows.append({n: v for n, v in row.items() if n.startswith("train/")})
            if row.get("epoch", math.inf) <= gan.epochs_seen:
                for name in row:
                    if name.startswith("epoch/"):
                        self.per_epoch[name].append(row[name])

    def flush(self, trainer: L.Trainer, gan: GAN) -> None:
        """Hands on all there is until now, for who continues from here."""
        if rows := self.fetch(gan):
            self.hand_on(trainer, rows)
            self.show(trainer, gan, rows)
        for logger in trainer.loggers:
            if hasattr(logger, "flush"):
                logger.flush()

    def on_train_batch_end(
        self, trainer: L.Trainer, gan: GAN, outputs: Any, batch: list[Sample], batch_idx: int
    ) -> None:
        self.images += trainer.world_size * trainer.datamodule.batch_size * len(batch)
        due = [gan.batches_seen % every == 0 for every in (self.log_every, self.print_every)]
        if any(due) and (rows := self.fetch(gan)):  # what is printed is of the batches just seen
            window = self.hand_on(trainer, rows)
            self.show(trainer, gan, rows)
            gan.log_dict(window, logger=False, prog_bar=True, on_step=True, on_epoch=False)
            if due[1]:
                self.print_line(trainer, gan, window)

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        rows = self.fetch(gan)
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
        rows.setdefault(gan.batches_seen, {}).update(epoch, epoch=trainer.current_epoch + 1)
        self.hand_on(trainer, rows)
        self.show(trainer, gan, rows)
        if perf_counter() - self.drawn > REDRAW:
            self.draw(trainer, gan)
            gc.collect()  # a figure is one knot of cycles, and those of a long run would pile up

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        self.draw(trainer, gan)
        final = {name.replace("epoch/", "final/"): v[-1] for name, v in self.per_epoch.items()}
        for logger in trainer.loggers:
            logger.log_metrics(final, step=gan.batches_seen)
            if hasattr(logger, "log_settings"):
                row = {**settings(gan.hparams), "data": trainer.datamodule.dataset.name}
                logger.log_settings(row, step=gan.batches_seen)

    def on_exception(self, trainer: L.Trainer, gan: GAN, exception: BaseException) -> None:
        if gan.history:
            self.hand_on(trainer, self.fetch(gan))
        if not isinstance(exception, Hurry):
            self.draw(trainer, gan)

    def fetch(self, gan: GAN) -> dict[int, Row]:
        """Takes what the model has noted since the last time: rows by batches seen."""
        history = gan.history
        if not history:
            return {}
        flat = torch.stack([value.float() for row in history.values() for value in row.values()])
        values = iter(flat.tolist())
        rows = {step: {name: next(values) for name in row} for step, row in history.items()}
        gan.history = {}

        now = perf_counter()
        last = rows[max(rows)]
        last["train/images_per_s"] = self.images / (now - self.since)
        self.images, self.since = 0, now

        self.epoch_rows += rows.values()
        for step, row in rows.items():
            self.note(step, row)
        return rows

    def note(self, step: int, row: Row) -> None:
        for name in ("train/d/loss", "train/g/loss"):  # a player may sit a batch out
            if name in row:
                self.per_batch[name].extend((step, row[name]))

    def hand_on(self, trainer: L.Trainer, rows: dict[int, Row]) -> Row:
        """Gives rows to all loggers; returns the mean of what they measure."""
        window = {name: mean for name, mean in means(rows.values()).items() if name != "epoch"}
        for logger in trainer.loggers:
            if hasattr(logger, "log_rows"):
                logger.log_rows(rows)
            else:
                logger.log_metrics(window, step=max(rows))
        return window

    def show(self, trainer: L.Trainer, gan: GAN, rows: dict[int, Row]) -> None:
        """Lets callbacks look at rows; one may end the run for what it sees."""
        for callback in trainer.callbacks:
            if hasattr(callback, "look_at"):
                callback.look_at(rows, gan)

    def print_line(self, trainer: L.Trainer, gan: GAN, window: Row) -> None:
        if not trainer.is_global_zero:
            return
        kind = "prob" if gan.objective.probability else "logit"
        names = ("d/loss", "g/loss", f"d/real_{kind}", f"d/fake_{kind}")
        log.info(
            "epoch %d/%d  batch %s/%s  D %.3f  G %.3f  D(x) %.3f  D(G(z)) %.3f  %s images/s",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            f"{gan.batches_seen:,}",
            f"{gan.batches_of_run:,}",
            *(window.get(f"train/{name}", math.nan) for name in names),
            f"{window['train/images_per_s']:,.0f}",
        )

    def draw(self, trainer: L.Trainer, gan: GAN) -> None:
        if not (trainer.is_global_zero and self.per_batch):
            return
        plot_losses(
            self.folder / "losses.png",
            self.per_batch,
            self.per_epoch,
            equilibrium=gan.objective.equilibrium,
            title=f"{trainer.datamodule.dataset.name}, {gan.batches_seen:,} batches",
        )
        self.drawn = perf_counter()


def settings(config: Mapping[str, Any]) -> dict[str, str | int | float]:
    """A configuration as one row of a table: its plain values, and what it builds by name."""
    plain = {name: v for name, v in config.items() if isinstance(v, str | int | float)}
    parts = {"model": config["model"]["generator"], "objective": config["objective"]}
    parts |= {"family": config["gan"], "discriminator": config["gan"]["discriminator"]}
    return plain | {name: part["_target_"].split(".", 1)[1] for name, part in parts.items()}


def means(rows: Iterable[Mapping[str, float]]) -> Row:
    """The mean of every scalar over the rows that have it."""
    values = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            values[name].append(value)
    return {name: fmean(v) for name, v in values.items()}
