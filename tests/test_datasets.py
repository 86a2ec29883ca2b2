"""Data sets: what they hold, what they refuse, and what they leave on disk."""

import gzip
import hashlib
import inspect
import json
import logging
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from conftest import configuration
from torch import Tensor

from ganmnist.data import DataModule, datasets, digits, fetch
from ganmnist.data.datamodule import Loader
from ganmnist.data.datasets import (
    MNIST,
    Auto,
    Digits,
    FashionMNIST,
    Images,
    StackedMNIST,
    UnavailableError,
    digest,
)
from ganmnist.data.fetch import unreachable
from ganmnist.data.idx import read_idx
from ganmnist.errors import UserError
from ganmnist.train import train

FILES = tuple(MNIST.md5)
TRAIN_X, TRAIN_Y, TEST_X, TEST_Y = FILES


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def tiny_files() -> dict[str, bytes]:
    """MNIST in small: 20 images to train, 10 to test, label i % 10, image i all grey value i."""
    files = {}
    for part, n in (("train", 20), ("t10k", 10)):
        i = np.arange(n)
        files[f"{part}-images-idx3-ubyte"] = idx(np.broadcast_to(i[:, None, None], (n, 28, 28)))
        files[f"{part}-labels-idx1-ubyte"] = idx(i % 10)
    return files


def put(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file under root but the locks, with its content and its time of change."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The tiny files, whose checksums are the ones MNIST asks for during the test."""
    files = tiny_files()
    hashes = {
        name: hashlib.md5(content, usedforsecurity=False).hexdigest()
        for name, content in files.items()
    }
    monkeypatch.setattr(MNIST, "md5", hashes)
    return files


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request is refused at once; the URLs asked for."""
    asked: list[str] = []

    def refuse(url: str, timeout: float) -> None:
        asked.append(url)
        raise URLError("refused")

    monkeypatch.setattr(fetch, "urlopen", refuse)
    return asked


class Mirror:
    """Stands in for torchvision's class: writes files where torchvision would."""

    def __init__(self, folder: str, files: dict[str, bytes]) -> None:
        self.mirrors = ["http://mirror.invalid/"]
        self.resources = [("train-images-idx3-ubyte.gz", "")]
        self.folder = folder
        self.files = files
        self.downloads = 0

    def __call__(self, root: Path, download: bool) -> None:
        assert download
        self.downloads += 1
        put(Path(root) / self.folder, self.files)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tiny: dict[str, bytes]) -> Mirror:
    """A reachable mirror with the tiny files."""
    mirror = Mirror("MNIST/raw", tiny)
    monkeypatch.setattr(torchvision.datasets, "MNIST", mirror)
    monkeypatch.setattr(datasets, "unreachable", lambda urls: None)
    return mirror


@pytest.fixture(scope="module")
def drawn() -> tuple[Images, Images]:
    """The digits with two copies of each original."""
    train, test = digits.build(2)
    return Images(*train), Images(*test)


@pytest.fixture
def draws(drawn: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Drawing takes no time and yields `drawn`; the numbers of copies asked for."""
    calls: list[int] = []

    def build(copies: int) -> tuple[Images, Images]:
        calls.append(copies)
        return drawn

    monkeypatch.setattr(digits, "build", build)
    return calls


def assert_same(a: tuple[Images, Images], b: tuple[Images, Images]) -> None:
    for ours, theirs in zip((*a[0], *a[1]), (*b[0], *b[1]), strict=True):
        assert torch.equal(ours, theirs)


# The real MNIST


@pytest.mark.mnist
def test_real_mnist_is_what_the_literature_says(mnist_root: Path) -> None:
    mnist = MNIST(mnist_root)
    mnist.prepare()
    train, test = mnist.load()
    assert (train.x.shape, train.x.dtype) == ((60000, 1, 28, 28), torch.uint8)
    assert (test.x.shape, test.x.dtype) == ((10000, 1, 28, 28), torch.uint8)
    assert (train.y.shape, train.y.dtype) == ((60000,), torch.int64)
    assert train.y[0] == 5
    assert test.y[0] == 7
    assert train.y.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert test.y.bincount().tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    # The mean and deviation that every MNIST tutorial normalises by.
    grey = train.x.double() / 255
    torch.testing.assert_close(grey.mean().item(), 0.1307, atol=5e-5, rtol=0)
    torch.testing.assert_close(grey.std().item(), 0.3081, atol=5e-5, rtol=0)
    assert mnist.checksum == "35914650c8beaeed4429263376775b71ac05b224ab7d958a603bb5feac95afaf"


# Reading


@pytest.mark.parametrize("folder", ["MNIST/raw", "."])
@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_is_found_in_either_folder_plain_or_gzipped(
    tmp_path: Path, tiny: dict[str, bytes], offline: list[str], folder: str, zipped: bool
) -> None:
    files = {f"{k}.gz": gzip.compress(v) for k, v in tiny.items()} if zipped else tiny
    put(tmp_path / folder, files)
    before = tree(tmp_path)
    mnist = MNIST(str(tmp_path))
    mnist.prepare()
    train, test = mnist.load()
    assert train.x.shape == (20, 1, 28, 28)
    assert train.x[:, 0, 27, 27].tolist() == list(range(20))
    assert train.y.tolist() == [*range(10), *range(10)]
    assert test.x.shape == (10, 1, 28, 28)
    assert test.y.tolist() == list(range(10))
    assert mnist.checksum == digest(train, test)
    assert tree(tmp_path) == before
    assert not offline
    assert not list(tmp_path.rglob("*.lock"))  # root may be read-only: nothing at all is written


def test_files_may_be_spread_and_torchvisions_folder_comes_first(
    tmp_path: Path, tiny: dict[str, bytes]
) -> None:
    put(tmp_path, {TRAIN_X: tiny[TRAIN_X], TRAIN_Y: tiny[TRAIN_Y], TEST_X: b"never opened"})
    put(tmp_path / "MNIST/raw", {TEST_X: tiny[TEST_X], f"{TEST_Y}.gz": gzip.compress(tiny[TEST_Y])})
    train, test = MNIST(tmp_path).load()
    assert (len(train.x), len(test.x)) == (20, 10)


def test_channels_repeat_the_grey_image(tmp_path: Path, tiny: dict[str, bytes]) -> None:
    put(tmp_path, tiny)
    grey, colour = MNIST(tmp_path), MNIST(tmp_path, channels=3)
    train, (test, _) = grey.load()[0], colour.load()[1]
    assert test.shape == (10, 3, 28, 28)
    assert torch.equal(test[:, 0], test[:, 2])
    assert torch.equal(test[:, :1], train.x[:10])
    assert colour.checksum == grey.checksum  # it names the data, not the view of them
    with pytest.raises(UserError, match="channels=0"):
        MNIST(tmp_path, channels=0)


def test_checksum_depends_on_every_pixel_and_label(drawn: tuple[Images, Images]) -> None:
    train, test = drawn
    x, y = test.x.clone(), test.y.clone()
    x[-1, 0, 27, 27] ^= 1
    y[0] ^= 1
    digests = {digest(train, part) for part in (test, Images(x, test.y), Images(test.x, y))}
    assert len(digests) == 3


# Wrong files


def truncated(content: bytes) -> bytes:
    return content[:-1]


def altered(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("damage", "complaint"), [(truncated, "bytes where"), (altered, "its MD5 is")]
)
def test_a_wrong_file_is_named_and_left_alone(
    tmp_path: Path,
    tiny: dict[str, bytes],
    mirror: Mirror,
    file: str,
    damage: Callable[[bytes], bytes],
    complaint: str,
) -> None:
    put(tmp_path / "MNIST/raw", tiny | {file: damage(tiny[file])})
    before = tree(tmp_path)
    for attempt in (MNIST(tmp_path).prepare, MNIST(tmp_path).load):
        with pytest.raises(UserError, match=complaint) as error:
            attempt()
        assert str(tmp_path / "MNIST/raw" / file) in str(error.value)
        assert not isinstance(error.value, UnavailableError)
    assert tree(tmp_path) == before
    assert mirror.downloads == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda zipped: zipped[:-9],  # cut short
        lambda zipped: b"<html>" + zipped,  # an error page saved as an archive
        lambda zipped: zipped[:30] + bytes(8) + zipped[38:],  # overwritten inside
    ],
)
def test_a_damaged_archive_is_named_and_left_alone(
    tmp_path: Path, tiny: dict[str, bytes], damage: Callable[[bytes], bytes]
) -> None:
    archive = {f"{TEST_Y}.gz": damage(gzip.compress(tiny.pop(TEST_Y)))}
    put(tmp_path, tiny | archive)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz cannot be read"):
        MNIST(tmp_path).load()
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "does not begin like an IDX file"),
        (b"\0\0\x08\x01\0\0", "does not begin like an IDX file"),  # the sizes are cut off
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "'00 00 0d 01'"),  # floats, not bytes
        (idx(np.zeros((2, 2))), "'00 00 08 02'"),  # two dimensions for one
        (idx(np.zeros(3)) + b"\0", "has 12 bytes where its header promises 11"),
        (idx(np.zeros(0)), r"holds an array \(0,\)"),
    ],
)
def test_structural_errors_are_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as error:
        read_idx(path, ())
    assert str(path) in str(error.value)


def test_images_have_28_by_28_pixels(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx(np.zeros((2, 28, 27))))
    with pytest.raises(UserError, match=r"images holds an array \(2, 28, 27\)"):
        read_idx(path, (28, 28))
    assert read_idx(path, (28, 27)).shape == (2, 28, 27)


def test_fashion_mnist_trains(tmp_path: Path) -> None:
    put(tmp_path / "FashionMNIST/raw", tiny_files())
    data = ("data=fashion_mnist", f"data.root={tmp_path}", "batch_size=8", "model=mlp")
    few = ("trainer=cpu", "epochs=1", "callbacks=none", "logger=none")
    train(configuration(f"folder={tmp_path / 'run'}", *data, *few))
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["data"], summary["images_seen"]) == ("FashionMNIST", 16)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [(np.arange(9), "9 labels for the 10 images"), (np.arange(1, 11), "has a label 10, over 9")],
)
def test_labels_fit_the_images(tmp_path: Path, labels: np.ndarray, complaint: str) -> None:
    put(tmp_path / "FashionMNIST/raw", tiny_files() | {TEST_Y: idx(labels)})
    with pytest.raises(UserError, match=complaint) as error:
        FashionMNIST(tmp_path).load()
    assert str(tmp_path / "FashionMNIST/raw" / TEST_Y) in str(error.value)


# Missing files


def test_without_network_a_missing_file_is_named_with_the_ways_out(
    tmp_path: Path, tiny: dict[str, bytes], offline: list[str]
) -> None:
    del tiny[TRAIN_Y]
    put(tmp_path, tiny)
    before = tree(tmp_path)
    for attempt, cause in ((MNIST(tmp_path).prepare, "refused"), (MNIST(tmp_path).load, "was not")):
        with pytest.raises(UnavailableError, match=cause) as error:
            attempt()
        message = str(error.value)
        assert f"MNIST is not in {tmp_path} (missing: {TRAIN_Y})" in message
        for way_out in (str(tmp_path / "MNIST/raw"), "data.root", "GANMNIST_DATA", "data=digits"):
            assert way_out in message
    assert sorted(offline) == sorted(
        f"{mirror}{TRAIN_X}.gz" for mirror in torchvision.datasets.MNIST.mirrors
    )
    assert tree(tmp_path) == before


def test_a_root_that_does_not_exist_is_not_created_without_network(
    tmp_path: Path, offline: list[str]
) -> None:
    with pytest.raises(UnavailableError):
        MNIST(tmp_path / "new").prepare()
    assert offline
    assert not (tmp_path / "new").exists()


def test_a_wrong_file_counts_more_than_a_missing_one(
    tmp_path: Path, tiny: dict[str, bytes], mirror: Mirror
) -> None:
    put(tmp_path, {TEST_X: truncated(tiny[TEST_X])})
    with pytest.raises(UserError, match="bytes where"):
        MNIST(tmp_path).prepare()
    assert mirror.downloads == 0


def test_an_unwritable_root_is_named(tmp_path: Path, mirror: Mirror) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot be downloaded") as error:
        MNIST(tmp_path / "file" / "data").prepare()
    assert str(tmp_path / "file" / "data") in str(error.value)
    assert mirror.downloads == 0


# Downloading


def test_only_what_is_missing_is_moved_in(
    tmp_path: Path, tiny: dict[str, bytes], mirror: Mirror
) -> None:
    put(tmp_path, {TRAIN_X: tiny[TRAIN_X]})
    MNIST(tmp_path).prepare()
    names = {TRAIN_X, *(f"MNIST/raw/{file}" for file in (TRAIN_Y, TEST_X, TEST_Y))}
    assert set(tree(tmp_path)) == names
    assert {path.name for path in tmp_path.iterdir()} == {TRAIN_X, "MNIST", ".MNIST.lock"}
    assert MNIST(tmp_path).load()[0].y.tolist() == [*range(10), *range(10)]
    MNIST(tmp_path).prepare()
    assert mirror.downloads == 1


@pytest.mark.parametrize("failure", ["raises", "corrupt", "incomplete"])
def test_a_failed_download_leaves_nothing_behind(
    tmp_path: Path, tiny: dict[str, bytes], mirror: Mirror, failure: str
) -> None:
    if failure == "raises":
        mirror.files = {TRAIN_X: tiny[TRAIN_X], "no-such-folder/file": b""}  # fails half-way
    elif failure == "corrupt":
        mirror.files = tiny | {TEST_X: altered(tiny[TEST_X])}
    else:
        mirror.files = {TRAIN_X: tiny[TRAIN_X]}
    with pytest.raises(UnavailableError, match="cannot be downloaded"):
        MNIST(tmp_path).prepare()
    assert mirror.downloads == 1
    assert [path.name for path in tmp_path.iterdir()] == [".MNIST.lock"]


def test_eight_cold_starts_download_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: Mirror
) -> None:
    together = Barrier(8)  # all have found the files missing before one takes the lock
    monkeypatch.setattr(datasets, "unreachable", lambda urls: together.wait(60) and None)

    def start(_: int) -> str:
        mnist = MNIST(tmp_path)
        mnist.prepare()
        mnist.load()
        return mnist.checksum

    with ThreadPoolExecutor(8) as pool:
        checksums = list(pool.map(start, range(8)))
    assert mirror.downloads == 1
    assert len(checksums) == 8
    assert len(set(checksums)) == 1
    assert set(tree(tmp_path)) == {f"MNIST/raw/{file}" for file in FILES}


def test_fashion_mnist_looks_in_its_own_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: dict[str, bytes], offline: list[str]
) -> None:
    put(tmp_path, tiny)
    put(tmp_path / "MNIST/raw", tiny)
    with pytest.raises(UnavailableError, match=r"FashionMNIST is not in .* refused") as error:
        FashionMNIST(tmp_path).prepare()
    assert str(tmp_path / "FashionMNIST/raw") in str(error.value)

    mirror = Mirror("FashionMNIST/raw", tiny)
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", mirror)
    monkeypatch.setattr(datasets, "unreachable", lambda urls: None)
    fashion = FashionMNIST(tmp_path)
    fashion.prepare()
    assert mirror.downloads == 1
    assert fashion.name == "FashionMNIST"
    assert len(fashion.load()[0].x) == 20


# Knowing that there is no network


def test_refusal_tells_why(offline: list[str]) -> None:
    reason = unreachable(["http://a.invalid/", "http://b.invalid/"])
    assert reason is not None
    assert "refused" in reason
    assert set(offline) == {"http://a.invalid/", "http://b.invalid/"}


def test_a_hanging_look_up_is_abandoned_and_outvoted(monkeypatch: pytest.MonkeyPatch) -> None:
    released = Event()

    class Answer:
        def close(self) -> None: ...

    def answer(url: str, timeout: float) -> Answer:
        if "hangs" in url:
            released.wait()
        return Answer()

    monkeypatch.setattr(fetch, "urlopen", answer)
    try:
        reason = unreachable(["http://hangs.invalid/"], timeout=0.01)
        assert reason == "no answer from http://hangs.invalid/ within 0.01 s"
        assert unreachable(["http://hangs.invalid/", "http://a.invalid/"]) is None
    finally:
        released.set()
    assert inspect.signature(unreachable).parameters["timeout"].default == 15


# Digits


def test_digits_counts_and_types(drawn: tuple[Images, Images]) -> None:
    train, test = drawn
    assert (train.x.shape, train.x.dtype) == ((3000, 1, 28, 28), torch.uint8)
    assert (train.y.shape, train.y.dtype) == ((3000,), torch.int64)
    assert (test.x.shape, test.y.shape) == ((297, 1, 28, 28), (297,))
    assert sorted(test.y.bincount().tolist()) == [29] * 3 + [30] * 7
    assert len(train.y.unique()) == 10


def test_undistorted_digits_fill_the_box_and_nothing_outside(drawn: tuple[Images, Images]) -> None:
    train, test = drawn
    for x in (test.x, train.x[:1500]):
        frame = x.clone()
        frame[..., 4:24, 4:24] = 0
        assert not frame.any()
        box = x[:, 0, 4:24, 4:24] > 0
        longer = torch.maximum(box.any(1).sum(1), box.any(2).sum(1))
        assert longer.max() == 20
        assert longer.float().mean() > 19.5
    assert train.x[1500:, 0, :4].any()  # while copies may lean out


def test_digits_carry_the_ink_of_mnist(drawn: tuple[Images, Images]) -> None:
    for part in drawn:
        x = part.x.double() / 255
        assert (x.amin().item(), x.amax().item()) == (0, 1)  # white on black
        torch.testing.assert_close(x.mean().item(), 0.1307, atol=0.01, rtol=0)
        torch.testing.assert_close(x.std().item(), 0.3081, atol=0.015, rtol=0)


def nearest_label(x: Tensor, reference: Images) -> Tensor:
    distances = torch.cdist(x.flatten(1).float(), reference.x.flatten(1).float())
    return reference.y[distances.argmin(1)]


def test_digits_are_recognisable_and_copies_keep_their_label(drawn: tuple[Images, Images]) -> None:
    train, test = drawn
    originals = Images(train.x[:1500], train.y[:1500])
    accuracy = (nearest_label(test.x, originals) == test.y).float().mean()
    assert accuracy > 0.95
    copies, labels = train.x[1500:], train.y[1500:]
    assert torch.equal(labels, originals.y)
    assert (nearest_label(copies, originals) == labels).float().mean() > 0.9
    assert (copies != originals.x).flatten(1).any(1).all()  # and none is a mere repetition


def test_no_original_is_both_trained_on_and_tested(drawn: tuple[Images, Images]) -> None:
    labels = digits._originals()[1]
    train, test = digits._split(labels, torch.Generator().manual_seed(digits.VERSION))
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(1797))
    assert torch.equal(labels[train], drawn[0].y[:1500])
    assert torch.equal(labels[test], drawn[1].y)
    pictures = {image.numpy().tobytes() for image in drawn[1].x}
    assert not pictures & {image.numpy().tobytes() for image in drawn[0].x}


def test_drawing_is_a_function_of_the_version_alone(
    drawn: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.get_rng_state()
    train, test = digits.build(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(train[0][:3000], drawn[0].x)  # fewer copies are a prefix of more
    assert_same((drawn[0], Images(*test)), drawn)
    assert not torch.equal(train[0][3000:], drawn[0].x[1500:])
    monkeypatch.setattr(digits, "VERSION", digits.VERSION + 1)
    assert not torch.equal(digits.build(1)[1][0], drawn[1].x)


def test_the_cache_is_drawn_once(
    tmp_path: Path, drawn: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Digits(tmp_path, copies=2), Digits(tmp_path, copies=2, channels=3)
    first.prepare()
    assert list(tree(tmp_path)) == [f"digits/v{digits.VERSION}_2copies.npz"]
    assert {path.name for path in tmp_path.iterdir()} == {"digits", ".digits.lock"}
    monkeypatch.delattr(digits, "build")
    before = tree(tmp_path)
    second.prepare()
    assert_same(first.load(), drawn)
    assert second.load()[0].x.shape == (3000, 3, 28, 28)
    assert first.checksum == second.checksum == digest(*drawn)
    assert tree(tmp_path) == before
    assert Digits(tmp_path).cache.name == f"v{digits.VERSION}_40copies.npz"


def test_eight_cold_starts_draw_once(tmp_path: Path, draws: list[int]) -> None:
    together = Barrier(8)

    def start(_: int) -> None:
        together.wait(60)
        Digits(tmp_path, copies=2).prepare()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(8)))
    assert draws == [2]


def repaint(path: Path) -> None:
    """Another picture under the old digest."""
    with np.load(path) as file:
        arrays = dict(file)
    arrays["test_x"][0, 0, 14, 14] ^= 1
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "damage",
    [
        repaint,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an archive"),
        lambda path: np.savez(path, train_x=np.zeros(1)),
    ],
)
def test_a_damaged_cache_is_not_trusted(
    tmp_path: Path,
    drawn: tuple[Images, Images],
    draws: list[int],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    data = Digits(tmp_path, copies=2)
    data.prepare()
    damage(data.cache)
    before = tree(tmp_path)
    data.prepare()
    assert draws == [2]
    assert_same(data.load(), drawn)
    assert draws == [2, 2]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(data.cache) in record.getMessage()
    assert tree(tmp_path) == before


def test_without_a_cache_digits_are_drawn_in_memory(
    tmp_path: Path,
    drawn: tuple[Images, Images],
    draws: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "file").touch()
    unprepared, unwritable = Digits(tmp_path, copies=2), Digits(tmp_path / "file" / "x", copies=2)
    assert_same(unprepared.load(), drawn)
    assert not caplog.records
    unwritable.prepare()
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert str(unwritable.cache) in record.getMessage()
    assert draws == [2]
    assert_same(unwritable.load(), drawn)
    assert draws == [2, 2]


def test_no_copies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="copies=0"):
        Digits(tmp_path, copies=0)


# Auto


def test_auto_takes_mnist_where_it_is(
    tmp_path: Path, tiny: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, tiny)
    auto = Auto(tmp_path, channels=3)
    assert isinstance(auto.resolve(), MNIST)
    assert os.environ[Auto.decision] == f"mnist:{tmp_path}"
    assert auto.name == "MNIST"
    auto.prepare()
    assert auto.load()[0].x.shape == (20, 3, 28, 28)
    mnist = MNIST(tmp_path)
    mnist.load()
    assert auto.checksum == mnist.checksum
    assert not caplog.records


def test_auto_fetches_mnist_where_it_can(tmp_path: Path, mirror: Mirror) -> None:
    assert Auto(tmp_path).name == "MNIST"
    assert mirror.downloads == 1


def test_auto_falls_back_to_digits_and_says_so_once(
    tmp_path: Path, offline: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    auto = Auto(tmp_path)
    assert isinstance(auto.resolve(), Digits)
    assert os.environ[Auto.decision] == f"digits:{tmp_path}"
    asked = len(offline)
    assert asked == len(torchvision.datasets.MNIST.mirrors)
    for later in (auto, Auto(tmp_path)):
        assert later.resolve().name == later.name == "digits"
    assert len(offline) == asked
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert len(message.splitlines()) > 4
    for part in ("NOT MNIST", "refused", str(tmp_path), "GANMNIST_DATA", "data=digits"):
        assert part in message


def test_auto_loads_what_it_decided(
    tmp_path: Path,
    drawn: tuple[Images, Images],
    draws: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(Auto.decision, f"digits:{tmp_path}")
    auto = Auto(tmp_path)
    auto.prepare()
    assert_same(auto.load(), drawn)
    assert draws == [40]
    assert auto.checksum == digest(*drawn)
    assert list(tree(tmp_path)) == [f"digits/v{digits.VERSION}_40copies.npz"]


def test_auto_never_hides_a_wrong_file(
    tmp_path: Path, tiny: dict[str, bytes], offline: list[str]
) -> None:
    put(tmp_path, {TEST_Y: altered(tiny[TEST_Y])})
    with pytest.raises(UserError, match="its MD5 is") as error:
        Auto(tmp_path).resolve()
    assert str(tmp_path / TEST_Y) in str(error.value)
    assert Auto.decision not in os.environ
    assert not offline


def test_auto_decides_for_each_folder(
    tmp_path: Path, tiny: dict[str, bytes], offline: list[str]
) -> None:
    put(tmp_path / "full", tiny)
    assert Auto(tmp_path / "empty").name == "digits"
    assert Auto(tmp_path / "full").name == "MNIST"


# Stacked MNIST


def test_stacked_images_are_three_digits(tmp_path: Path) -> None:
    put(tmp_path, tiny_files())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StackedMNIST, "md5", dict.fromkeys(MNIST.md5))
        data = DataModule(StackedMNIST(tmp_path), batch_size=4, seed=3)
        data.prepare_data()
        data.setup()
    assert data.shape == (3, 28, 28)
    loader = Loader(data.train, 4, seed=3, clock=lambda: (0, 0, 0), stack=3)
    x, y = (torch.cat(parts) for parts in zip(*((s.x, s.y) for [s] in loader), strict=True))
    assert x.shape == (20, 3, 28, 28)
    # Image i is all grey value i, and shows the digit i % 10.
    grey = ((x[:, :, 0, 0] + 1) * 127.5).round().long()
    assert torch.equal(y, (grey % 10 * torch.tensor([1, 10, 100])).sum(1))
    for channel in range(3):
        assert sorted(grey[:, channel].tolist()) == [*range(20)]  # each once an epoch
    assert not torch.equal(grey[:, 0], grey[:, 1])
    again = Loader(data.train, 4, seed=3, clock=lambda: (0, 0, 0), stack=3)
    assert torch.equal(next(iter(again))[0].x, x[:4])


def test_stacked_stills_are_always_the_same(tmp_path: Path) -> None:
    part = Images(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).repeat(1, 1, 2, 2), None)
    stacked = StackedMNIST(tmp_path)
    one, other = (stacked.still(part, 26) for _ in range(2))
    assert torch.equal(one, other)
    assert one.shape == (26, 3, 2, 2)
    assert stacked.glyphs(one).shape == (26, 3, 2, 2)


def test_stacked_has_three_channels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.channels=1: a stacked image has 3"):
        StackedMNIST(tmp_path, channels=1)


def test_stills_are_samples_of_the_part(tmp_path: Path) -> None:
    part = Images(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), None)
    digits = Digits(tmp_path)
    few = digits.still(part, 5).flatten().tolist()
    assert len({*few}) == 5
    assert digits.still(part, 5).flatten().tolist() == few
    assert sorted(digits.still(part, 99).flatten().tolist()) == [*range(20)]
