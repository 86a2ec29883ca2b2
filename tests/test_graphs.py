"""Turns recorded and replayed are the turns as they come; on the CPU with a stand-in for graphs."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import fit, small_gan
from launch import BRIEF, launch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ganmnist.callbacks.graphs import Graphs, Recorder
from ganmnist.errors import UserError
from ganmnist.gan import GAN
from ganmnist.networks.stabilizers import InstanceNoise
from ganmnist.objectives import RelativisticAverage, Wasserstein
from ganmnist.regularizers import R1
from ganmnist.schedules import LearningRate, Linear


class Again:
    """Records work by keeping it: to replay it is to do it on what lies in the same places."""

    gan: GAN
    recorded = 0

    def aside(self) -> nullcontext[None]:
        return nullcontext()

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.recorded += 1
        assert flags(self.gan) == [True, True]
        return work


def flags(gan: GAN) -> list[bool]:
    """Whether the optimisers may be recorded."""
    return [group["capturable"] for o in gan.both_optimizers for group in o.param_groups]


class Unable(Again):
    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


class Notes(Callback):
    """Puts a recorder in place, and notes what every batch has logged and what is recorded."""

    def __init__(self, device: Again | None = None) -> None:
        self.device = device
        self.rows: list[dict[str, float]] = []
        self.recorded = 0

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        if self.device:
            self.device.gan = gan
            gan.recorder = Recorder(gan, self.device)

    def on_train_batch_end(self, trainer: L.Trainer, gan: GAN, *args: Any) -> None:
        self.recorded = len(gan.recorder.recorded) if gan.recorder else 0
        self.rows.append({n: v.item() for n, v in gan.history.pop(gan.batches_seen, {}).items()})


def played(device: Again | None, **parts: Any) -> tuple[GAN, list[dict[str, float]]]:
    gan, notes = small_gan(**parts), Notes(device)
    fit(gan, batches=12, callbacks=[notes])
    return gan, notes.rows


GAMES: dict[str, tuple[int, dict[str, Any]]] = {
    "the game itself": (1, {}),
    "an average and fresh fakes": (1, {"ema": 0.9, "fresh_fakes": True}),
    "several steps": (2, {"d_steps": 2, "g_steps": 2}),
    "several batches an update": (1, {"accumulate": 2}),
    "a penalty now and then": (
        2,
        {"objective": RelativisticAverage(), "terms": {"r1": R1(1.0, every=2)}},
    ),
    "clipped weights": (1, {"objective": Wasserstein(0.1)}),
    "steady noise": (1, {"stabilizers": {"noise": lambda d: InstanceNoise(d, 0.1)}}),
}


@pytest.mark.parametrize("game", GAMES)
def test_what_is_replayed_is_what_would_have_been_played(game: str) -> None:
    kinds, parts = GAMES[game]
    device = Again()
    (one, rows), (other, expected) = played(device, **parts), played(None, **parts)
    assert device.recorded == kinds
    assert rows == expected
    assert any(rows)
    for name, value in other.state_dict().items():
        assert torch.equal(one.state_dict()[name], value), name


def test_turns_that_all_differ_are_played_as_they_come(caplog: pytest.LogCaptureFixture) -> None:
    device, annealed = Again(), {"rate": LearningRate(Linear(1.0, 0.0))}
    with caplog.at_level(logging.INFO, "ganmnist.callbacks.graphs"):
        one, rows = played(device, schedules=annealed)
    other, expected = played(None, schedules=annealed)
    assert device.recorded == 0
    assert rows == expected
    for name, value in other.state_dict().items():
        assert torch.equal(one.state_dict()[name], value), name
    ours = [r.getMessage() for r in caplog.records if r.name == "ganmnist.callbacks.graphs"]
    assert ours == ["No CUDA graphs for turns that are all different from each other."]


def test_once_turns_are_alike_they_are_recorded() -> None:
    device, annealed = Again(), {"rate": LearningRate(Linear(1.0, 0.1, until=0.3))}
    (_, rows), (_, expected) = (played(d, schedules=annealed) for d in (device, None))
    assert device.recorded == 1
    assert rows == expected


def test_what_cannot_be_recorded_ends_the_run_with_its_reason() -> None:
    with pytest.raises(UserError, match=r"\(operation not permitted when stream is capturing\)"):
        played(Unable())


def test_optimisers_are_as_they_were_once_it_is_recorded() -> None:
    gan, _ = played(Again())
    assert flags(gan) == [False, False]


def test_elsewhere_than_on_a_gpu_there_are_none(data_root: Path, tmp_path: Path) -> None:
    launch(*BRIEF, "callbacks=graphs", f"hydra.run.dir={tmp_path}")
    assert "No CUDA graphs: the device is cpu." in (tmp_path / "train.log").read_text()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("game", GAMES)
def test_on_a_gpu_both_ways_give_the_same_losses(game: str) -> None:
    kinds, parts = GAMES[game]
    recorded, eager = Notes(), Notes()
    fit(small_gan(**parts), batches=12, callbacks=[Graphs(), recorded], accelerator="gpu")
    fit(small_gan(**parts), batches=12, callbacks=[eager], accelerator="gpu")
    assert (recorded.recorded, eager.recorded) == (kinds, 0)
    for one, other in zip(recorded.rows, eager.rows, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
