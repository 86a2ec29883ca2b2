"""Devices: maps `trainer.gpus` to the arguments of Lightning's Trainer."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganmnist.runs import cpu
from ganmnist.utils.errors import UserError

if TYPE_CHECKING:
    import lightning as L
    import torch

# An update of one network leaves the other without gradients. Plain DDP, with one reducer for both
# networks, raises an error then.
DDP = "ddp_find_unused_parameters_true"

# Parameters of glibc's mallopt (malloc.h): free memory at the top of the heap above the first
# threshold goes back to the system; blocks above the second one are mapped separately.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3

# Mixed precision keeps the weights in float32, which objectives and images need.
PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed")

# With manual optimization the GAN does what these arguments of the Trainer do.
OWN_SETTINGS = {"gradient_clip_val": "gan.clip", "accumulate_grad_batches": "gan.accumulate"}


def check_request(gpus: Any, accelerator: str, devices: Any, precision: Any = "32-true") -> None:
    """Raises UserError for settings that are invalid on every machine."""
    for name, value, choices in (
        ("accelerator", accelerator, ("auto", "cpu", "gpu")),
        ("precision", precision, PRECISIONS),
    ):
        if value not in choices:
            raise UserError(f"trainer.{name}={value}: choose one of {', '.join(choices)}.")
    if gpus != "auto" and not is_count(gpus, minimum=0):
        raise UserError(
            f"trainer.gpus={gpus}: this is not a number of GPUs. Use auto, 0 (the CPU), 1, 2 ..."
        )
    if not is_count(devices, minimum=1):
        raise UserError(
            f"trainer.devices={devices}: this is not a number of processes. Use 1 or more."
        )
    if accelerator == "cpu" and gpus not in ("auto", 0):
        raise UserError(f"trainer=cpu contradicts trainer.gpus={gpus}. Leave one of them out.")
    if accelerator == "gpu" and gpus == 0:
        raise UserError("trainer=gpu contradicts trainer.gpus=0. Leave one of them out.")
    most = count_gpu_files()
    if most is not None and gpus != "auto" and gpus > most:
        raise too_many_gpus(gpus, most)
    if gpus not in ("auto", 0) and devices > 1:
        raise UserError(
            f"trainer.devices={devices} is a number of processes on the CPU, but "
            f"trainer.gpus={gpus} selects GPUs. Leave one of them out."
        )


def is_count(value: object, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def too_many_gpus(gpus: int, available: int) -> UserError:
    count = f"{available} GPU{'s' if available != 1 else ''}"
    return UserError(
        f"trainer.gpus={gpus}: this machine has {count}. Use trainer.gpus={available}."
    )


def count_gpu_files(devices: Path = Path("/dev")) -> int | None:
    """The largest number of GPUs that this machine can have; None if unknown.

    It takes no import of torch. Drivers of Linux create a file per GPU: NVIDIA's `nvidia0`, AMD's
    and others' `dri/renderD128`. Windows in WSL has `dxg` for all GPUs.
    """
    if sys.platform != "linux" or (devices / "dxg").exists():
        return None
    nvidia = [file for file in devices.glob("nvidia*") if file.name[6:].isdigit()]
    return max(len(nvidia), len([*devices.glob("dri/renderD*")]))


def choose_devices(
    gpus: int | str, accelerator: str, devices: int, strategy: str, num_nodes: int = 1
) -> dict[str, Any]:
    """Lightning's accelerator, devices and strategy.

    Args:
        gpus: number of GPUs. "auto": one GPU if there is one, else the CPU; 0: the CPU.
        accelerator: "auto", "cpu" or "gpu", as the group `trainer` sets it.
        devices: processes per machine on the CPU. A GPU has one process.
        strategy: "auto" is DDP for several processes.
        num_nodes: machines.

    Raises:
        UserError: this machine has fewer GPUs.
    """
    kind, available = find_gpus()
    n: Any = gpus
    if gpus == "auto":
        n = {"cpu": 0, "gpu": 1}.get(accelerator, min(available, 1))
    check_request(n, accelerator, devices)
    if n > available:
        raise too_many_gpus(n, available)
    processes = n or devices
    if strategy == "auto" and processes * num_nodes > 1:
        strategy = DDP
    return {"accelerator": kind if n else "cpu", "devices": processes, "strategy": strategy}


def find_gpus() -> tuple[str, int]:
    """Lightning's name for the GPUs of this machine, and their number."""
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.device_count()
    return "mps", int(torch.backends.mps.is_available())


def has_native_bfloat16(accelerator: str) -> bool:
    """Whether the device computes in bfloat16 faster than in float32.

    accelerator: as in `choose_devices`.
    """
    import torch

    if accelerator == "cuda":  # from NVIDIA's Ampere on
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return accelerator == "cpu" and cpu.native_bfloat16()


def build_trainer(
    gpus: int | str,
    accelerator: str,
    devices: int,
    strategy: str,
    num_nodes: int = 1,
    keep_memory: bool = True,
    **settings: Any,
) -> L.Trainer:
    """Builds Lightning's Trainer. `settings` are its other arguments.

    keep_memory: the process keeps the memory that it frees (`keep_freed_memory`).

    Raises:
        UserError: the Trainer has no such argument, or this machine no such devices.
    """
    import lightning as L

    available = signature(L.Trainer).parameters
    for name in settings.keys() - available.keys():
        raise UserError(
            f"trainer.{name}: Lightning's Trainer has no argument {name!r}. Leave it out."
        )
    for name, other in OWN_SETTINGS.items():
        if settings.get(name) is not None:
            raise UserError(f"trainer.{name}={settings[name]}: use {other}={settings[name]}.")
    if keep_memory:
        keep_freed_memory()
    chosen = choose_devices(gpus, accelerator, devices, strategy, num_nodes)
    cpu.limit_threads(chosen["devices"] if chosen["accelerator"] == "cpu" else 1)
    if chosen["accelerator"] == "cpu":
        # PyTorch's optimizers check for a GPU in every step. Lightning makes them ask NVIDIA's
        # library, for processes that fork. Without a GPU this takes up to 0.4 ms.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    try:
        return L.Trainer(num_nodes=num_nodes, **chosen, **settings)
    except ValueError as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


def keep_freed_memory() -> None:
    """Makes glibc's malloc keep the memory that a step frees. Other allocators stay unchanged.

    By default the top of the heap goes back to the system in every step, which clears it page by
    page before the next one.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, size in ((MMAP_THRESHOLD, 32 << 20), (TRIM_THRESHOLD, 2**31 - 1)):
            libc.mallopt(parameter, size)


def find_device(name: str) -> torch.device:
    """PyTorch's device of that name, such as cpu, cuda or cuda:1.

    Raises:
        UserError: this machine does not have it.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"device={name} is not available ({reason}). Use device=cpu.") from error
    return device
