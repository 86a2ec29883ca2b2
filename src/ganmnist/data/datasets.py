"""Data sets: every one puts itself on disk once, and loads as two parts of uint8 images.

What is loaded is verified. A file of the user's that is not what its name says is an error that
names it; it is never repaired, overwritten or trained on.
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
from ganmnist.data.fetch import unreachable, workshop
from ganmnist.data.idx import read_idx
from ganmnist.errors import UserError
from ganmnist.rng import generator_for

log = logging.getLogger(__name__)


class UnavailableError(UserError):
    """The data are not there, and cannot be fetched either."""


class Images(NamedTuple):
    """One part of a data set."""

    x: Tensor  # (N, C, H, W) uint8, or float32 in [-1, 1]
    y: Tensor  # (N,) int64


class DataSet(ABC):
    """Where images come from. Building one costs nothing.

    Args:
        root: the folder of all data sets.
        channels: C of the images; a grey image is repeated in each.
    """

    checksum: str  # SHA-256 of the grey images and labels, known after `load`
    stack = 1  # images that make one sample, as its channels

    def __init__(self, root: str | Path, channels: int = 1) -> None:
        if channels < 1:
            raise UserError(f"channels={channels} leaves no image: use 1 (grey) or 3 (RGB).")
        self.root = Path(root).expanduser()
        self.channels = channels

    @property
    @abstractmethod
    def name(self) -> str:
        """For captions and env.json."""

    @abstractmethod
    def prepare(self) -> None:
        """Make sure that the data are on disk; one process per machine calls it.

        Raises:
            UserError: they are not, and cannot be brought there.
        """

    @abstractmethod
    def read(self) -> tuple[Images, Images]:
        """The training and the test part, grey (N, 1, H, W), verified."""

    def resolve(self) -> "DataSet":
        """The data set that is meant, where that is decided by what can be had."""
        return self

    def glyphs(self, x: Tensor) -> Tensor:
        """The single symbols that images (B, C, H, W) show, grey: (B, K, H, W)."""
        return x.mean(1, keepdim=True)

    def still(self, part: Images, n: int) -> Tensor:
        """`n` samples (n, C, H, W) uint8 of a part, always the same, or all that there are."""
        return part.x[torch.randperm(len(part.x), generator=generator_for("still"))[:n]]

    def load(self) -> tuple[Images, Images]:
        """The training and the test part, with `channels` channels.

        Raises:
            UserError: something is missing or wrong.
        """
        train, test = self.read()
        self.checksum = digest(train, test)
        return self._repeat(train), self._repeat(test)

    def _repeat(self, part: Images) -> Images:
        return Images(part.x.expand(-1, self.channels, -1, -1), part.y)  # a view: no memory


def digest(*parts: Images) -> str:
    """SHA-256 of shapes and bytes, in hex."""
    sha = hashlib.sha256()
    for tensor in (tensor for part in parts for tensor in part):
        sha.update(repr(tuple(tensor.shape)).encode())
        sha.update(tensor.numpy().data)
    return sha.hexdigest()


class MNIST(DataSet):
    """70,000 handwritten digits (LeCun, Bottou, Bengio and Haffner, 1998).

    The four IDX files are looked for in root/MNIST/raw, where torchvision has them, then in root
    itself, each plain or gzipped.
    """

    name = "MNIST"
    source = "MNIST"  # torchvision's name
    folders: ClassVar[tuple[str, ...]] = ("MNIST/raw", ".")
    md5: ClassVar[Mapping[str, str | None]] = {  # of the uncompressed bytes
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }

    def prepare(self) -> None:
        """Verify the files that are there and download those that are not, through torchvision.

        Raises:
            UnavailableError: a file is missing and cannot be downloaded.
            UserError: a file is there and wrong.
        """
        for path in self._found().values():
            self._read_file(path)
        if self._missing():
            self._download()

    def read(self) -> tuple[Images, Images]:
        if self._missing():
            raise self._unavailable("was not downloaded")
        train_x, train_y, test_x, test_y = self._found().values()
        return self._part(train_x, train_y), self._part(test_x, test_y)

    def _found(self) -> dict[str, Path]:
        """Where the files lie, without those that are missing."""
        found: dict[str, Path] = {}
        for file, folder, ending in product(self.md5, self.folders, ("", ".gz")):
            path = self.root / folder / f"{file}{ending}"
            if isfile(path):  # Path's own would raise where a folder may not be read
                found.setdefault(file, path)
        return found

    def _missing(self) -> list[str]:
        found = self._found()
        return [file for file in self.md5 if file not in found]

    def _read_file(self, path: Path) -> Tensor:
        file = path.name.removesuffix(".gz")
        return read_idx(path, (28, 28) if "idx3" in file else (), self.md5[file])

    def _part(self, images: Path, labels: Path) -> Images:
        x, y = self._read_file(images), self._read_file(labels)
        if len(x) != len(y):
            raise UserError(
                f"{labels} has {len(y):,} labels for the {len(x):,} images of {images}: "
                "put the two original files there."
            )
        if y.max() > 9:
            raise UserError(f"{labels} has a label {y.max()}, over 9: put the original file there.")
        return Images(x.unsqueeze(1), y.long())

    def _download(self) -> None:
        import torchvision  # seconds to import, and needed here only

        source = getattr(torchvision.datasets, self.source)
        # Asked before the lock is taken, so that processes wait for silence side by side.
        if why := unreachable([mirror + source.resources[0][0] for mirror in source.mirrors]):
            raise self._unavailable(f"cannot be downloaded ({why})")
        try:
            with workshop(self.root, self.source) as scratch:
                missing = self._missing()
                if not missing:  # whoever held the lock before us has brought everything
                    return
                source(scratch, download=True)
                fetched = type(self)(scratch)
                fetched.read()
                target = self.root / self.folders[0]
                target.mkdir(parents=True, exist_ok=True)
                for file in missing:
                    os.replace(fetched._found()[file], target / file)
        except (UserError, RuntimeError, OSError, HTTPException, EOFError) as error:
            raise self._unavailable(f"cannot be downloaded ({error})") from error

    def _unavailable(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"{self.name} is not in {self.root} (missing: {', '.join(self._missing())}) and "
            f"{why}: put the four files into {self.root / self.folders[0]}, name the folder "
            "that has them with data.root or GANMNIST_DATA, or use data=digits."
        )


class FashionMNIST(MNIST):
    """70,000 photographs of clothes in MNIST's format (Xiao, Rasul and Vollgraf, 2017).

    arXiv:1708.07747. Its files are named like MNIST's, so they are looked for in their own folder
    only. torchvision checks the archives it downloads; files on disk are checked by structure.
    """

    name = "FashionMNIST"
    source = "FashionMNIST"
    folders = ("FashionMNIST/raw",)
    md5: ClassVar[Mapping[str, str | None]] = dict.fromkeys(MNIST.md5)


class StackedMNIST(MNIST):
    """Three random digits of MNIST as red, green and blue: 1000 modes (arXiv 1611.02163).

    Drawn on the fly: an epoch is 60,000 triples in which every digit image is once each colour.
    Their labels are the numbers 0 to 999 that the digits spell, red the ones.
    """

    name = "StackedMNIST"
    stack = 3

    def __init__(self, root: str | Path, channels: int = 3) -> None:
        if channels != self.stack:
            raise UserError(f"data.channels={channels}: a stacked image has {self.stack} channels.")
        super().__init__(root, channels=1)

    def glyphs(self, x: Tensor) -> Tensor:
        return x

    def still(self, part: Images, n: int) -> Tensor:
        indices = torch.randint(len(part.x), (n, self.stack), generator=generator_for("still"))
        return part.x[indices].flatten(1, 2)


class Digits(DataSet):
    """UCI's 1,797 digits, redrawn as 60,000 and 297 images like MNIST's: no download.

    Drawn once (3 s on two cores) and kept in root/digits. Where that cannot be written, every
    process draws its own.

    Args:
        root: the folder of all data sets.
        channels: C of the images; a grey image is repeated in each.
        copies: training images of each of the 1,500 training originals, the first undistorted.
    """

    name = "digits"

    def __init__(self, root: str | Path, channels: int = 1, copies: int = 40) -> None:
        super().__init__(root, channels)
        if copies < 1:
            raise UserError(f"copies={copies} leaves no training image: use 1 or more.")
        self.copies = copies
        self.cache = self.root / "digits" / f"v{digits.VERSION}_{copies}copies.npz"

    def prepare(self) -> None:
        try:
            if self.cache.exists():
                return
            with workshop(self.root, self.name) as scratch:
                if not self.cache.exists():
                    self._save(scratch / self.cache.name)
                    self.cache.parent.mkdir(exist_ok=True)
                    os.replace(scratch / self.cache.name, self.cache)
        except OSError as error:
            log.info("Digits are drawn in memory: %s cannot be written (%s).", self.cache, error)

    def read(self) -> tuple[Images, Images]:
        try:
            return self._restore()
        except FileNotFoundError:
            return self._draw()
        except Exception as error:  # zipfile and numpy raise a dozen kinds over damaged bytes
            log.warning(
                "%s is unusable (%s): digits are drawn in memory; delete the file to renew it.",
                self.cache,
                error,
            )
            return self._draw()

    def _draw(self) -> tuple[Images, Images]:
        train, test = digits.build(self.copies)
        return Images(*train), Images(*test)

    def _save(self, path: Path) -> None:
        train, test = self._draw()
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
                Images(torch.from_numpy(file[f"{part}_x"]), torch.from_numpy(file[f"{part}_y"]))
                for part in ("train", "test")
            )
            if digest(train, test) != file["digest"]:
                raise ValueError("its images do not have the checksum stored with them")
        return train, test


class Auto(DataSet):
    """MNIST if it is there or can be fetched, else the digits, with a warning.

    Decided once, before any job or rank starts, and kept in the environment: later jobs and
    child processes follow without asking the network, or warning, again.
    """

    candidates: ClassVar[Mapping[str, type[DataSet]]] = {"mnist": MNIST, "digits": Digits}
    decision = "GANMNIST_AUTO"  # the environment variable: choice:root

    @property
    def name(self) -> str:
        return self.resolve().name

    def prepare(self) -> None:
        self.resolve().prepare()

    def read(self) -> tuple[Images, Images]:
        return self.resolve().read()

    def resolve(self) -> DataSet:
        """The data set that is used.

        Raises:
            UserError: a file of MNIST is there and wrong, which never leads to the digits.
        """
        choice, _, root = os.environ.get(self.decision, "").partition(":")
        if root != str(self.root.absolute()):  # nobody has decided about these data yet
            choice = self._choose()
            os.environ[self.decision] = f"{choice}:{self.root.absolute()}"
        return self.candidates[choice](self.root, self.channels)

    def _choose(self) -> str:
        try:
            MNIST(self.root).prepare()
        except UnavailableError as error:
            text = f"These are NOT MNIST's images but stand-ins (data=digits). {error}"
            lines = textwrap.wrap(text, 86, break_long_words=False, break_on_hyphens=False)
            box = textwrap.indent("\n".join(lines), "  ")  # paths stay whole, to be copied
            log.warning("\n%s\n%s\n%s", "#" * 90, box, "#" * 90)
            return "digits"
        return "mnist"
