"""The folder of the configuration files, and the folders of runs."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import NoReturn

from ganmnist.utils.errors import UserError

log = logging.getLogger(__name__)


JOBS = "jobs"  # in the folder of a sweep: the settings of all jobs


def is_sweep(folder: Path) -> bool:
    return (folder / JOBS).is_dir()


def conf_dir() -> Path:
    """conf/: inside the package when installed from a wheel, beside src/ in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed, checkout = package / "conf", package.parents[1] / "conf"
    return installed if installed.is_dir() else checkout


def unique_dir(folder: str) -> str:
    """Creates `folder`, or `folder`_2, _3 ... if it exists, and returns its name.

    A second call with the same argument returns the same name, also in child processes: the ranks
    of a run and the workers of a sweep compose the configuration again. They inherit the name in
    an environment variable.
    """
    variable = f"GANMNIST_DIR_{sha256(os.path.abspath(folder).encode()).hexdigest()[:16]}"
    if variable not in os.environ:
        os.environ[variable] = create_unique(folder)
    return os.environ[variable]


def create_unique(folder: str) -> str:
    """Creates a new folder. Creation is atomic, so two processes never get the same one."""
    for i in count(1):
        candidate = folder if i == 1 else f"{folder}_{i}"
        try:
            Path(candidate).mkdir(parents=True)
        except FileExistsError:
            continue
        return candidate
    raise AssertionError


def create_dir(folder: str | Path) -> None:
    """Creates a folder.

    Raises:
        UserError: it cannot be created.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: this folder cannot be created ({error}). Choose another one with "
            "hydra.run.dir=..."
        ) from error


def require_no_run(folder: str | Path, *patterns: str) -> None:
    """Raises UserError if a file in the folder matches a pattern, because it belongs to a run."""
    if any(any(Path(folder).glob(pattern)) for pattern in patterns):
        raise UserError(
            f"{folder} already contains a run. Choose another folder, or continue the run with "
            f"resume={folder}."
        )


def remove_refused(folder: Path, name: str) -> None:
    """Removes the folder of a run that was refused: what Hydra wrote, and nothing else.

    name: of the run, in logs/NAME/...
    """
    written = [".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "train.log"]
    with suppress(OSError):
        for file in written:
            (folder / file).unlink(missing_ok=True)
        (folder / ".hydra").rmdir()
    above = [parent for parent in folder.parents[:2] if parent.name in (name, "logs")]
    for empty in (folder, *above):
        with suppress(OSError):  # it has other files
            empty.rmdir()


def refuse_links(folder: Path) -> None:
    """Raises UserError if a folder has links to other places, or anything but files and folders.

    A run would read and write through them.
    """
    for above, folders, files in os.walk(folder, onerror=cannot_read):
        for name in (*folders, *files):
            path = os.path.join(above, name)
            status = os.lstat(path)
            is_file = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
            if not (is_file or stat.S_ISDIR(status.st_mode)):
                raise UserError(
                    f"{path} is a link or a special file. A run has plain files only. "
                    "Replace it by a copy of the file."
                )


def cannot_read(error: OSError) -> NoReturn:
    raise UserError(
        f"{error.filename}: this folder cannot be read ({error.strerror}). Change its permissions."
    ) from error


@contextmanager
def lock_dir(folder: Path) -> Iterator[None]:
    """Locks a folder. The end of the process releases the lock. Windows has no lock.

    Raises:
        UserError: another process has locked it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder} is in use by another training process. Choose another folder."
            ) from error
        except OSError as error:  # some network file systems have no locks
            warn_unlocked(folder, error.strerror)
        yield
    finally:
        os.close(descriptor)


@cache
def warn_unlocked(folder: Path, reason: str) -> None:
    """Warns once of a folder that cannot be locked."""
    log.warning("%s cannot be locked (%s). Start no second run in it.", folder, reason)


def check_unlocked(folder: str | Path) -> None:
    """Raises UserError if another process has locked the folder."""
    with lock_dir(Path(folder)):
        pass


def is_locked(folder: Path) -> bool:
    try:
        check_unlocked(folder)
    except UserError:
        return True
    return False


def quoted(text: str) -> str:
    """A text as a quoted value of an override of Hydra."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def slug(text: str) -> str:
    """A text as the name of one folder: no separators, at most 120 characters."""
    return re.sub(r"[^\w.,=+-]+", "-", text)[:120].strip("-")
