"""Ctrl-C at a moment that suits: when the batch is done."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ganmnist.gan import GAN

log = logging.getLogger(__name__)


class Interrupt(Callback):
    """Ctrl-C ends the run after the present batch, so that every file tells of whole batches.

    A second Ctrl-C does not wait. Last of the callbacks, so that the others have seen the batch.
    """

    def __init__(self) -> None:
        self.asked = False
        self.over = False  # the last batch has been seen

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self.note)

    def note(self, *signal_and_frame: Any) -> None:
        if self.asked or self.over:
            raise KeyboardInterrupt
        self.asked = True
        log.warning("Ctrl-C: the run ends after this batch. Once more, and it ends now.")

    def on_train_batch_end(
        self, trainer: L.Trainer, gan: GAN, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.over = gan.batches_seen >= gan.batches_of_run
        if self.asked:
            raise KeyboardInterrupt

    def teardown(self, trainer: L.Trainer, gan: GAN, stage: str) -> None:
        if hasattr(self, "before"):
            signal.signal(signal.SIGINT, self.before)
            del self.before
