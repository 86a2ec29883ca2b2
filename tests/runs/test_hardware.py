"""trainer.gpus selects the devices. Invalid values are refused."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from ganmnist.runs import hardware
from ganmnist.runs.hardware import DDP, choose_devices
from ganmnist.utils.errors import UserError


def set_gpus(gpus: int, patch: pytest.MonkeyPatch) -> None:
    """Simulates a machine with this number of GPUs."""
    patch.setattr(hardware, "find_gpus", lambda: ("cuda", gpus))
    patch.setattr(hardware, "count_gpu_files", lambda: gpus)


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
    set_gpus(available, monkeypatch)
    chosen = choose_devices(gpus, "auto", processes, "auto")
    assert chosen == dict(zip(("accelerator", "devices", "strategy"), expected, strict=True))


def test_files_of_the_drivers_limit_the_number_of_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert hardware.count_gpu_files(tmp_path) == 0
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1", "nvidia12"):
        (tmp_path / name).touch()
    assert hardware.count_gpu_files(tmp_path) == 3
    (tmp_path / "dri").mkdir()
    for name in ("card0", *(f"renderD{n}" for n in range(128, 133))):
        (tmp_path / "dri" / name).touch()
    assert hardware.count_gpu_files(tmp_path) == 5
    (tmp_path / "dxg").touch()
    assert hardware.count_gpu_files(tmp_path) is None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hardware.count_gpu_files(tmp_path / "missing") is None


def test_several_machines_use_ddp(monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(1, monkeypatch)
    assert choose_devices(1, "auto", 1, "auto", num_nodes=2)["strategy"] == DDP
    assert choose_devices(0, "auto", 1, "auto", num_nodes=2)["strategy"] == DDP


def test_given_strategy_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(4, monkeypatch)
    for gpus in (1, 4):
        assert choose_devices(gpus, "auto", 1, "ddp_spawn")["strategy"] == "ddp_spawn"


@pytest.mark.parametrize(
    ("available", "settings", "parts"),
    [
        (0, {"gpus": 1}, ["trainer.gpus=1:", "trainer.gpus=0"]),
        (4, {"gpus": 5}, ["trainer.gpus=5:", "this machine has 4 GPUs", "trainer.gpus=4"]),
        (4, {"gpus": 1, "accelerator": "cpu"}, ["trainer=cpu", "trainer.gpus=1"]),
        (4, {"gpus": 0, "accelerator": "gpu"}, ["trainer=gpu", "trainer.gpus=0"]),
        (4, {"gpus": 2, "devices": 3}, ["trainer.devices=3", "trainer.gpus=2"]),
        (4, {"devices": 2}, ["trainer.devices=2", "trainer.gpus=1"]),
        (0, {"accelerator": "gpu"}, ["trainer.gpus=1", "trainer.gpus=0"]),
        (0, {"devices": 0}, ["trainer.devices=0"]),
        (0, {"devices": "two"}, ["trainer.devices=two"]),
        (4, {"gpus": -1}, ["trainer.gpus=-1"]),
        (4, {"gpus": "banana"}, ["trainer.gpus=banana"]),
        (4, {"gpus": True}, ["trainer.gpus=True"]),
        (4, {"gpus": 1.5}, ["trainer.gpus=1.5"]),
    ],
)
def test_invalid_devices_are_refused(
    available: int, settings: dict[str, Any], parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_gpus(available, monkeypatch)
    request = {"gpus": "auto", "accelerator": "auto", "devices": 1, "strategy": "auto"} | settings
    with pytest.raises(UserError) as refusal:
        choose_devices(**request)
    for part in parts:
        assert part in str(refusal.value)


def test_settings_reach_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    received = {}
    monkeypatch.setattr(L, "Trainer", trainer_that(received.update))
    set_gpus(8, monkeypatch)
    hardware.build_trainer(8, "auto", 1, "auto", num_nodes=2, precision="bf16-mixed")
    assert received == {
        "accelerator": "cuda",
        "devices": 8,
        "strategy": DDP,
        "num_nodes": 2,
        "precision": "bf16-mixed",
    }


def trainer_that(receive: Callable[[dict[str, Any]], object]) -> Callable[..., None]:
    """A replacement of Lightning's Trainer that only passes its arguments on."""

    @wraps(L.Trainer)
    def trainer(**settings: Any) -> None:
        receive(settings)

    return trainer


@pytest.mark.parametrize(("gpus", "value"), [(0, None), (1, "1")])
def test_training_on_a_cpu_does_not_check_for_gpus_with_nvml(
    gpus: int, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(L, "Trainer", trainer_that(lambda settings: None))
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    set_gpus(1, monkeypatch)
    hardware.build_trainer(gpus, "auto", 1, "auto")
    assert os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK") == value


# Allocates and frees 40 MiB ten times. Prints the MiB of new pages.
ALLOCATE = """
from resource import RUSAGE_SELF, getpagesize, getrusage
from ganmnist.runs.hardware import keep_freed_memory
if {keep}: keep_freed_memory()
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range(10):
    blocks = [b"x" * 2**20 for _ in range(40)]
    del blocks
print((getrusage(RUSAGE_SELF).ru_minflt - before) * getpagesize() / 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(("keep", "times"), [(False, 10), (True, 1)])
def test_freed_memory_is_kept(keep: bool, times: int) -> None:
    code = ALLOCATE.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert round(float(done.stdout) / 40) == times
