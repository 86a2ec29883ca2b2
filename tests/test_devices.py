"""trainer.gpus decides the device, and what cannot be is refused in a sentence."""

import os
import platform
import subprocess
import sys
from typing import Any

import lightning as L
import pytest

from ganmnist import devices
from ganmnist.devices import DDP, place
from ganmnist.errors import UserError


def on_a_machine_with(gpus: int, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(devices, "find_gpus", lambda: ("cuda", gpus))


@pytest.mark.parametrize(
    ("available", "gpus", "processes", "expected"),
    [
        (0, "auto", 1, ("cpu", 1, "auto")),
        (1, "auto", 1, ("cuda", 1, "auto")),
        (4, "auto", 1, ("cuda", 1, "auto")),
        (0, 0, 1, ("cpu", 1, "auto")),
        (4, 0, 1, ("cpu", 1, "auto")),
        (1, 1, 1, ("cuda", 1, "auto")),
        (4, 3, 1, ("cuda", 3, DDP)),
        (4, 0, 2, ("cpu", 2, DDP)),
        (0, "auto", 2, ("cpu", 2, DDP)),
    ],
)
def test_gpus_give_accelerator_devices_and_strategy(
    available: int,
    gpus: int | str,
    processes: int,
    expected: tuple[str, int, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_a_machine_with(available, monkeypatch)
    placed = place(gpus, "auto", processes, "auto")
    assert placed == dict(zip(("accelerator", "devices", "strategy"), expected, strict=True))


def test_several_machines_are_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_machine_with(1, monkeypatch)
    assert place(1, "auto", 1, "auto", num_nodes=2)["strategy"] == DDP
    assert place(0, "auto", 1, "auto", num_nodes=2)["strategy"] == DDP


def test_a_strategy_that_was_asked_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_machine_with(4, monkeypatch)
    for gpus in (1, 4):
        assert place(gpus, "auto", 1, "ddp_spawn")["strategy"] == "ddp_spawn"


@pytest.mark.parametrize(
    ("available", "asked", "parts"),
    [
        (0, {"gpus": 1}, ["trainer.gpus=1", "the 0 this machine has", "trainer.gpus=0"]),
        (4, {"gpus": 5}, ["trainer.gpus=5", "the 4 this machine has", "trainer.gpus=auto"]),
        (4, {"gpus": 1, "accelerator": "cpu"}, ["trainer=cpu", "trainer.gpus=1"]),
        (4, {"gpus": 0, "accelerator": "gpu"}, ["trainer=gpu", "trainer.gpus=0"]),
        (4, {"gpus": 2, "devices": 3}, ["trainer.devices=3", "trainer.gpus=2"]),
        (4, {"devices": 2}, ["trainer.devices=2", "trainer.gpus=1 trains on GPUs"]),
        (0, {"accelerator": "gpu"}, ["trainer.gpus=1", "the 0 this machine has"]),
        (0, {"devices": 0}, ["trainer.devices=0", "at least 1"]),
        (0, {"devices": "two"}, ["trainer.devices=two", "at least 1"]),
        (4, {"gpus": -1}, ["trainer.gpus=-1", "auto, 0 (the CPU), 1, 2"]),
        (4, {"gpus": "banana"}, ["trainer.gpus=banana", "auto, 0 (the CPU), 1, 2"]),
        (4, {"gpus": True}, ["trainer.gpus=True", "auto, 0 (the CPU), 1, 2"]),
        (4, {"gpus": 1.5}, ["trainer.gpus=1.5", "auto, 0 (the CPU), 1, 2"]),
    ],
)
def test_what_cannot_be_is_refused(
    available: int, asked: dict[str, Any], parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_machine_with(available, monkeypatch)
    request = {"gpus": "auto", "accelerator": "auto", "devices": 1, "strategy": "auto"} | asked
    with pytest.raises(UserError) as refusal:
        place(**request)
    for part in parts:
        assert part in str(refusal.value)


def test_settings_reach_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr(L, "Trainer", lambda **settings: asked.update(settings))
    on_a_machine_with(8, monkeypatch)
    devices.build_trainer(8, "auto", 1, "auto", num_nodes=2, precision="bf16-mixed")
    assert asked == {
        "accelerator": "cuda",
        "devices": 8,
        "strategy": DDP,
        "num_nodes": 2,
        "precision": "bf16-mixed",
    }


@pytest.mark.parametrize(("gpus", "asks"), [(0, None), (1, "1")])
def test_on_a_cpu_no_step_looks_for_the_library_of_gpus(
    gpus: int, asks: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(L, "Trainer", lambda **settings: None)
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    on_a_machine_with(1, monkeypatch)
    devices.build_trainer(gpus, "auto", 1, "auto")
    assert os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK") == asks


# 40 MiB, taken and freed ten times: the pages that the system had to bring for it.
TAKE_AND_FREE = """
from resource import RUSAGE_SELF, getpagesize, getrusage
from ganmnist.devices import hold_memory
if {held}: hold_memory()
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range(10):
    blocks = [b"x" * 2**20 for _ in range(40)]
    del blocks
print((getrusage(RUSAGE_SELF).ru_minflt - before) * getpagesize() / 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
@pytest.mark.parametrize(("held", "times"), [(False, 10), (True, 1)])
def test_memory_that_is_freed_is_taken_again(held: bool, times: int) -> None:
    code = TAKE_AND_FREE.format(held=held)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert round(float(done.stdout) / 40) == times
