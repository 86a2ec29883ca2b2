"""Atomic writes, and write errors that do not end a training."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import yaml

from ganmnist.utils.errors import UserError

log = logging.getLogger(__name__)

MAX_JSON, MAX_YAML = 1 << 24, 1 << 18  # bytes of a file; YAML takes a second for 25,000
WriteErrors = dict[Path, str]  # the reason by file
# Of the current run. Its threads share it, so it is no context variable.
_write_errors: WriteErrors | None = None


@contextmanager
def tolerate_write_errors() -> Iterator[WriteErrors]:
    """Logs and collects errors of `collect_write_errors` instead of raising them.

    Yields the errors until now. A later successful write of a file removes its error.
    """
    global _write_errors
    before, _write_errors = _write_errors, {}
    try:
        yield _write_errors
    finally:
        _write_errors = before


@contextmanager
def collect_write_errors(path: Path) -> Iterator[None]:
    """Collects an error of the body, which writes `path`.

    Raises:
        OSError: the file cannot be written, outside of `tolerate_write_errors`.
    """
    try:
        yield
    except OSError as error:
        if _write_errors is None:
            raise
        record_write_error(path, error.strerror or str(error))
    else:
        if _write_errors is not None:
            _write_errors.pop(path, None)


def record_write_error(path: Path, reason: str) -> None:
    """Records an error. Only the first one is logged; a run lists all of them at its end."""
    if _write_errors is not None:
        if not _write_errors:
            log.warning("%s cannot be written (%s). Training continues without it.", path, reason)
        _write_errors[path] = reason


def failed_to_write(path: Path) -> bool:
    return path in (_write_errors or ())


@contextmanager
def atomic_replace(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary path, whose file then replaces `path`.

    durable: the file is on the disk before it replaces the old one. After a crash of the machine
        one of the two is complete.

    Raises:
        OSError: the file cannot be written. An older file is unchanged.
    """
    with suppress(OSError):  # writing the file then raises the error
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    # A folder of somebody else may have a link of this name to another place.
    with suppress(OSError):
        part.unlink(missing_ok=True)
    if os.path.lexists(part) and not part.is_dir():
        part = part.with_name(f".{path.name}.{token_hex(8)}.part")
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
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """`atomic_replace` whose errors are collected (`tolerate_write_errors`)."""
    with collect_write_errors(path), atomic_replace(path, durable) as part:
        yield part


def check_writable(path: Path) -> Path:
    """Returns the path.

    Raises:
        UserError: no file can be written there.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        with atomic_write(path.with_name(f"{path.name}.try")) as part:
            part.touch()
        path.with_name(f"{path.name}.try").unlink()
    except OSError as error:
        raise UserError(f"out={path}: cannot write there ({error}). Use another path.") from error
    return path


def read_yaml(path: Path) -> Any:
    """The content of a YAML file of plain values.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, has references (`*name`), or more than `MAX_YAML` bytes.
    """
    try:
        return yaml.load(read_text(path, MAX_YAML), PlainLoader)
    except (
        *(yaml.YAMLError, RecursionError, LookupError, AttributeError, ArithmeticError, TypeError),
    ) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or has more than `MAX_JSON` bytes.
    """
    try:
        return json.loads(read_text(path, MAX_JSON))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_text(path: Path, most: int) -> str:
    """A text file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no UTF-8, or has more than `most` bytes.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content.decode()


class PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Without references, because a few of them to each other expand to any size."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has references")
        return super().compose_node(parent, index)

    def construct_number(self, node: Any) -> Any:
        """Without numbers to base 60, such as 1:30. Long ones take seconds."""
        if ":" in node.value:
            raise yaml.YAMLError("it has a number with colons")
        whole = node.tag.endswith("int")
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


for kind in ("int", "float"):
    PlainLoader.add_constructor(f"tag:yaml.org,2002:{kind}", PlainLoader.construct_number)


def write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as part:
        part.write_text(json.dumps(nan_to_null(content), indent=2) + "\n")


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as part:
        part.write_text(yaml.safe_dump(content, sort_keys=False))


def nan_to_null(content: Any) -> Any:
    """Replaces NaN and infinities, which JSON does not have, by null."""
    if isinstance(content, dict):
        return {name: nan_to_null(value) for name, value in content.items()}
    if isinstance(content, list):
        return [nan_to_null(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
