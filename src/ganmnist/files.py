"""Files are written whole or not at all, and a full disk does not end a training."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ganmnist.errors import UserError

log = logging.getLogger(__name__)

Missing = dict[Path, str]  # what could not be written, and why
_missing: Missing | None = None


@contextmanager
def spared() -> Iterator[Missing]:
    """Meanwhile a file that cannot be written is warned of and left out, instead of an OSError.

    Yields what is missing so far. A file that can be written after all is taken out of it.
    """
    global _missing
    before, _missing = _missing, {}
    try:
        yield _missing
    finally:
        _missing = before


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes `path`.

    Raises:
        OSError: it could not be written, and nobody is `spared`.
    """
    try:
        yield
    except OSError as error:
        if _missing is None:
            raise
        note_missing(path, error.strerror or str(error))
    else:
        if _missing is not None:
            _missing.pop(path, None)


def note_missing(path: Path, why: str) -> None:
    """Warns of the first of them; all are told at the end."""
    if _missing is not None:
        if not _missing:
            log.warning("%s could not be written (%s). Training goes on without.", path, why)
        _missing[path] = why


def is_missing(path: Path) -> bool:
    return path in (_missing or ())


@contextmanager
def replaced(path: Path, durable: bool = False) -> Iterator[Path]:
    """A file that is written under another name first: nobody ever reads half of it.

    durable: on the disk before it takes the place of the old one, which a crash of the machine
        leaves whole then.

    Raises:
        OSError: it could not be written; an older file is as it was.
    """
    with suppress(OSError):  # who writes there says why it cannot be
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        if durable:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def whole(path: Path, durable: bool = False) -> Iterator[Path]:
    """The same, which a run that is `spared` does without where it cannot be had."""
    with writing(path), replaced(path, durable) as part:
        yield part


def writable(path: Path) -> Path:
    """The path, if a file can be written there.

    Raises:
        UserError: it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        with whole(path.with_name(f"{path.name}.try")) as part:
            part.touch()
        path.with_name(f"{path.name}.try").unlink()
    except OSError as error:
        raise UserError(f"out={path} cannot be written ({error}): choose another.") from error
    return path


def write_json(path: Path, content: dict[str, Any]) -> None:
    with whole(path) as part:
        part.write_text(json.dumps(finite(content), indent=2) + "\n")


def finite(content: Any) -> Any:
    """The same with null for NaN and infinities, which JSON has no words for."""
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, list):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
