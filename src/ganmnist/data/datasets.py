"""Data sets. Each one brings itself to the disk once, and loads as two splits of uint8 images.

Loaded data are verified. A user's file with wrong content is an error that names the file. It is
never repaired, overwritten or used.
"""

import hashlib
import logging
import os
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping
from http.client import HTTPException
from itertools import product
from os.path import isfile
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ganmnist.data import digits
from ganmnist.data.fetch import locked_tempdir, unreachable
from ganmnist.data.idx import read_idx
from ganmnist.utils.batch import SPLITS
from ganmnist.utils.errors import UserError
from ganmnist.utils.rng import generator_for

log = logging.getLogger(__name__)


class UnavailableError(UserError):
    """The data are missing and cannot be downloaded."""


class Images(NamedTuple):
    """One split of a data set."""

    x: Tensor  # (N, C, H, W) uint8, or float32 in [-1, 1]
    y: Tensor  # (N,) int64


class DataSet(ABC):
    """A source of images. The constructor reads nothing.

    Args:
        root: the folder of all data sets.
        channels: C of the images; a gray image is repeated in each.
        image_size: size that images are resized to; None: their own.
    """

    checksum: str  # SHA-256 of the gray images and labels, set by `load`
    stack = 1  # images that make one sample, as its channels

    def __init__(self, root: str | Path, channels: int = 1, image_size: int | None = None) -> None:
        if channels < 1:
            raise UserError(f"data.channels={channels}: use 1 (gray) or 3 (RGB).")
        if image_size is not None and image_size < 1:
            raise UserError(f"data.image_size={image_size}: choose 1 or more.")
        self.image_size = image_size
        self.root = Path(root).expanduser()
        self.channels = channels

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in captions, metric keys and env.json."""

    @abstractmethod
    def prepare(self) -> None:
        """Makes sure that the data are on disk. One process per machine calls it.

        Raises:
            UserError: they are missing and cannot be downloaded or built.
        """

    @abstractmethod
    def read(self) -> tuple[Images, Images]:
        """The training and the test split, gray (N, 1, H, W), verified."""

    def resolve(self) -> "DataSet":
        """The concrete data set, for one that chooses among several."""
        return self

    def to_digits(self, x: Tensor) -> Tensor:
        """The single digits (B, K, H, W), gray, of images (B, C, H, W)."""
        return x.mean(1, keepdim=True)

    def fixed_subset(self, images: Images, n: int) -> Tensor:
        """n samples (n, C, H, W) of a split, always the same, or all if there are fewer."""
        return images.x[torch.randperm(len(images.x), generator=generator_for("still"))[:n]]

    def load(self) -> tuple[Images, Images]:
        """The training and the test split, with `channels` channels.

        Raises:
            UserError: a file is missing or wrong.
        """
        train, test = self.read()
        self.checksum = digest(train, test)
        return self._repeat_channels(train), self._repeat_channels(test)

    def _repeat_channels(self, images: Images) -> Images:
        return Images(images.x.expand(-1, self.channels, -1, -1), images.y)  # a view: no memory


def digest(*splits: Images) -> str:
    """SHA-256 of shapes and bytes, in hex."""
    sha = hashlib.sha256()
    for tensor in (tensor for images in splits for tensor in images):
        sha.update(repr(tuple(tensor.shape)).encode())
        sha.update(tensor.numpy().data)
    return sha.hexdigest()


class MNIST(DataSet):
    """70,000 handwritten digits (LeCun, Bottou, Bengio and Haffner, 1998).

    The four IDX files are searched in root/MNIST/raw, torchvision's folder, then in root, each
    plain or gzipped.
    """

    name = "MNIST"
    torchvision_name = "MNIST"
    folders: ClassVar[tuple[str, ...]] = ("MNIST/raw", ".")
    md5: ClassVar[Mapping[str, str | None]] = {  # of the uncompressed bytes
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }

    def prepare(self) -> None:
        """Verifies the files on disk, and downloads the missing ones through torchvision.

        Raises:
            UnavailableError: a file is missing and cannot be downloaded.
            UserError: a file is wrong.
        """
        for path in self._found().values():
            self._read_file(path)
        if self._missing():
            self._download()

    def read(self) -> tuple[Images, Images]:
        if self._missing():
            raise self._unavailable("was not downloaded")
        train_x, train_y, test_x, test_y = self._found().values()
        return self._read_split(train_x, train_y), self._read_split(test_x, test_y)

    def _found(self) -> dict[str, Path]:
        """The paths of the files on disk, by name."""
        found: dict[str, Path] = {}
        for file, folder, suffix in product(self.md5, self.folders, ("", ".gz")):
            path = self.root / folder / f"{file}{suffix}"
            if isfile(path):  # Path.is_file raises in a folder that may not be read
                found.setdefault(file, path)
        return found

    def _missing(self) -> list[str]:
        found = self._found()
        return [file for file in self.md5 if file not in found]

    def _read_file(self, path: Path) -> Tensor:
        file = path.name.removesuffix(".gz")
        return read_idx(path, (28, 28) if "idx3" in file else (), self.md5[file])

    def _read_split(self, images: Path, labels: Path) -> Images:
        x, y = self._read_file(images), self._read_file(labels)
        if len(x) != len(y):
            raise UserError(
                f"{labels} has {len(y):,} labels for the {len(x):,} images of {images}. Put the "
                "two original files there."
            )
        if y.max() > 9:
            raise UserError(
                f"{labels} has a label {y.max()}, above 9. Put the original file there."
            )
        return Images(x.unsqueeze(1), y.long())

    def _download(self) -> None:
        import torchvision  # takes seconds, and only a download needs it

        source = getattr(torchvision.datasets, self.torchvision_name)
        # Outside the lock: processes wait for a timeout at the same time, not one after the other.
        if reason := unreachable([mirror + source.resources[0][0] for mirror in source.mirrors]):
            raise self._unavailable(f"cannot be downloaded ({reason})")
        try:
            with locked_tempdir(self.root, self.torchvision_name) as folder:
                missing = self._missing()
                if not missing:  # another process has downloaded them
                    return
                source(folder, download=True)
                downloaded = type(self)(folder)
                downloaded.read()
                target = self.root / self.folders[0]
                target.mkdir(parents=True, exist_ok=True)
                for file in missing:
                    os.replace(downloaded._found()[file], target / file)
        except (UserError, RuntimeError, OSError, HTTPException, EOFError) as error:
            raise self._unavailable(f"cannot be downloaded ({error})") from error

    def _unavailable(self, reason: str) -> UnavailableError:
        return UnavailableError(
            f"data.root={self.root}: {self.name} is not there (missing: "
            f"{', '.join(self._missing())}) and {reason}. Put the four files into "
            f"{self.root / self.folders[0]}, set data.root or GANMNIST_DATA to the folder that has "
            "them, or use data=digits."
        )


class FashionMNIST(MNIST):
    """70,000 photographs of clothes in MNIST's format (Xiao, Rasul and Vollgraf, 2017).

    arXiv:1708.07747. Its files have the names of MNIST's and are searched in their own folder only.
    torchvision verifies the archives that it downloads. Of files on disk, the structure is checked.
    """

    name = "FashionMNIST"
    torchvision_name = "FashionMNIST"
    folders = ("FashionMNIST/raw",)
    md5: ClassVar[Mapping[str, str | None]] = dict.fromkeys(MNIST.md5)


class StackedMNIST(MNIST):
    """Three random digits of MNIST as red, green and blue: 1000 modes (arXiv 1611.02163).

    An epoch has 60,000 triples. Each digit image occurs once in each channel. The label of a triple
    is red + 10 green + 100 blue, from 0 to 999.
    """

    name = "StackedMNIST"
    stack = 3

    def __init__(self, root: str | Path, channels: int = 3, image_size: int | None = None) -> None:
        if channels != self.stack:
            raise UserError(f"data.channels={channels}: stacked images have {self.stack} channels.")
        super().__init__(root, channels=1, image_size=image_size)

    def to_digits(self, x: Tensor) -> Tensor:
        return x

    def fixed_subset(self, images: Images, n: int) -> Tensor:
        rng = generator_for("still")
        return images.x[torch.randint(len(images.x), (n, self.stack), generator=rng)].flatten(1, 2)


class Digits(DataSet):
    """UCI's 1,797 digits as 60,000 and 297 images like MNIST's, without a download (digits.py).

    They are built once (3 s on two cores) and kept in root/digits. If that folder cannot be
    written, every process builds its own.

    Args:
        root: the folder of all data sets.
        channels: C of the images; a gray image is repeated in each.
        image_size: size that images are resized to; None: their own.
        copies: training images of each of the 1,500 training originals, the first undistorted.
    """

    name = "digits"

    def __init__(
        self,
        root: str | Path,
        channels: int = 1,
        image_size: int | None = None,
        copies: int = 40,
    ) -> None:
        super().__init__(root, channels, image_size)
        if copies < 1:
            raise UserError(f"data.copies={copies}: choose 1 or more.")
        self.copies = copies
        self.cache = self.root / "digits" / f"v{digits.VERSION}_{copies}copies.npz"

    def prepare(self) -> None:
        try:
            if self.cache.exists():
                return
            with locked_tempdir(self.root, self.name) as folder:
                if not self.cache.exists():
                    self._save(folder / self.cache.name)
                    self.cache.parent.mkdir(exist_ok=True)
                    os.replace(folder / self.cache.name, self.cache)
        except OSError as error:
            log.info("Cannot write %s (%s): building the digits in memory.", self.cache, error)

    def read(self) -> tuple[Images, Images]:
        try:
            return self._restore()
        except FileNotFoundError:
            return self._build()
        except Exception as error:  # zipfile and numpy raise a dozen kinds over damaged bytes
            log.warning(
                "%s is damaged (%s): building the digits in memory. Delete the file to renew it.",
                self.cache,
                error,
            )
            return self._build()

    def _build(self) -> tuple[Images, Images]:
        train, test = digits.build(self.copies)
        return Images(*train), Images(*test)

    def _save(self, path: Path) -> None:
        train, test = self._build()
        np.savez(
            path,
            train_x=train.x.numpy(),
            train_y=train.y.numpy(),
            test_x=test.x.numpy(),
            test_y=test.y.numpy(),
            digest=np.array(digest(train, test)),
        )

    def _restore(self) -> tuple[Images, Images]:
        with np.load(self.cache) as file:
            train, test = (
                Images(torch.from_numpy(file[f"{split}_x"]), torch.from_numpy(file[f"{split}_y"]))
                for split in SPLITS
            )
            if digest(train, test) != file["digest"]:
                raise ValueError("its images do not have the checksum stored with them")
        return train, test


class Auto(DataSet):
    """MNIST if it is on disk or can be downloaded, otherwise the digits, with a warning.

    The first use decides. The environment keeps the decision for later jobs and child processes,
    which neither use the network nor warn again.
    """

    candidates: ClassVar[Mapping[str, type[DataSet]]] = {"mnist": MNIST, "digits": Digits}
    decision = "GANMNIST_AUTO"  # the environment variable, CANDIDATE:ROOT

    @property
    def name(self) -> str:
        return self.resolve().name

    def prepare(self) -> None:
        self.resolve().prepare()

    def read(self) -> tuple[Images, Images]:
        return self.resolve().read()

    def resolve(self) -> DataSet:
        """MNIST or the digits.

        Raises:
            UserError: a file of MNIST is wrong. The digits replace only missing files.
        """
        choice, _, root = os.environ.get(self.decision, "").partition(":")
        if root != str(self.root.absolute()):  # no decision for this folder yet
            choice = self._choose()
            os.environ[self.decision] = f"{choice}:{self.root.absolute()}"
        return self.candidates[choice](self.root, self.channels, self.image_size)

    def _choose(self) -> str:
        try:
            MNIST(self.root).prepare()
        except UnavailableError as error:
            text = f"data=auto: using data=digits, which are NOT MNIST's images. {error}"
            lines = textwrap.wrap(text, 86, break_long_words=False, break_on_hyphens=False)
            box = textwrap.indent("\n".join(lines), "  ")  # paths stay whole, for copying
            log.warning("\n%s\n%s\n%s", "#" * 90, box, "#" * 90)
            return "digits"
        return "mnist"
