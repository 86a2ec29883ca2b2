"""Ctrl-C and the signals of a cluster: the run stops after the current batch."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ganmnist.callbacks.checkpoint import LastCheckpoint, any_rank
from ganmnist.gan import GAN
from ganmnist.utils.errors import ForcedExit
from ganmnist.utils.signals import STOPPED, active_signals, signal_name

log = logging.getLogger(__name__)


class Interrupt(Callback):
    """Saves a checkpoint after the current batch and ends the run with a SystemExit.

    A chunk of batches ends early. A second signal skips the plots and the report (`ForcedExit`).
    Several processes stop at the same batch, within a few batches of the signal. The exception is
    no KeyboardInterrupt, because Lightning then ignores all further signals.
    """

    order = 2  # after all others, so that they have processed the batch

    def __init__(self) -> None:
        self.signals = 0  # received
        self.finished = False  # no batch follows
        self.between_batches = False  # a single process may exit at once
        self.old_handlers: dict[int, Any] = {}
        self.gan: GAN | None = None  # of a run of one process

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        self.gan = gan if trainer.world_size == 1 else None
        if threading.current_thread() is threading.main_thread():
            numbers = active_signals()
            self.old_handlers = {number: signal.signal(number, self.handle) for number in numbers}

    def handle(self, number: int, frame: Any) -> None:
        self.signals += 1
        if self.gan is not None:
            self.gan.stop_requested = True
        if self.finished or (self.signals > 1 and self.between_batches):
            raise ForcedExit(STOPPED)
        if self.signals == 1:
            name = "Ctrl-C" if number == signal.SIGINT else signal_name(number)
            when = "in a few batches" if self.gan is None else "after this batch"
            log.warning("%s: stopping %s. Press Ctrl-C again to skip the plots.", name, when)

    def on_train_batch_start(
        self, trainer: L.Trainer, gan: GAN, batch: Any, batch_idx: int
    ) -> None:
        self.between_batches = False

    def on_train_batch_end(
        self, trainer: L.Trainer, gan: GAN, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stop = any_rank(trainer, gan, batch_idx, self.signals > 0)
        if stop:
            if not self.signals:
                log.warning("Another process received a signal: stopping after this batch.")
            for callback in trainer.callbacks:
                if isinstance(callback, LastCheckpoint):
                    callback.save(trainer, gan)
        self.finished = stop or gan.state.batches_seen >= gan.batches_of_run
        self.between_batches = trainer.world_size == 1
        if stop:
            raise ForcedExit(STOPPED) if self.signals > 1 else SystemExit(STOPPED)

    def teardown(self, trainer: L.Trainer, gan: GAN, stage: str) -> None:
        for number, handler in self.old_handlers.items():
            signal.signal(number, handler)
        self.old_handlers = {}
