"""checkpoints/last.ckpt: the whole state of training."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import gettempdir
from time import perf_counter
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ganmnist.gan import GAN
from ganmnist.utils.errors import UserError
from ganmnist.utils.files import atomic_write, failed_to_write
from ganmnist.utils.hooks import Flush

log = logging.getLogger(__name__)

MAX_WEIGHT = 1e5  # weights of networks that learn are below 100
REDUCE_EVERY = 10  # batches between the reductions of a flag: each makes all ranks wait


def any_rank(trainer: L.Trainer, gan: GAN, batch_idx: int, flag: bool) -> bool:
    """Whether the flag is set in any process. All processes return the same.

    Several processes compare their flags every `REDUCE_EVERY` batches of an epoch, and after the
    last batch of the run. In between this returns False.
    """
    if trainer.world_size == 1:
        return flag
    if batch_idx % REDUCE_EVERY and gan.state.batches_seen < gan.batches_of_run:
        return False
    result = trainer.strategy.reduce(torch.tensor(float(flag), device=gan.device), reduce_op="max")
    return bool(result)


def save_checkpoint(trainer: L.Trainer, path: Path) -> bool:
    """Writes a checkpoint. All ranks take part, rank 0 writes.

    Returns False if the file cannot be written.

    Raises:
        UserError: the run has diverged. An older file is unchanged.
    """
    gan = cast(GAN, trainer.lightning_module)
    if diverged := find_diverged(gan):
        raise UserError(
            f"{diverged} after batch {gan.state.batches_seen:,}: the run has diverged. Use a lower "
            "lr, or objective=bce_logits."
        )
    trainer.save_checkpoint(path)
    return not failed_to_write(path)


def find_diverged(gan: GAN) -> str:
    """A value that is not finite, or a weight that is far too large; otherwise nothing."""
    for name, value in gan.state_dict().items():
        if not value.isfinite().all():
            return f"{name} is not finite"
    for name, parameter in gan.named_parameters():
        if (largest := float(parameter.detach().abs().max())) > MAX_WEIGHT:
            return f"{name} has a weight of {largest:.2g}"
    return ""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically. A full disk does not end the training."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        content = BytesIO()
        torch.save(checkpoint, content)
        with atomic_write(Path(path), durable=True) as part:
            part.write_bytes(content.getbuffer())


class LastCheckpoint(Callback):
    """Writes last.ckpt after every epoch and at intervals. Resume starts from it.

    Lightning's ModelCheckpoint counts the steps of both optimizers, twice the batches here.

    Args:
        folder: the folder of last.ckpt.
        every_n_batches, every_minutes: intervals within an epoch; None: no interval.
    """

    order = 1  # after the callbacks whose state and files belong to the checkpoint

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
        self.saved_at = perf_counter()
        self.saved_batch = 0  # batches seen by the newest checkpoint
        # False within a batch: one network may be updated and the other not.
        self.between_batches = False

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        self.between_batches = True
        if trainer.is_global_zero:
            for part in self.path.parent.glob(".*.part"):  # of a killed process
                with suppress(OSError):
                    part.unlink()

    def on_train_batch_start(
        self, trainer: L.Trainer, gan: GAN, batch: Any, batch_idx: int
    ) -> None:
        self.between_batches = False

    def on_train_batch_end(
        self, trainer: L.Trainer, gan: GAN, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.between_batches = True
        if self.is_due(trainer, gan, batch_idx):
            self.save(trainer, gan)

    def is_due(self, trainer: L.Trainer, gan: GAN, batch_idx: int) -> bool:
        n = self.every_n_batches
        if n is not None and gan.state.batches_seen % n == 0:
            return True
        if self.every_minutes is None:
            return False
        overdue = perf_counter() - self.saved_at > 60 * self.every_minutes
        return any_rank(trainer, gan, batch_idx, overdue)

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        gan.state.epoch_over = True
        self.save(trainer, gan)

    def on_train_end(self, trainer: L.Trainer, gan: GAN) -> None:
        self.save_elsewhere(trainer, gan)

    def on_exception(self, trainer: L.Trainer, gan: GAN, exception: BaseException) -> None:
        # After a crash the state may be inconsistent, and other ranks may have ended. Lightning
        # turns the SIGTERM of a cluster into a SystemExit.
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit) and trainer.world_size == 1
        if stopped and self.between_batches and self.saved_batch < gan.state.batches_seen:
            try:
                self.save(trainer, gan)
            except UserError as error:
                log.error("%s", error)
        if stopped:
            self.save_elsewhere(trainer, gan)

    def save_elsewhere(self, trainer: L.Trainer, gan: GAN) -> None:
        """Saves to the temporary folder if last.ckpt cannot be written."""
        path = temporary_path(self.path) if failed_to_write(self.path) else None
        elsewhere = trainer.strategy.broadcast(path)
        if elsewhere and save_checkpoint(trainer, elsewhere) and trainer.is_global_zero:
            log.error(
                "%s cannot be written. The newest weights are in %s: make room, then move that "
                "file to %s.",
                *(self.path, elsewhere, self.path),
            )

    def save(self, trainer: L.Trainer, gan: GAN) -> None:
        for callback in trainer.callbacks:
            if isinstance(callback, Flush):  # no file may be older than the checkpoint
                callback.flush(trainer, gan)
        self.saved_at = perf_counter()
        if save_checkpoint(trainer, self.path):
            self.saved_batch = gan.state.batches_seen


def temporary_path(path: Path) -> Path | None:
    """A path in the system's temporary folder. None: no such folder is writable."""
    try:
        return Path(gettempdir(), f"ganmnist_{os.getpid()}_{path.name}")
    except FileNotFoundError:
        return None
