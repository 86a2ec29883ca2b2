"""Signals: which are heard, and what comes of the first and of the second."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import fit, small_gan

from ganmnist.callbacks import Interrupt, LastCheckpoint, Samples
from ganmnist.callbacks.interrupt import SIGNALS
from ganmnist.errors import Hurry


class Sending(L.Callback):
    """Sends this process signals in hooks named; notes what ends the run."""

    def __init__(self, **times: int) -> None:
        self.times = times
        self.end: BaseException | None = None

    def send(self, hook: str) -> None:
        for _ in range(self.times.pop(hook, 0)):
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self.send("batch")

    def on_train_epoch_end(self, *args: Any) -> None:
        self.send("epoch_end")

    def on_exception(self, trainer: L.Trainer, gan: Any, exception: BaseException) -> None:
        self.end = exception
        self.send("exception")


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """What the tests were started with may have made them deaf."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupted(folder: Path, **times: int) -> tuple[Sending, int]:
    """Trains two epochs of three batches, with signals; the sender and the batches kept."""
    sending = Sending(**times)
    with pytest.raises(SystemExit) as leaving:
        fit(small_gan(), epochs=2, callbacks=[sending, LastCheckpoint(folder), Interrupt()])
    assert leaving.value.code == 130
    return sending, torch.load(folder / "last.ckpt", weights_only=True)["batches_seen"]


def test_once_is_the_end_after_the_batch(tmp_path: Path) -> None:
    sending, batches = interrupted(tmp_path, batch=1)
    assert (type(sending.end), batches) == (SystemExit, 1)


def test_twice_is_the_same_in_a_hurry(tmp_path: Path) -> None:
    sending, batches = interrupted(tmp_path, batch=2)
    assert (type(sending.end), batches) == (Hurry, 1)


def test_twice_between_batches_is_at_once(tmp_path: Path) -> None:
    sending, batches = interrupted(tmp_path, epoch_end=2)
    assert (type(sending.end), batches) == (Hurry, 3)


def test_once_and_once_more_while_pictures_are_drawn(tmp_path: Path) -> None:
    sending, batches = interrupted(tmp_path, batch=1, exception=1)
    assert (type(sending.end), batches) == (SystemExit, 1)


@pytest.mark.parametrize(("end", "drawn"), [(SystemExit(), True), (Hurry(), False)])
def test_in_a_hurry_nothing_is_drawn(end: SystemExit, drawn: bool, tmp_path: Path) -> None:
    class Drawing(Samples):
        def finish(self, *args: Any) -> None:
            finished.append(1)

    finished: list[int] = []
    Drawing(tmp_path, every=1).on_exception(L.Trainer(accelerator="cpu"), small_gan(), end)
    assert bool(finished) == drawn


def test_what_is_to_be_ignored_stays_ignored(tmp_path: Path) -> None:
    class Asking(L.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            listening.update(n for n in SIGNALS if callable(signal.getsignal(n)))

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    listening: set[signal.Signals] = set()
    fit(small_gan(), callbacks=[Interrupt(), Asking()])
    assert listening == {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler  # as it was
