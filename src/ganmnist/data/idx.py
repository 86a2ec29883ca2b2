"""IDX, the format of MNIST's files: a magic number, the sizes, then the bytes of the array.

    00 00 08 n | size_1 ... size_n, big-endian 32 bits each | size_1 x ... x size_n bytes

08 means unsigned bytes, and n is the number of dimensions. Gzipped files, as published, are read
too.

Source: Y. LeCun, C. Cortes and C. Burges, The MNIST Database of Handwritten Digits (1998).
"""

import gzip
import hashlib
import struct
import zlib
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ganmnist.utils.errors import UserError

MAX_BYTES = 1 << 30  # a small gzipped file may expand to any size
FIX = "Put the original file there, or move this one away to have it downloaded."


def read_idx(path: Path, item: tuple[int, ...], md5: str | None = None) -> Tensor:
    """Reads and verifies one file, plain or (named .gz) gzipped. Never changes it.

    Args:
        path: the file.
        item: the shape of one entry: (28, 28) for images, () for labels.
        md5: checksum of the uncompressed bytes; None if unknown.

    Returns:
        (N, *item) uint8, N > 0.

    Raises:
        UserError: the file cannot be read, is damaged, or differs from the expected one.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}). {FIX}") from error
    if len(raw) > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES:,} bytes. {FIX}")

    dims = 1 + len(item)
    header = 4 + 4 * dims
    if raw[:4] != bytes([0, 0, 8, dims]) or len(raw) < header:
        raise UserError(
            f"{path} is not an IDX file of bytes in {dims} dimension(s): it starts with "
            f"'{raw[:4].hex(' ')}'. {FIX}"
        )
    shape = struct.unpack(f">{dims}I", raw[4:header])
    if len(raw) != header + prod(shape):
        raise UserError(
            f"{path} has {len(raw):,} bytes, and its header requires {header + prod(shape):,}. "
            f"{FIX}"
        )
    if shape[1:] != item or shape[0] == 0:
        raise UserError(f"{path} holds an array {shape} instead of {('N', *item)}. {FIX}")
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if md5 not in (None, found):
        raise UserError(f"{path} is not the original file: its MD5 is {found}, not {md5}. {FIX}")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=header).view(shape)
