"""Ctrl-C, and the signals of a cluster whose time is up, at a moment that suits."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ganmnist.callbacks.checkpoint import LastCheckpoint, any_rank
from ganmnist.errors import Hurry
from ganmnist.gan import GAN

log = logging.getLogger(__name__)

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")  # Windows has not all of them
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class Interrupt(Callback):
    """Ends the run after the present batch, saved first, so that all files tell of whole batches.

    Several processes end together, a few batches later, whichever of them has had the signal.
    What comes after that, pictures and a report, a second signal leaves out. They come as exits,
    since after a KeyboardInterrupt Lightning listens to no signal any more.
    """

    after = 2  # all others, so that they have seen the batch

    def __init__(self) -> None:
        self.asked = 0
        self.leaving = False  # no batch is to come
        self.between_batches = False  # where one process alone may leave at once
        self.when = "after this batch"
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        if trainer.world_size > 1:
            self.when = "in a few batches"
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]  # as with nohup
            self.before = {number: signal.signal(number, self.note) for number in heard}

    def note(self, number: int, frame: Any) -> None:
        self.asked += 1
        if self.leaving or (self.asked > 1 and self.between_batches):
            raise Hurry(130)
        if self.asked == 1:
            what = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            log.warning("%s: the run ends %s. Once more, and without pictures.", what, self.when)

    def on_train_batch_start(
        self, trainer: L.Trainer, gan: GAN, batch: Any, batch_idx: int
    ) -> None:
        self.between_batches = False

    def on_train_batch_end(
        self, trainer: L.Trainer, gan: GAN, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stop = any_rank(trainer, gan, batch_idx, self.asked > 0)
        if stop:
            if not self.asked:
                log.warning("Another process was told to stop: the run ends after this batch.")
            for callback in trainer.callbacks:
                if isinstance(callback, LastCheckpoint):
                    callback.save(trainer, gan)
        self.leaving = stop or gan.batches_seen >= gan.batches_of_run
        self.between_batches = trainer.world_size == 1
        if stop:
            raise Hurry(130) if self.asked > 1 else SystemExit(130)

    def teardown(self, trainer: L.Trainer, gan: GAN, stage: str) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
