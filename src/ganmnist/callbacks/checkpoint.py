"""checkpoints/last.ckpt: the whole state of training."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import gettempdir
from time import perf_counter
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ganmnist.errors import UserError
from ganmnist.files import is_missing, whole
from ganmnist.gan import GAN

log = logging.getLogger(__name__)

AGREE_EVERY = 10  # steps: signals and clocks differ, and to ask each other makes all ranks wait


def any_rank(trainer: L.Trainer, gan: GAN, step: int, asks: bool) -> bool:
    """Whether a process asks for something, the same answer in all of them.

    Several are heard now and then, at the same steps of an epoch, and once all batches are over.
    """
    if trainer.world_size == 1:
        return asks
    if step % AGREE_EVERY and gan.batches_seen < gan.batches_of_run:
        return False
    answer = trainer.strategy.reduce(torch.tensor(float(asks), device=gan.device), reduce_op="max")
    return bool(answer)


def save_checkpoint(trainer: L.Trainer, path: Path) -> bool:
    """The whole state of training in one file; all ranks take part, rank 0 writes.

    Returns whether the file could be written.

    Raises:
        UserError: a weight is no number, so that the file is better left as it was.
    """
    gan = trainer.lightning_module
    for name, value in gan.state_dict().items():
        if not value.isfinite().all():
            raise UserError(
                f"{name} is not finite after batch {gan.batches_seen:,}: the run has diverged. Try "
                f"a lower lr, or objective=bce_logits; a checkpoint in {path.parent} is finite."
            )
    trainer.save_checkpoint(path)
    return not is_missing(path)


class WholeFiles(TorchCheckpointIO):
    """Lightning's way to a checkpoint's file, by which a full disk does not end a training."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        content = BytesIO()
        torch.save(checkpoint, content)
        with whole(Path(path), durable=True) as part:
            part.write_bytes(content.getbuffer())


class LastCheckpoint(Callback):
    """last.ckpt, from which a run goes on: after every epoch, and in between if asked.

    Lightning's ModelCheckpoint keys on a step counter that counts each optimiser's steps, twice
    the batches here.

    Args:
        folder: where last.ckpt is replaced, in one move, so that there is a whole one all the time.
        every_n_batches, every_minutes: also within an epoch; None is not.
    """

    after = 1  # all others, so that a run which goes on from it has what they have seen and done

    def __init__(
        self,
        folder: str | Path,
        every_n_batches: int | None = None,
        every_minutes: float | None = None,
    ) -> None:
        for name, value in (("n_batches", every_n_batches), ("minutes", every_minutes)):
            if value is not None and value <= 0:
                raise ValueError(f"checkpoint.every_{name}={value}: choose one above 0, or null")
        self.path = Path(folder) / "last.ckpt"
        self.every_n_batches = every_n_batches
        self.every_minutes = every_minutes
        self.saved = perf_counter()
        self.batch = 0  # of the newest checkpoint
        # Before training has begun, and within a batch, when one player may have moved and the
        # other not, there is nothing to save.
        self.between_batches = False

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        self.between_batches = True
        if trainer.is_global_zero:
            for left in self.path.parent.glob(".*.part"):  # by one who was killed
                with suppress(OSError):
                    left.unlink()

    def on_train_batch_start(
        self, trainer: L.Trainer, gan: GAN, batch: Any, batch_idx: int
    ) -> None:
        self.between_batches = False

    def on_train_batch_end(
        self, trainer: L.Trainer, gan: GAN, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.between_batches = True
        if self.due(trainer, gan, batch_idx):
            self.save(trainer, gan)

    def due(self, trainer: L.Trainer, gan: GAN, step: int) -> bool:
        n = self.every_n_batches
        if n is not None and gan.batches_seen % n == 0:
            return True
        if self.every_minutes is None:
            return False
        late = perf_counter() - self.saved > 60 * self.every_minutes
        return any_rank(trainer, gan, step, late)

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        gan.epoch_over = True  # all that follows an epoch has been done
        self.save(trainer, gan)

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        self.rescue(trainer, gan)

    def on_exception(self, trainer: L.Trainer, gan: GAN, exception: BaseException) -> None:
        # After a crash the state may be broken, and other ranks may not be there to save theirs.
        # Lightning makes a SystemExit of the SIGTERM that a cluster sends when time is up.
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit) and trainer.world_size == 1
        if stopped and self.between_batches and self.batch < gan.batches_seen:
            try:
                self.save(trainer, gan)
            except UserError as error:
                log.error("%s", error)
        if stopped:
            self.rescue(trainer, gan)

    def rescue(self, trainer: L.Trainer, gan: GAN) -> None:
        """Saves elsewhere what a full disk has kept from its place."""
        place = place_for(self.path) if is_missing(self.path) else None
        elsewhere = trainer.strategy.broadcast(place)
        if elsewhere and save_checkpoint(trainer, elsewhere) and trainer.is_global_zero:
            log.error("The newest weights are in %s: move it to %s.", elsewhere, self.path)

    def save(self, trainer: L.Trainer, gan: GAN) -> None:
        for callback in trainer.callbacks:
            if hasattr(callback, "flush"):  # what is on disk is to be at least as old
                callback.flush(trainer, gan)
        self.saved = perf_counter()
        if save_checkpoint(trainer, self.path):
            self.batch = gan.batches_seen


def place_for(path: Path) -> Path | None:
    """Where the system keeps temporary files, if there is room."""
    try:
        return Path(gettempdir(), f"ganmnist_{os.getpid()}_{path.name}")
    except FileNotFoundError:
        return None
