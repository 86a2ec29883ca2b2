"""env.json: code, versions, machine and data of a run."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ganmnist.runs.cpu import available_cores, capability, cpu_model
from ganmnist.utils.files import read_json

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")


def git_revision() -> str | None:
    """The checkout's commit, with "+changes" where files differ from it; None in a wheel."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie inside another checkout.
        if not git("ls-files", __file__):
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def cpus_of_run(earlier: Path | None) -> list[str]:
    """The CPU models of a run in order of first use.

    earlier: env.json of the run that resumes; None for a new run.
    """
    try:
        known = read_json(earlier)["cpus"] if earlier else []
    except (OSError, ValueError, TypeError, KeyError):
        known = []
    names = known if isinstance(known, list) else []
    return list(dict.fromkeys([*map(str, names), cpu_model()]))


def describe(
    device: torch.device, precision: str, data: str, checksum: str, earlier: Path | None = None
) -> dict[str, Any]:
    """The content of env.json: command, code, versions, machine and data.

    Args:
        precision: of the training, as in Lightning's Trainer.
        data: the name of the data set, and its checksum.
        earlier: env.json of the run that resumes; None for a new run.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
    return {
        "command": [Path(sys.executable).name, *sys.orig_argv[1:]],
        "git": git_revision(),
        "ganmnist": version("ganmnist"),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "device": {"type": device.type, "name": name},
        "cpus": cpus_of_run(earlier),
        "capability": capability(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "data": {"name": data, "checksum": checksum},
    }
