"""Data sets: their content, errors, downloads and caches."""

import gzip
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
import torchvision
from helpers.config import settings_of
from helpers.idx import (
    FILES,
    TEST_X,
    TEST_Y,
    TRAIN_X,
    TRAIN_Y,
    Mirror,
    altered,
    assert_same_images,
    contents,
    idx,
    tiny_files,
    truncated,
    write_files,
)

from ganmnist.data import DataModule, datasets, digits
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
from ganmnist.train import train
from ganmnist.utils.batch import concat_columns
from ganmnist.utils.errors import UserError

# The real MNIST


@pytest.mark.mnist
def test_real_mnist_has_the_published_counts_and_moments(mnist_root: Path) -> None:
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
    gray = train.x.double() / 255
    torch.testing.assert_close(gray.mean().item(), 0.1307, atol=5e-5, rtol=0)
    torch.testing.assert_close(gray.std().item(), 0.3081, atol=5e-5, rtol=0)
    assert mnist.checksum == "35914650c8beaeed4429263376775b71ac05b224ab7d958a603bb5feac95afaf"


# Reading


@pytest.mark.parametrize("folder", ["MNIST/raw", "."])
@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_is_found_in_both_folders_plain_and_gzipped(
    tmp_path: Path, tiny: dict[str, bytes], offline: list[str], folder: str, zipped: bool
) -> None:
    files = {f"{k}.gz": gzip.compress(v) for k, v in tiny.items()} if zipped else tiny
    write_files(tmp_path / folder, files)
    before = contents(tmp_path)
    mnist = MNIST(str(tmp_path))
    mnist.prepare()
    train, test = mnist.load()
    assert train.x.shape == (20, 1, 28, 28)
    assert train.x[:, 0, 27, 27].tolist() == list(range(20))
    assert train.y.tolist() == [*range(10), *range(10)]
    assert test.x.shape == (10, 1, 28, 28)
    assert test.y.tolist() == list(range(10))
    assert mnist.checksum == digest(train, test)
    assert contents(tmp_path) == before
    assert not offline
    assert not list(tmp_path.rglob("*.lock"))  # root may be read-only


def test_files_may_be_in_both_folders_and_torchvisions_comes_first(
    tmp_path: Path, tiny: dict[str, bytes]
) -> None:
    in_root = {TRAIN_X: tiny[TRAIN_X], TRAIN_Y: tiny[TRAIN_Y], TEST_X: b"never read"}
    in_raw = {TEST_X: tiny[TEST_X], f"{TEST_Y}.gz": gzip.compress(tiny[TEST_Y])}
    write_files(tmp_path, in_root)
    write_files(tmp_path / "MNIST/raw", in_raw)
    train, test = MNIST(tmp_path).load()
    assert (len(train.x), len(test.x)) == (20, 10)


def test_channels_repeat_the_gray_image(tmp_path: Path, tiny: dict[str, bytes]) -> None:
    write_files(tmp_path, tiny)
    gray, color = MNIST(tmp_path), MNIST(tmp_path, channels=3)
    train, (test, _) = gray.load()[0], color.load()[1]
    assert test.shape == (10, 3, 28, 28)
    assert torch.equal(test[:, 0], test[:, 2])
    assert torch.equal(test[:, :1], train.x[:10])
    assert color.checksum == gray.checksum


@pytest.mark.parametrize(
    ("dataset", "settings", "name"),
    [
        (MNIST, {"channels": 0}, "data.channels"),
        (MNIST, {"image_size": 0}, "data.image_size"),
        (StackedMNIST, {"channels": 1}, "data.channels"),
        (Digits, {"copies": 0}, "data.copies"),
    ],
)
def test_settings_out_of_range_are_refused(
    tmp_path: Path, dataset: Callable[..., datasets.DataSet], settings: dict[str, int], name: str
) -> None:
    with pytest.raises(UserError, match=name):
        dataset(tmp_path, **settings)


def test_checksum_depends_on_every_pixel_and_label(built: tuple[Images, Images]) -> None:
    train, test = built
    x, y = test.x.clone(), test.y.clone()
    x[-1, 0, 27, 27] ^= 1
    y[0] ^= 1
    digests = {digest(train, images) for images in (test, Images(x, test.y), Images(test.x, y))}
    assert len(digests) == 3


def test_a_fixed_subset_has_distinct_images_of_the_split(tmp_path: Path) -> None:
    images = Images(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), torch.arange(20))
    digits = Digits(tmp_path)
    subset = digits.fixed_subset(images, 5).flatten().tolist()
    assert len({*subset}) == 5
    assert digits.fixed_subset(images, 5).flatten().tolist() == subset
    assert sorted(digits.fixed_subset(images, 99).flatten().tolist()) == [*range(20)]


# Wrong files


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [truncated, altered])
def test_a_wrong_file_is_named_and_neither_changed_nor_replaced(
    tmp_path: Path,
    tiny: dict[str, bytes],
    mirror: Mirror,
    file: str,
    damage: Callable[[bytes], bytes],
) -> None:
    write_files(tmp_path / "MNIST/raw", tiny | {file: damage(tiny[file])})
    before = contents(tmp_path)
    for attempt in (MNIST(tmp_path).prepare, MNIST(tmp_path).load):
        with pytest.raises(UserError, match=file) as error:
            attempt()
        assert str(tmp_path / "MNIST/raw" / file) in str(error.value)
        assert not isinstance(error.value, UnavailableError)
    assert contents(tmp_path) == before
    assert mirror.downloads == 0


@pytest.mark.parametrize(
    ("labels", "problem"), [(np.arange(9), "9 labels"), (np.arange(1, 11), "a label 10")]
)
def test_labels_that_do_not_match_the_images_are_refused(
    tmp_path: Path, labels: np.ndarray, problem: str
) -> None:
    write_files(tmp_path / "FashionMNIST/raw", tiny_files() | {TEST_Y: idx(labels)})
    with pytest.raises(UserError, match=problem) as error:
        FashionMNIST(tmp_path).load()
    assert str(tmp_path / "FashionMNIST/raw" / TEST_Y) in str(error.value)


# Missing files


def test_without_network_the_message_names_the_missing_file_and_the_fixes(
    tmp_path: Path, tiny: dict[str, bytes], offline: list[str]
) -> None:
    del tiny[TRAIN_Y]
    write_files(tmp_path, tiny)
    before = contents(tmp_path)
    for attempt in (MNIST(tmp_path).prepare, MNIST(tmp_path).load):
        with pytest.raises(UnavailableError, match=f"missing: {TRAIN_Y}") as error:
            attempt()
        message = str(error.value)
        for fix in (str(tmp_path / "MNIST/raw"), "data.root", "GANMNIST_DATA", "data=digits"):
            assert fix in message
    assert sorted(offline) == sorted(
        f"{mirror}{TRAIN_X}.gz" for mirror in torchvision.datasets.MNIST.mirrors
    )
    assert contents(tmp_path) == before


def test_without_network_a_missing_root_is_not_created(tmp_path: Path, offline: list[str]) -> None:
    with pytest.raises(UnavailableError):
        MNIST(tmp_path / "new").prepare()
    assert offline
    assert not (tmp_path / "new").exists()


def test_a_wrong_file_is_reported_before_a_missing_one(
    tmp_path: Path, tiny: dict[str, bytes], mirror: Mirror
) -> None:
    write_files(tmp_path, {TEST_X: truncated(tiny[TEST_X])})
    with pytest.raises(UserError, match=TEST_X):
        MNIST(tmp_path).prepare()
    assert mirror.downloads == 0


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path, mirror: Mirror) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"data\.root") as error:
        MNIST(tmp_path / "file" / "data").prepare()
    assert str(tmp_path / "file" / "data") in str(error.value)
    assert mirror.downloads == 0


# Downloads


def test_a_download_adds_the_missing_files_only(
    tmp_path: Path, tiny: dict[str, bytes], mirror: Mirror
) -> None:
    write_files(tmp_path, {TRAIN_X: tiny[TRAIN_X]})
    MNIST(tmp_path).prepare()
    names = {TRAIN_X, *(f"MNIST/raw/{file}" for file in (TRAIN_Y, TEST_X, TEST_Y))}
    assert set(contents(tmp_path)) == names
    assert {path.name for path in tmp_path.iterdir()} == {TRAIN_X, "MNIST", ".MNIST.lock"}
    assert MNIST(tmp_path).load()[0].y.tolist() == [*range(10), *range(10)]
    MNIST(tmp_path).prepare()
    assert mirror.downloads == 1


@pytest.mark.parametrize("failure", ["raises", "corrupt", "incomplete"])
def test_a_failed_download_leaves_no_file(
    tmp_path: Path, tiny: dict[str, bytes], mirror: Mirror, failure: str
) -> None:
    if failure == "raises":
        mirror.files = {TRAIN_X: tiny[TRAIN_X], "no-such-folder/file": b""}  # fails half-way
    elif failure == "corrupt":
        mirror.files = tiny | {TEST_X: altered(tiny[TEST_X])}
    else:
        mirror.files = {TRAIN_X: tiny[TRAIN_X]}
    with pytest.raises(UnavailableError):
        MNIST(tmp_path).prepare()
    assert mirror.downloads == 1
    assert [path.name for path in tmp_path.iterdir()] == [".MNIST.lock"]


def test_eight_simultaneous_starts_download_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: Mirror
) -> None:
    barrier = Barrier(8)  # all find the files missing before one takes the lock
    monkeypatch.setattr(datasets, "unreachable", lambda urls: barrier.wait(60) and None)

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
    assert set(contents(tmp_path)) == {f"MNIST/raw/{file}" for file in FILES}


# Fashion-MNIST


def test_fashion_mnist_reads_its_own_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: dict[str, bytes], offline: list[str]
) -> None:
    write_files(tmp_path, tiny)
    write_files(tmp_path / "MNIST/raw", tiny)
    with pytest.raises(UnavailableError) as error:
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


def test_fashion_mnist_trains(tmp_path: Path) -> None:
    write_files(tmp_path / "FashionMNIST/raw", tiny_files())
    data = ("data=fashion_mnist", f"data.root={tmp_path}", "batch_size=8", "model=mlp")
    short = ("trainer=cpu", "epochs=1", "callbacks=none", "logger=none")
    train(settings_of(f"folder={tmp_path / 'run'}", *data, *short))
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["data"], summary["images_seen"]) == ("FashionMNIST", 16)


# The cache of the digits


def test_the_digits_are_built_once_and_cached(
    tmp_path: Path, built: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Digits(tmp_path, copies=2), Digits(tmp_path, copies=2, channels=3)
    first.prepare()
    assert list(contents(tmp_path)) == [f"digits/v{digits.VERSION}_2copies.npz"]
    assert {path.name for path in tmp_path.iterdir()} == {"digits", ".digits.lock"}
    monkeypatch.delattr(digits, "build")
    before = contents(tmp_path)
    second.prepare()
    assert_same_images(first.load(), built)
    assert second.load()[0].x.shape == (3000, 3, 28, 28)
    assert first.checksum == second.checksum == digest(*built)
    assert contents(tmp_path) == before
    assert Digits(tmp_path).cache.name == f"v{digits.VERSION}_40copies.npz"


def test_eight_simultaneous_starts_build_the_digits_once(tmp_path: Path, builds: list[int]) -> None:
    barrier = Barrier(8)

    def start(_: int) -> None:
        barrier.wait(60)
        Digits(tmp_path, copies=2).prepare()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(8)))
    assert builds == [2]


def change_a_pixel(path: Path) -> None:
    """Changes an image and keeps the checksum."""
    with np.load(path) as file:
        arrays = dict(file)
    arrays["test_x"][0, 0, 14, 14] ^= 1
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "damage",
    [
        change_a_pixel,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an archive"),
        lambda path: np.savez(path, train_x=np.zeros(1)),
    ],
)
def test_a_damaged_cache_is_not_used(
    tmp_path: Path,
    built: tuple[Images, Images],
    builds: list[int],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    data = Digits(tmp_path, copies=2)
    data.prepare()
    damage(data.cache)
    before = contents(tmp_path)
    data.prepare()
    assert builds == [2]
    assert_same_images(data.load(), built)
    assert builds == [2, 2]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(data.cache) in record.getMessage()
    assert contents(tmp_path) == before


def test_without_a_cache_the_digits_are_built_in_memory(
    tmp_path: Path,
    built: tuple[Images, Images],
    builds: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "file").touch()
    unprepared, unwritable = Digits(tmp_path, copies=2), Digits(tmp_path / "file" / "x", copies=2)
    assert_same_images(unprepared.load(), built)
    assert not caplog.records
    unwritable.prepare()
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert str(unwritable.cache) in record.getMessage()
    assert builds == [2]
    assert_same_images(unwritable.load(), built)
    assert builds == [2, 2]


# Auto


def test_auto_uses_mnist_on_disk(
    tmp_path: Path, tiny: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    write_files(tmp_path, tiny)
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


def test_auto_downloads_mnist(tmp_path: Path, mirror: Mirror) -> None:
    assert Auto(tmp_path).name == "MNIST"
    assert mirror.downloads == 1


def test_auto_keeps_the_image_size_and_the_channels(tmp_path: Path, tiny: dict[str, bytes]) -> None:
    write_files(tmp_path, tiny)
    resolved = Auto(tmp_path, channels=3, image_size=64).resolve()
    assert (resolved.channels, resolved.image_size) == (3, 64)


def test_auto_falls_back_to_the_digits_and_warns_once(
    tmp_path: Path, offline: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    auto = Auto(tmp_path)
    assert isinstance(auto.resolve(), Digits)
    assert os.environ[Auto.decision] == f"digits:{tmp_path}"
    requests = len(offline)
    assert requests == len(torchvision.datasets.MNIST.mirrors)
    for later in (auto, Auto(tmp_path)):
        assert later.resolve().name == later.name == "digits"
    assert len(offline) == requests
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert len(message.splitlines()) > 4
    for words in ("NOT MNIST", "refused", str(tmp_path), "GANMNIST_DATA", "data=digits"):
        assert words in message


def test_auto_follows_an_earlier_decision(
    tmp_path: Path,
    built: tuple[Images, Images],
    builds: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(Auto.decision, f"digits:{tmp_path}")
    auto = Auto(tmp_path)
    auto.prepare()
    assert_same_images(auto.load(), built)
    assert builds == [40]
    assert auto.checksum == digest(*built)
    assert list(contents(tmp_path)) == [f"digits/v{digits.VERSION}_40copies.npz"]


def test_auto_refuses_a_wrong_file(
    tmp_path: Path, tiny: dict[str, bytes], offline: list[str]
) -> None:
    write_files(tmp_path, {TEST_Y: altered(tiny[TEST_Y])})
    with pytest.raises(UserError) as error:
        Auto(tmp_path).resolve()
    assert str(tmp_path / TEST_Y) in str(error.value)
    assert Auto.decision not in os.environ
    assert not offline


def test_auto_decides_for_each_folder(
    tmp_path: Path, tiny: dict[str, bytes], offline: list[str]
) -> None:
    write_files(tmp_path / "full", tiny)
    assert Auto(tmp_path / "empty").name == "digits"
    assert Auto(tmp_path / "full").name == "MNIST"


# Stacked MNIST


def test_stacked_images_are_three_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, tiny_files())
    monkeypatch.setattr(StackedMNIST, "md5", dict.fromkeys(MNIST.md5))
    data = DataModule(StackedMNIST(tmp_path), batch_size=4, seed=3)
    data.prepare_data()
    data.setup()
    assert (data.shape, data.n_classes) == ((3, 28, 28), 1000)
    loader = Loader(data.train, 4, seed=3, position=lambda: (0, 0, 0), stack=3)
    x, y = concat_columns((batch.x, batch.y) for batch in loader)
    assert x.shape == (20, 3, 28, 28)
    # Image i has the gray value i everywhere, and the digit i % 10.
    gray = ((x[:, :, 0, 0] + 1) * 127.5).round().long()
    assert torch.equal(y, (gray % 10 * torch.tensor([1, 10, 100])).sum(1))
    for channel in range(3):
        assert sorted(gray[:, channel].tolist()) == [*range(20)]  # each once in an epoch
    assert not torch.equal(gray[:, 0], gray[:, 1])
    again = Loader(data.train, 4, seed=3, position=lambda: (0, 0, 0), stack=3)
    assert torch.equal(next(iter(again)).x, x[:4])


def test_a_fixed_subset_of_stacked_images_is_always_the_same(tmp_path: Path) -> None:
    x = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).repeat(1, 1, 2, 2)
    images = Images(x, torch.arange(20))
    stacked = StackedMNIST(tmp_path)
    first, again = (stacked.fixed_subset(images, 26) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (26, 3, 2, 2)
    assert stacked.to_digits(first).shape == (26, 3, 2, 2)
