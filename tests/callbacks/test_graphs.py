"""CUDA graphs: a captured iteration computes the same numbers. On the CPU with a stand-in."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.gan import fit, small_gan
from helpers.launch import BRIEF, launch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ganmnist.callbacks.graphs import GraphRunner, Graphs
from ganmnist.gan import GAN
from ganmnist.losses.adversarial import RelativisticAverage, Wasserstein
from ganmnist.losses.penalties import R1
from ganmnist.stabilizers.instance_noise import InstanceNoise
from ganmnist.utils.errors import UserError
from ganmnist.utils.schedules import LearningRate, Linear


class EagerStream:
    """Stands in for CaptureStream: a replay runs the captured function again."""

    gan: GAN
    captures = 0

    def side_stream(self) -> nullcontext[None]:
        return nullcontext()

    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.captures += 1
        assert capturable_flags(self.gan) == [True, True]
        return work


class FailingStream(EagerStream):
    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def capturable_flags(gan: GAN) -> list[bool]:
    """The `capturable` setting of both optimizers."""
    optimizers = (gan.optimizer_of("d"), gan.optimizer_of("g"))
    return [group["capturable"] for o in optimizers for group in o.param_groups]


class KeepScalars(Callback):
    """Keeps the scalars of every batch and the number of captured kinds. Sets the stream."""

    def __init__(self, stream: EagerStream | None = None) -> None:
        self.stream = stream
        self.rows: list[dict[str, float]] = []
        self.captured = 0

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        if self.stream:
            self.stream.gan = gan
            gan.step_runner = GraphRunner(gan, self.stream)

    def on_train_batch_end(self, trainer: L.Trainer, gan: GAN, *args: Any) -> None:
        self.captured = len(gan.step_runner.captured) if gan.step_runner else 0
        scalars = gan.pending_scalars.pop(gan.state.batches_seen, {})
        self.rows.append({name: value.item() for name, value in scalars.items()})


def trained(stream: EagerStream | None, **parts: Any) -> tuple[GAN, list[dict[str, float]]]:
    gan, scalars = small_gan(**parts), KeepScalars(stream)
    fit(gan, batches=12, callbacks=[scalars])
    return gan, scalars.rows


# The number of kinds of iterations, and the arguments of the GAN.
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "default": (1, {}),
    "ema and resampled fakes": (1, {"ema": 0.9, "resample_fakes": True}),
    "several steps": (2, {"d_steps": 2, "g_steps": 2}),
    "accumulation": (1, {"accumulate": 2}),
    "lazy penalty": (
        2,
        {"objective": RelativisticAverage(), "penalties": {"r1": R1(1.0, interval=2)}},
    ),
    "clipped weights": (1, {"objective": Wasserstein(0.1)}),
    "constant noise": (1, {"stabilizers": {"noise": InstanceNoise(0.1)}}),
}


@pytest.mark.parametrize("case", CASES)
def test_replayed_iterations_equal_eager_ones(case: str) -> None:
    kinds, parts = CASES[case]
    stream = EagerStream()
    (captured, rows), (eager, expected) = trained(stream, **parts), trained(None, **parts)
    assert stream.captures == kinds
    assert rows == expected
    assert any(rows)
    for name, value in eager.state_dict().items():
        assert torch.equal(captured.state_dict()[name], value), name


def test_iterations_that_all_differ_are_not_captured(caplog: pytest.LogCaptureFixture) -> None:
    stream, schedules = EagerStream(), {"rate": LearningRate(Linear(1.0, 0.0))}
    with caplog.at_level(logging.INFO, "ganmnist.callbacks.graphs"):
        captured, rows = trained(stream, schedules=schedules)
    eager, expected = trained(None, schedules=schedules)
    assert stream.captures == 0
    assert rows == expected
    for name, value in eager.state_dict().items():
        assert torch.equal(captured.state_dict()[name], value), name
    assert len([r for r in caplog.records if r.name == "ganmnist.callbacks.graphs"]) == 1


def test_iterations_are_captured_once_they_are_equal() -> None:
    stream, schedules = EagerStream(), {"rate": LearningRate(Linear(1.0, 0.1, until=0.3))}
    (_, rows), (_, expected) = (trained(s, schedules=schedules) for s in (stream, None))
    assert stream.captures == 1
    assert rows == expected


def test_failed_capture_ends_the_run_with_its_reason() -> None:
    with pytest.raises(UserError, match="operation not permitted when stream is capturing"):
        trained(FailingStream())


def test_optimizer_settings_are_restored_after_the_capture() -> None:
    gan, _ = trained(EagerStream())
    assert capturable_flags(gan) == [False, False]


def test_without_a_gpu_there_are_no_graphs(data_root: Path, tmp_path: Path) -> None:
    launch(*BRIEF, "callbacks=graphs", f"hydra.run.dir={tmp_path}")
    assert "No CUDA graphs: the device is cpu" in (tmp_path / "train.log").read_text()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_losses_with_and_without_graphs_agree_on_a_gpu(case: str) -> None:
    kinds, parts = CASES[case]
    captured, eager = KeepScalars(), KeepScalars()
    graphs = Graphs(chunk=1)
    fit(small_gan(**parts), batches=12, callbacks=[graphs, captured], accelerator="gpu")
    fit(small_gan(**parts), batches=12, callbacks=[eager], accelerator="gpu")
    assert (captured.captured, eager.captured) == (kinds, 0)
    for one, other in zip(captured.rows, eager.rows, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
