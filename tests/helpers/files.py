"""Files that cannot be written."""

import os
from pathlib import Path


def temporary_name(path: Path) -> Path:
    """The temporary file of an atomic write."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def block_writes(path: Path) -> None:
    """Makes atomic writes of a file fail: a folder has the name of the temporary file."""
    temporary_name(path).mkdir(parents=True)


def unblock_writes(path: Path) -> None:
    temporary_name(path).rmdir()
