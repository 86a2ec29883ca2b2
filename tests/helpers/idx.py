"""Small data sets in MNIST's format, on disk and as downloads."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import torch

from ganmnist.data import MNIST, Images

FILES = tuple(MNIST.md5)
TRAIN_X, TRAIN_Y, TEST_X, TEST_Y = FILES


def idx(array: np.ndarray) -> bytes:
    """The IDX file of an array of bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def tiny_files() -> dict[str, bytes]:
    """20 training and 10 test images. Image i has the gray value i and the label i % 10."""
    files = {}
    for split, n in (("train", 20), ("t10k", 10)):
        i = np.arange(n)
        files[f"{split}-images-idx3-ubyte"] = idx(np.broadcast_to(i[:, None, None], (n, 28, 28)))
        files[f"{split}-labels-idx1-ubyte"] = idx(i % 10)
    return files


def md5_of(files: dict[str, bytes]) -> dict[str, str]:
    return {
        name: hashlib.md5(content, usedforsecurity=False).hexdigest()
        for name, content in files.items()
    }


def truncated(content: bytes) -> bytes:
    return content[:-1]


def altered(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Content and modification time of every file under root, without locks."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def assert_same_images(a: tuple[Images, Images], b: tuple[Images, Images]) -> None:
    for x, y in zip((*a[0], *a[1]), (*b[0], *b[1]), strict=True):
        assert torch.equal(x, y)


class Mirror:
    """Replaces torchvision's class, and writes `files` where torchvision would."""

    def __init__(self, folder: str, files: dict[str, bytes]) -> None:
        self.mirrors = ["http://mirror.invalid/"]
        self.resources = [("train-images-idx3-ubyte.gz", "")]
        self.folder = folder
        self.files = files
        self.downloads = 0

    def __call__(self, root: Path, download: bool) -> None:
        assert download
        self.downloads += 1
        write_files(Path(root) / self.folder, self.files)
