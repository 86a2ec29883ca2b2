"""IDX files: structure and checksum."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.idx import altered, idx

from ganmnist.data.idx import read_idx
from ganmnist.utils.errors import UserError

LABELS = idx(np.arange(5))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not an IDX file"),
        (b"\0\0\x08\x01\0\0", "is not an IDX file"),  # the sizes are cut off
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "00 00 0d 01"),  # floats, not bytes
        (idx(np.zeros((2, 2))), "00 00 08 02"),  # two dimensions for one
        (idx(np.zeros(3)) + b"\0", "12 bytes"),
        (idx(np.zeros(0)), r"\(0,\)"),
    ],
)
def test_structural_errors_name_the_file(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(UserError, match=problem) as error:
        read_idx(path, ())
    assert str(path) in str(error.value)


def test_the_shape_of_images_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx(np.zeros((2, 28, 27))))
    with pytest.raises(UserError, match=r"\(2, 28, 27\)"):
        read_idx(path, (28, 28))
    assert read_idx(path, (28, 27)).shape == (2, 28, 27)


def test_the_checksum_is_that_of_the_uncompressed_bytes(tmp_path: Path) -> None:
    import hashlib

    md5 = hashlib.md5(LABELS, usedforsecurity=False).hexdigest()
    for name, content in (("plain", LABELS), ("zipped.gz", gzip.compress(LABELS))):
        (tmp_path / name).write_bytes(content)
        assert torch.equal(read_idx(tmp_path / name, (), md5), torch.arange(5))
    (tmp_path / "plain").write_bytes(altered(LABELS))
    with pytest.raises(UserError, match=md5):
        read_idx(tmp_path / "plain", (), md5)


@pytest.mark.parametrize(
    "damage",
    [
        lambda zipped: zipped[:-9],  # cut short
        lambda zipped: b"<html>" + zipped,  # an error page saved as an archive
        lambda zipped: zipped[:30] + bytes(8) + zipped[38:],  # overwritten inside
    ],
)
def test_a_damaged_archive_is_named_and_not_changed(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "labels.gz"
    content = damage(gzip.compress(idx(np.arange(60) % 10)))
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read") as error:
        read_idx(path, ())
    assert str(path) in str(error.value)
    assert path.read_bytes() == content
