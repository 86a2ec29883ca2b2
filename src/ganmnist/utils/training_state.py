"""Position of a training, as saved in a checkpoint beside weights and optimizer states."""

from __future__ import annotations

from typing import Any

import torch

from ganmnist.utils.batch import Batch


class TrainingState:
    """Counters of batches and epochs, and the batches collected for the next iteration.

    Intervals, x axes and checkpoints all use `batches_seen`. Lightning's `global_step` counts the
    steps of both optimizers.
    """

    def __init__(self) -> None:
        self.batches_seen = 0
        self.epochs_seen = 0
        self.epoch_start = 0  # batches seen when the current epoch began
        # True while the checkpoint at the end of an epoch is written: it already counts this epoch.
        self.epoch_over = False
        self.microbatches: list[Batch] = []  # collected for the next iteration

    def collect(self, batch: Batch, n: int) -> list[Batch]:
        """Counts a batch. Returns n batches after every n-th, otherwise none."""
        self.batches_seen += 1
        self.microbatches.append(batch)
        if len(self.microbatches) < n:
            return []
        batches, self.microbatches = self.microbatches, []
        return batches

    def end_epoch(self) -> None:
        self.epochs_seen += 1
        self.epoch_start = self.batches_seen
        self.epoch_over = False

    def undo_end_epoch(self) -> None:
        """Undoes `end_epoch`, for a run that stopped during its final metrics."""
        batches_per_epoch = self.epoch_start // self.epochs_seen
        self.epochs_seen -= 1
        self.epoch_start -= batches_per_epoch

    def state_dict(self, world_size: int = 1) -> dict[str, Any]:
        """Plain containers and tensors. All ranks call it, because it gathers their batches."""
        own = [[*batch.map(torch.Tensor.cpu)] for batch in self.microbatches]
        gathered = [own] * world_size
        if own and world_size > 1:
            torch.distributed.all_gather_object(gathered, own)
        return {
            "batches_seen": self.batches_seen,
            "epochs_seen": self.epochs_seen + self.epoch_over,
            "epoch_start": self.batches_seen if self.epoch_over else self.epoch_start,
            "microbatches": [batch for batches in gathered for batch in batches],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state of a checkpoint.

        Raises:
            ValueError: it is not a state.
        """
        names = ("batches_seen", "epochs_seen", "epoch_start")
        if not all(type(state[name]) is int and state[name] >= 0 for name in names):
            raise ValueError(f"{' or '.join(names)} is not a number of batches or epochs")
        if not state["epochs_seen"] <= state["epoch_start"] <= state["batches_seen"]:
            raise ValueError("epoch_start is not between epochs_seen and batches_seen")
        self.batches_seen = state["batches_seen"]
        self.epochs_seen = state["epochs_seen"]
        self.epoch_start = state["epoch_start"]
        self.microbatches = [Batch(*batch) for batch in state["microbatches"]]

    def keep_own_microbatches(self, rank: int, world_size: int, device: torch.device) -> None:
        """Drops the batches of other ranks from a loaded checkpoint."""
        n = len(self.microbatches) // world_size
        own = self.microbatches[rank * n :][:n]
        self.microbatches = [batch.to(device) for batch in own]
