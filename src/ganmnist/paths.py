"""Where things are: the shipped configuration, and a folder of its own for every run."""

from __future__ import annotations

import re
from functools import cache
from itertools import count
from pathlib import Path

from omegaconf import OmegaConf


def conf_dir() -> Path:
    """conf/: inside the package when installed from a wheel, beside src/ in a checkout."""
    package = Path(__file__).resolve().parent
    installed, checkout = package / "conf", package.parents[1] / "conf"
    return installed if installed.is_dir() else checkout


@cache
def claim(folder: str) -> str:
    """Creates `folder`, or `folder`_2, _3 ... if another run was there first; says which.

    Creating a folder is atomic, so runs started in the same second never share one. A process
    that asks again gets the same answer.
    """
    for i in count(1):
        candidate = folder if i == 1 else f"{folder}_{i}"
        try:
            Path(candidate).mkdir(parents=True)
        except FileExistsError:
            continue
        return candidate
    raise AssertionError


def slug(text: str) -> str:
    """A text as one folder name: no separators, at most 120 characters."""
    return re.sub(r"[^\w.,=+-]+", "-", text)[:120].strip("-")


def register_resolvers() -> None:
    """Makes ${claim:...} and ${slug:...} known to configuration files."""
    OmegaConf.register_new_resolver("claim", claim, replace=True)
    OmegaConf.register_new_resolver("slug", slug, replace=True)
