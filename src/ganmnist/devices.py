"""`trainer.gpus` alone decides the device; this maps it to what Lightning wants to hear."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any

from ganmnist.errors import UserError

# Each player's update leaves the other's parameters without a gradient, which plain DDP, with
# one reducer around both networks, takes for an error.
DDP = "ddp_find_unused_parameters_true"

# From glibc's malloc.h: larger blocks are mapped on their own; more than this at the top is given
# back to the system.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3

# Mixed precisions keep the weights in float32, which the objectives and pictures rely on.
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


def check_request(gpus: Any, accelerator: str, devices: Any, precision: Any = "32-true") -> None:
    """Raises UserError for what no machine could give; what this one has is not looked at."""
    for name, value, choices in (
        ("accelerator", accelerator, ("auto", "cpu", "gpu")),
        ("precision", precision, PRECISIONS),
    ):
        if value not in choices:
            raise UserError(f"trainer.{name}={value}: choose one of {', '.join(choices)}.")
    if gpus != "auto" and not is_count(gpus, at_least=0):
        raise UserError(
            f"trainer.gpus={gpus} is not a number of GPUs: choose auto, 0 (the CPU), 1, 2 ..."
        )
    if not is_count(devices, at_least=1):
        raise UserError(
            f"trainer.devices={devices} is not a number of processes: choose at least 1."
        )
    if accelerator == "cpu" and gpus not in ("auto", 0):
        raise UserError(f"trainer=cpu contradicts trainer.gpus={gpus}: leave one of them out.")
    if accelerator == "gpu" and gpus == 0:
        raise UserError("trainer=gpu contradicts trainer.gpus=0: leave one of them out.")
    if gpus not in ("auto", 0) and devices > 1:
        raise UserError(
            f"trainer.devices={devices} counts processes on the CPU, but trainer.gpus={gpus} "
            f"trains on GPUs: leave one of them out."
        )


def is_count(value: object, at_least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def place(
    gpus: int | str, accelerator: str, devices: int, strategy: str, num_nodes: int = 1
) -> dict[str, Any]:
    """Lightning's accelerator, devices and strategy for a number of GPUs.

    Args:
        gpus: "auto" is one GPU if there is one, else the CPU; 0 is the CPU.
        accelerator: what the choice of `trainer` insists on: "auto", "cpu" or "gpu".
        devices: processes a machine on the CPU; GPUs have one each.
        strategy: "auto" is DDP for more than one process.
        num_nodes: machines.
    """
    kind, available = find_gpus()
    n: Any = gpus
    if gpus == "auto":
        n = {"cpu": 0, "gpu": 1}.get(accelerator, min(available, 1))
    check_request(n, accelerator, devices)
    if n > available:
        raise UserError(
            f"trainer.gpus={n} is more than the {available} this machine has: choose "
            f"trainer.gpus={'auto' if available else 0} or a machine with more."
        )
    processes = n or devices
    if strategy == "auto" and processes * num_nodes > 1:
        strategy = DDP
    return {"accelerator": kind if n else "cpu", "devices": processes, "strategy": strategy}


def find_gpus() -> tuple[str, int]:
    """Lightning's name for the kind of GPU in this machine, and how many there are."""
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.device_count()
    return "mps", int(torch.backends.mps.is_available())


def build_trainer(
    gpus: int | str,
    accelerator: str,
    devices: int,
    strategy: str,
    num_nodes: int = 1,
    keep_memory: bool = True,
    **settings: Any,
) -> Any:
    """Lightning's Trainer on the devices asked for; other settings are handed to it.

    keep_memory: lets the whole process keep the memory it frees, see `hold_memory`.
    """
    import lightning as L

    if keep_memory:
        hold_memory()
    placed = place(gpus, accelerator, devices, strategy, num_nodes)
    if placed["accelerator"] == "cpu":
        # PyTorch's optimisers ask in every step whether there is a GPU. Lightning makes them ask
        # NVIDIA's library, for the sake of processes that fork; to find none takes up to 0.4 ms.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    return L.Trainer(num_nodes=num_nodes, **placed, **settings)


def hold_memory() -> None:
    """Tells glibc's malloc to keep what a step frees for the next; others are left as they are.

    By default what lies at the top of the heap goes back to the system in every step, which then
    clears it page by page when it is asked for again.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, size in ((MMAP_THRESHOLD, 32 << 20), (TRIM_THRESHOLD, 2**31 - 1)):
            libc.mallopt(parameter, size)


def find_device(name: str) -> Any:
    """PyTorch's device of that name, such as cpu, cuda or cuda:1.

    Raises:
        UserError: there is none here.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"device={name} is not to be had here ({reason}): use cpu.") from error
    return device
