"""Base LightningModule with exact resume and scalars on the device."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import lightning as L
from torch import Tensor

from ganmnist.utils.training_state import TrainingState


class ResumableModule(L.LightningModule):
    """Saves `state` in checkpoints instead of Lightning's counters.

    `pending_scalars` are the scalars since the last fetch, keyed by batches seen. They stay on
    the device until a callback fetches them, because a fetch after every batch would make a GPU
    wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state = TrainingState()
        self.pending_scalars: dict[int, dict[str, Tensor]] = {}

    @property
    def batches_of_run(self) -> int:
        """Real batches of the whole run."""
        loader: Any = self.trainer.train_dataloader
        return int(loader.n_batches) * (self.trainer.max_epochs or 0)

    def on_fit_start(self) -> None:
        """Sets Lightning's epoch from `state`, and keeps this rank's collected microbatches."""
        trainer, state = self.trainer, self.state
        if 0 < state.epochs_seen == trainer.max_epochs:
            state.undo_end_epoch()
        state.keep_own_microbatches(self.global_rank, trainer.world_size, self.device)
        progress: Any = trainer.fit_loop.epoch_progress.current
        progress.ready = progress.started = state.epochs_seen
        progress.processed = progress.completed = state.epochs_seen

    def record_scalars(self, prefix: str, scalars: Mapping[str, Tensor]) -> None:
        """Keeps scalars of the current batch."""
        row = self.pending_scalars.setdefault(self.state.batches_seen, {})
        row.update({f"{prefix}/{name}": value.detach() for name, value in scalars.items()})

    def on_train_epoch_start(self) -> None:
        self.pending_scalars.clear()

    def on_train_epoch_end(self) -> None:
        self.state.end_epoch()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.pop("loops", None)
        checkpoint["ganmnist"] = version("ganmnist")
        checkpoint |= self.state.state_dict(self.trainer.world_size)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Without the metadata of an OrderedDict, which could replace parameters by other tensors.
        checkpoint["state_dict"] = dict(checkpoint["state_dict"])
        self.state.load_state_dict(checkpoint)
