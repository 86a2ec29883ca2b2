"""`trainer.gpus` alone decides the device; this maps it to what Lightning wants to hear."""

from __future__ import annotations

from typing import Any

from ganmnist.errors import UserError

# Each player's update leaves the other's parameters without a gradient, which plain DDP, with
# one reducer around both networks, takes for an error.
DDP = "ddp_find_unused_parameters_true"


def parse_gpus(gpus: int | str) -> int | None:
    """A count of GPUs, or None for `auto`."""
    if gpus == "auto":
        return None
    if isinstance(gpus, bool) or not isinstance(gpus, int) or gpus < 0:
        raise UserError(
            f"trainer.gpus={gpus} is not a number of GPUs: choose auto, 0 (the CPU), 1, 2 ..."
        )
    return gpus


def place(gpus: int | str, accelerator: str, devices: int, strategy: str) -> dict[str, Any]:
    """Lightning's accelerator, devices and strategy for a number of GPUs.

    Args:
        gpus: "auto" is one GPU if there is one, else the CPU; 0 is the CPU.
        accelerator: what the choice of `trainer` insists on: "auto", "cpu" or "gpu".
        devices: processes on the CPU; GPUs have one each.
        strategy: "auto" is DDP for more than one process.
    """
    n = parse_gpus(gpus)
    if devices < 1:
        raise UserError(f"trainer.devices={devices} is out of range: choose at least 1.")
    if accelerator == "cpu" and n:
        raise UserError(f"trainer=cpu contradicts trainer.gpus={n}: leave one of them out.")
    if accelerator == "gpu" and n == 0:
        raise UserError("trainer=gpu contradicts trainer.gpus=0: leave one of them out.")

    kind, available = find_gpus()
    if n is None:
        n = min(available, 1)
    if n > available:
        raise UserError(
            f"trainer.gpus={n} is more than the {available} this machine has: choose "
            f"trainer.gpus={'auto' if available else 0} or a machine with more."
        )
    if n and devices > 1:
        raise UserError(
            f"trainer.devices={devices} counts processes on the CPU, but trainer.gpus={n} "
            f"trains on GPUs: leave one of them out."
        )
    processes = n or devices
    if strategy == "auto" and processes > 1:
        strategy = DDP
    return {"accelerator": kind if n else "cpu", "devices": processes, "strategy": strategy}


def find_gpus() -> tuple[str, int]:
    """Lightning's name for the kind of GPU in this machine, and how many there are."""
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.device_count()
    return "mps", int(torch.backends.mps.is_available())


def build_trainer(
    gpus: int | str, accelerator: str, devices: int, strategy: str, **settings: Any
) -> Any:
    """Lightning's Trainer on the devices asked for; other settings are handed to it."""
    import lightning as L

    return L.Trainer(**settings, **place(gpus, accelerator, devices, strategy))
