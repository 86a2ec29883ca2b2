"""What a run ran on: enough to run it again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")


def git_revision() -> str | None:
    """The checkout's commit, with "+changes" where files differ from it; None in a wheel."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie inside somebody else's checkout.
        if not git("ls-files", __file__):
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def describe(device: torch.device, data: str, checksum: str) -> dict[str, Any]:
    """A JSON-ready account of command, code, versions, machine and data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "command": [Path(sys.executable).name, *sys.orig_argv[1:]],
        "git": git_revision(),
        "ganmnist": version("ganmnist"),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "device": {"type": device.type, "name": name or platform.machine()},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "data": {"name": data, "checksum": checksum},
    }
