"""Damaged files end in a sentence: no other exception leaves a reader."""

import gzip
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganmnist.data.idx import read_idx
from ganmnist.evaluate import read_images
from ganmnist.reporting import images, report
from ganmnist.reporting.loggers import read_rows
from ganmnist.runs.loading import load, read_checkpoint
from ganmnist.runs.sweep import read_job
from ganmnist.utils.errors import UserError

N = 2000  # damaged files of each kind
Read = Callable[[Path], object]


def npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, images=np.zeros((3, 28, 28), np.uint8), labels=np.arange(3))
    return file.getvalue()


def png() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "png")
    return file.getvalue()


IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(2 * 28 * 28)
CSV = b"step,epoch,train/d/loss\n1,1,0.5\n2,1,0.25\n"
JSON = b'{"status": "finished", "metrics": {"final": {"raw": {"fid": 1.0}, "epoch": 1}}}'
YAML = b"folder: a\noverrides: [a=1]\nerror: ''\nsettings: {trainer: {gpus: 0}, lr: 1.0e-3}\n"


def read_report(path: Path) -> object:
    return report.contents(path.parent)


READERS: dict[str, tuple[str, Callable[[], bytes], Read]] = {
    "npz": ("x.npz", npz, read_images),
    "idx": ("idx", lambda: IDX, lambda path: read_idx(path, (28, 28))),
    "gz": ("idx.gz", lambda: gzip.compress(IDX), lambda path: read_idx(path, (28, 28))),
    "csv": ("metrics.csv", lambda: CSV, read_rows),
    "curves": ("metrics.csv", lambda: CSV, report.read_curves),
    "png": ("x.png", png, images.read),
    "job": ("001.yaml", lambda: YAML, read_job),
    "summary": ("summary.json", lambda: JSON, read_report),
    "env": ("env.json", lambda: JSON, read_report),
    "config": ("config.yaml", lambda: YAML, read_report),
}


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Changes, removes, repeats or inserts some bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        i = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0 and i < len(data):
            data[i] = rng.randrange(256)
        elif kind == 1:
            del data[i : i + rng.choice((1, 4, len(data)))]
        elif kind == 2:
            data[i:i] = data[i : i + rng.choice((1, 16))] * rng.choice((1, 3))
        else:
            data[i:i] = rng.choice((b"\0", b"9" * 400, b"[" * 9, b"null", b"-", b'"', b"&a *a"))
    return bytes(data)


def message_of(read: Read, path: Path, allowed: type[Exception]) -> str:
    """The message of the error of a reader; empty without an error."""
    try:
        read(path)
    except allowed as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_damaged_file_gives_one_sentence(kind: str, tmp_path: Path) -> None:
    name, make, read = READERS[kind]
    path, good, rng = tmp_path / name, make(), random.Random(kind)
    allowed = OSError if kind == "png" else UserError
    path.write_bytes(good)
    read(path)
    for i in range(N):
        path.write_bytes(damaged(good, rng))
        assert "\n" not in message_of(read, path, allowed), f"file {i}"


@pytest.mark.slow
def test_damaged_checkpoint_gives_one_sentence(trained: Path, tmp_path: Path) -> None:
    path, rng = tmp_path / "last.ckpt", random.Random("checkpoint")
    good = read_checkpoint(trained / "checkpoints/last.ckpt")
    small = {**good, "state_dict": {}, "optimizer_states": []}
    file = io.BytesIO()
    torch.save(small, file)
    for i in range(N):
        path.write_bytes(damaged(file.getvalue(), rng))
        assert "\n" not in message_of(load, path, UserError), f"file {i}"
