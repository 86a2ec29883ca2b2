"""Signals: the run stops after the present batch."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.gan import fit, small_gan

from ganmnist.callbacks import Interrupt, LastCheckpoint, Samples
from ganmnist.gan import GAN
from ganmnist.utils.batch import Batch
from ganmnist.utils.errors import ForcedExit
from ganmnist.utils.signals import SIGNALS


class SendSignals(L.Callback):
    """Sends SIGINT to this process, a number of times per hook. Keeps the exception of the run."""

    def __init__(self, **times: int) -> None:
        self.times = times
        self.exception: BaseException | None = None

    def send(self, hook: str) -> None:
        for _ in range(self.times.pop(hook, 0)):
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self.send("batch")

    def on_train_epoch_end(self, *args: Any) -> None:
        self.send("epoch_end")

    def on_exception(self, trainer: L.Trainer, gan: Any, exception: BaseException) -> None:
        self.exception = exception
        self.send("exception")


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """The default handlers, whatever the parent process ignores."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("times", "exception", "batches"),
    [
        ({"batch": 1}, SystemExit, 1),
        ({"batch": 2}, ForcedExit, 1),
        ({"epoch_end": 2}, ForcedExit, 3),
        ({"batch": 1, "exception": 1}, SystemExit, 1),
    ],
    ids=["once", "twice", "twice between batches", "once, and once during the plots"],
)
def test_signals_end_the_run_with_a_checkpoint(
    times: dict[str, int], exception: type[BaseException], batches: int, tmp_path: Path
) -> None:
    sender = SendSignals(**times)
    with pytest.raises(SystemExit) as exited:
        fit(small_gan(), epochs=2, callbacks=[sender, LastCheckpoint(tmp_path), Interrupt()])
    assert exited.value.code == 130
    assert type(sender.exception) is exception
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["batches_seen"] == batches


def test_signal_ends_a_chunk_early_and_resume_is_exact(tmp_path: Path) -> None:
    class SignalInBatch(GAN):
        def collect(self, batch: Batch) -> list[Batch]:
            batches = super().collect(batch)
            if self.state.batches_seen == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return batches

    chunks: dict[str, Any] = {"batches": 24, "chunk": 16}
    with pytest.raises(SystemExit):
        fit(small_gan(SignalInBatch), **chunks, callbacks=[LastCheckpoint(tmp_path), Interrupt()])
    path = tmp_path / "last.ckpt"
    assert torch.load(path, weights_only=True)["batches_seen"] == 5
    whole, resumed = small_gan(), small_gan()
    fit(whole, **chunks)
    fit(resumed, **chunks, ckpt_path=path)
    assert resumed.state.batches_seen == 24
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.parametrize(("exception", "plots"), [(SystemExit(), True), (ForcedExit(), False)])
def test_forced_exit_skips_the_plots(exception: SystemExit, plots: bool, tmp_path: Path) -> None:
    class CountingSamples(Samples):
        def finish(self, *args: Any) -> None:
            finished.append(1)

    finished: list[int] = []
    samples = CountingSamples(tmp_path, sample_every=1)
    samples.on_exception(L.Trainer(accelerator="cpu"), small_gan(), exception)
    assert bool(finished) == plots


def test_ignored_signals_stay_ignored(tmp_path: Path) -> None:
    class FindHandlers(L.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            handled.update(n for n in SIGNALS if callable(signal.getsignal(n)))

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    handled: set[signal.Signals] = set()
    fit(small_gan(), callbacks=[Interrupt(), FindHandlers()])
    assert handled == {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler  # restored
