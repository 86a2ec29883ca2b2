"""checkpoints/last.ckpt: the whole state of training after every epoch."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from ganmnist.errors import UserError
from ganmnist.gan import GAN
from ganmnist.paths import whole

log = logging.getLogger(__name__)


def save_checkpoint(trainer: L.Trainer, path: Path) -> None:
    """The whole state of training in one file; all ranks take part, rank 0 writes.

    Raises:
        UserError: a weight is no number, so that the file is better left as it was.
    """
    gan = trainer.lightning_module
    for name, value in gan.state_dict().items():
        if not value.isfinite().all():
            raise UserError(
                f"{name} is not finite after batch {gan.batches_seen:,}: the run has diverged. Try "
                f"a lower lr, or objective=bce_logits; {path.parent} has the last finite weights."
            )
    if not trainer.is_global_zero:
        trainer.save_checkpoint(path)
        return
    with whole(path) as part:
        trainer.save_checkpoint(part)


class LastCheckpoint(Callback):
    """Replaces last.ckpt in one move, so that there is a whole one at every moment.

    Lightning's ModelCheckpoint keys on a step counter that counts each optimiser's steps, twice
    the batches here.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "last.ckpt"

    def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
        save_checkpoint(trainer, self.path)

    def on_exception(self, trainer: L.Trainer, gan: GAN, exception: BaseException) -> None:
        # After a crash the state may be broken, and other ranks may not be there to save theirs.
        # Lightning makes a SystemExit of the SIGTERM that a cluster sends when time is up.
        if isinstance(exception, KeyboardInterrupt | SystemExit) and trainer.world_size == 1:
            try:
                save_checkpoint(trainer, self.path)
            except UserError as error:
                log.error("%s", error)
