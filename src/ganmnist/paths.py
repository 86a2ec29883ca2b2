"""Where things are: the shipped configuration, and a folder of its own for every run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from operator import add, mul
from pathlib import Path

from omegaconf import OmegaConf

from ganmnist.errors import UserError


def conf_dir() -> Path:
    """conf/: inside the package when installed from a wheel, beside src/ in a checkout."""
    package = Path(__file__).resolve().parent
    installed, checkout = package / "conf", package.parents[1] / "conf"
    return installed if installed.is_dir() else checkout


def claim(folder: str) -> str:
    """Creates `folder`, or `folder`_2, _3 ... if another run was there first; says which.

    Creating a folder is atomic, so runs started in the same second never share one. A process
    that asks again gets the same answer, and so do those it starts: the ranks of a run, the jobs
    of a sweep.
    """
    answer = f"GANMNIST_CLAIM_{sha256(os.path.abspath(folder).encode()).hexdigest()[:16]}"
    if answer not in os.environ:
        os.environ[answer] = create(folder)
    return os.environ[answer]


def create(folder: str) -> str:
    for i in count(1):
        candidate = folder if i == 1 else f"{folder}_{i}"
        try:
            Path(candidate).mkdir(parents=True)
        except FileExistsError:
            continue
        return candidate
    raise AssertionError


def unused(folder: str | Path, *signs: str) -> None:
    """Raises UserError for a folder in which a file, of a name or pattern, tells of a run."""
    if any(any(Path(folder).glob(sign)) for sign in signs):
        raise UserError(
            f"{folder} holds an earlier run, and is left as it is: choose another, or go on with "
            f"resume={folder}."
        )


def check_free(folder: str | Path) -> None:
    """Raises UserError for a folder that another process holds."""
    with held(Path(folder)):
        pass


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A folder that no other process may hold meanwhile; a dead one holds nothing.

    Raises:
        UserError: another holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{folder} is in use: another process trains there.") from error
    else:
        yield
    finally:
        os.close(place)


def is_held(folder: Path) -> bool:
    try:
        check_free(folder)
    except UserError:
        return True
    return False


def slug(text: str) -> str:
    """A text as one folder name: no separators, at most 120 characters."""
    return re.sub(r"[^\w.,=+-]+", "-", text)[:120].strip("-")


def register_resolvers() -> None:
    """Makes ${claim:...}, ${slug:...}, ${plus:...}, ${times:...} known to configuration files."""
    OmegaConf.register_new_resolver("claim", claim, replace=True)
    OmegaConf.register_new_resolver("slug", slug, replace=True)
    OmegaConf.register_new_resolver("plus", add, replace=True)
    OmegaConf.register_new_resolver("times", mul, replace=True)
