"""Atomic writes, and write errors that are collected."""

from pathlib import Path

import pytest
from helpers.files import block_writes, temporary_name, unblock_writes

from ganmnist.utils.files import (
    atomic_replace,
    atomic_write,
    collect_write_errors,
    failed_to_write,
    tolerate_write_errors,
)


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    block_writes(path)
    with pytest.raises(IsADirectoryError), atomic_write(path) as part:
        part.write_text("new")
    with pytest.raises(ZeroDivisionError), atomic_replace(tmp_path / "b.txt") as part:
        part.write_text(str(1 / 0))
    assert path.read_text() == "old"
    assert not (tmp_path / "b.txt").exists()


def test_link_with_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "a.txt"
    victim.write_text("mine")
    temporary_name(path).symlink_to(victim)
    with atomic_write(path) as part:
        part.write_text("new")
    assert (path.read_text(), victim.read_text()) == ("new", "mine")
    assert not path.is_symlink()


def test_write_errors_are_collected_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, c = paths = [tmp_path / name for name in "abc"]
    with tolerate_write_errors() as errors:
        for path in (a, b):
            block_writes(path)
        for path in paths:
            with atomic_write(path) as part:
                part.write_text("new")
        assert errors == {a: "Is a directory", b: "Is a directory"}
        assert failed_to_write(a)
        assert not failed_to_write(c)
        [record] = caplog.records
        assert str(a) in record.getMessage()
        unblock_writes(a)
        with atomic_write(a) as part:
            part.write_text("new")
        assert {*errors} == {b}
        with pytest.raises(ZeroDivisionError), collect_write_errors(c):
            raise ZeroDivisionError
    with pytest.raises(OSError, match="Is a directory"), atomic_write(b) as part:
        part.write_text("new")
