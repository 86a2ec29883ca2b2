"""checkpoints/last.ckpt: the whole state of training after every epoch."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from ganmnist.gan import GAN
from ganmnist.paths import whole


class LastCheckpoint(Callback):
    """Replaces last.ckpt in one move, so that there is a whole one at every moment.

    Lightning's ModelCheckpoint keys on a step counter that counts each optimiser's steps, twice
    the batches here.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "last.ckpt"

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        self.save(trainer)

    def on_exception(self, trainer: L.Trainer, gan: GAN, exception: BaseException) -> None:
        # After a crash the state may be broken, and other ranks may not be there to save theirs.
        # Lightning makes a SystemExit of the SIGTERM that a cluster sends when time is up.
        if isinstance(exception, KeyboardInterrupt | SystemExit) and trainer.world_size == 1:
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.path)  # all ranks take part, rank 0 writes
            return
        with whole(self.path) as part:
            trainer.save_checkpoint(part)
