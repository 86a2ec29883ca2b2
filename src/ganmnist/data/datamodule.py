"""Batches from memory: a whole data set is one uint8 tensor, a batch is one index into it.

MNIST is 47 MB, so it lives on the training device and a batch costs one gather; scaling to
[-1, 1] (mean 0.5, standard deviation 0.5) happens there too. No Python runs per image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from ganmnist.data.datasets import DataSet, Images
from ganmnist.duel import Part, Sample
from ganmnist.errors import UserError
from ganmnist.pixels import to_unit_range
from ganmnist.rng import generator_for


def epoch_order(
    n: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    stack: int = 1,
    key: str = "order",
) -> Tensor:
    """The samples that one rank sees in one epoch, in order: a pure function of the arguments.

    (samples, stack) indices of images. All ranks shuffle alike and take every world_size-th
    sample, so their parts are disjoint. Another `key` is another order.
    """
    rng = generator_for(key, seed, epoch)
    order = torch.stack([torch.randperm(n, generator=rng) for _ in range(stack)], 1)
    return order[rank::world_size]


class Loader:
    """Iterates one rank's part of an epoch, as chunks of batches.

    A chunk is a list of at most `chunk` samples. It ends early where the number of batches seen
    since the start of training reaches a multiple of one of `intervals`, so that whatever
    happens at intervals finds the model at exactly that batch. The last partial batch of an
    epoch is dropped, and all that come after `most`. `clock` tells (epoch, batches seen, how many
    of them in this epoch) when an epoch begins or goes on. With `second_batch`, a batch holds
    twice `batch_size` images: the second half goes through all images in an order of its own.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        seed: int,
        clock: Callable[[], tuple[int, int, int]],
        rank: int = 0,
        world_size: int = 1,
        image_size: int | None = None,
        chunk: int = 1,
        intervals: Sequence[int] = (),
        stack: int = 1,
        most: int | None = None,
        second_batch: bool = False,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.clock = clock
        self.rank = rank
        self.world_size = world_size
        self.image_size = image_size
        self.chunk = chunk
        self.intervals = intervals
        self.stack = stack
        self.second_batch = second_batch
        there = len(images.x) // world_size // batch_size
        self.batches = there if most is None else min(there, most)

    def __len__(self) -> int:
        if self.chunk > 1:
            raise TypeError("intervals cut epochs into chunks differently, so they have no length")
        return self.batches

    def __iter__(self) -> Iterator[list[Sample]]:
        epoch, seen, start = self.clock()
        began = seen - start
        batches = self.batches_of(epoch, "order")
        if self.second_batch:
            pairs = zip(batches, self.batches_of(epoch, "second order"), strict=True)
            batches = [torch.cat(pair) for pair in pairs]
        while start < self.batches:
            to_interval = min((i - (began + start) % i for i in self.intervals), default=self.chunk)
            stop = start + min(self.chunk, to_interval)
            yield [self.sample(indices) for indices in batches[start:stop]]
            start = stop

    def batches_of(self, epoch: int, key: str) -> list[Tensor]:
        """Indices (B, stack) of each batch of an epoch."""
        n = len(self.images.x)
        order = epoch_order(n, self.seed, epoch, self.rank, self.world_size, self.stack, key)
        return [*order.to(self.images.x.device).split(self.batch_size)[: self.batches]]

    def sample(self, indices: Tensor) -> Sample:
        """One batch of (B, stack) indices."""
        return Sample(*draw(self.images, indices, self.image_size))


def draw(images: Images, indices: Tensor, size: int | None) -> tuple[Tensor, Tensor]:
    """Of (B, stack) indices images (B, C, H, W) in [-1, 1], and the numbers (B,) they spell."""
    x = images.x[indices].flatten(1, 2)
    if size is not None and size != x.shape[-1]:
        x = transforms.resize(x, [size, size], antialias=True)
    return to_unit_range(x), spelled(images.y, indices)


def spelled(digits: Tensor, indices: Tensor) -> Tensor:
    """The numbers (B,) that the digits at (B, stack) indices spell, the ones first."""
    places = 10 ** torch.arange(indices.shape[1], device=digits.device)
    return (digits[indices] * places).sum(1)


class DataModule(L.LightningDataModule):
    """Serves a data set; `batch_size` is per process.

    Args:
        dataset: where the images come from.
        batch_size: images a batch.
        seed: keys the order of every epoch.
        image_size: what images are resized to; None leaves them as they are.
        chunk: batches handed over at once; more than one saves Lightning's overhead a step.
        intervals: numbers of batches whose multiples end a chunk; None among them is none.
        second_batch: a batch holds twice as many images (see `Loader`).

    Raises:
        ValueError: a size is no size.
    """

    def __init__(
        self,
        dataset: DataSet,
        batch_size: int,
        seed: int = 0,
        image_size: int | None = None,
        chunk: int = 1,
        intervals: Sequence[int | None] = (),
        second_batch: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("chunk", chunk), ("image_size", image_size)):
            if value is not None and value < 1:
                raise ValueError(f"datamodule.{name}={value} leaves nothing: choose 1 or more")
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.image_size = image_size
        self.chunk = chunk
        self.intervals = tuple(i for i in intervals if i is not None)
        self.second_batch = second_batch
        self.train: Images | None = None
        self.test: Images | None = None

    def prepare_data(self) -> None:
        self.dataset = self.dataset.resolve()
        self.dataset.prepare()

    def setup(self, stage: str | None = None) -> None:
        if self.train is None:
            self.train, self.test = self.dataset.load()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that are served."""
        assert self.train is not None
        _, channels, height, width = self.train.x.shape
        channels *= self.dataset.stack
        if self.image_size is not None:
            height = width = self.image_size
        return channels, height, width

    @property
    def classes(self) -> int:
        """How many numbers the images that are served can show."""
        assert self.train is not None
        return (int(self.train.y.max()) + 1) ** self.dataset.stack

    def labelled(self, n: int, seed: int, device: torch.device) -> Sample:
        """`n` training samples, class by class in turn, always the same ones for a seed.

        Raises:
            UserError: the classes do not have as many each.
        """
        assert self.train is not None
        each, rest = divmod(n, self.classes)
        if rest or each < 1:
            raise UserError(
                f"gan.labelled={n} is not as many of each of the {self.classes} classes of "
                f"{self.dataset.name}: choose a multiple of {self.classes}."
            )
        stack = self.dataset.stack
        order = torch.randperm(len(self.train.x), generator=generator_for("labelled", seed))
        indices = order[: len(order) // stack * stack].view(-1, stack)
        y = spelled(self.train.y, indices)
        chosen = [indices[y == k][:each] for k in range(self.classes)]
        if (there := min(map(len, chosen))) < each:
            raise UserError(
                f"gan.labelled={n} is {each} of each class, and {self.dataset.name} has {there} "
                f"of one: choose {there * self.classes} or less."
            )
        x, y = draw(self.train, torch.stack(chosen, 1).flatten(0, 1), self.image_size)
        return Sample(x.to(device), y.to(device))

    def some(self, part: Part, n: int, device: torch.device) -> Sample:
        """At most `n` samples of a part with their labels, always the same."""
        return next(self.batches(part, device, n))

    def batches(self, part: Part, device: torch.device, n: int = 500) -> Iterator[Sample]:
        """All samples of a part with their labels, `n` at a time, always in the same order."""
        images = self.train if part == "train" else self.test
        assert images is not None
        indices = torch.randperm(len(images.x), generator=generator_for("some", part))
        stack = self.dataset.stack
        for chosen in indices[: len(indices) // stack * stack].view(-1, stack).split(n):
            x, y = draw(images, chosen, self.image_size)
            yield Sample(x.to(device), y.to(device))

    def train_dataloader(self) -> Loader:
        assert self.train is not None
        assert self.trainer is not None
        trainer = self.trainer
        gan: Any = trainer.lightning_module  # imports go down only, so its class is not known here
        device, world_size = trainer.strategy.root_device, trainer.world_size
        most = trainer.limit_train_batches
        if most not in (None, 1.0) and not isinstance(most, int):
            raise UserError(
                f"trainer.limit_train_batches={most}: choose a number of batches, not a share."
            )
        loader = Loader(
            Images(self.train.x.to(device), self.train.y.to(device)),
            self.batch_size,
            self.seed,
            clock=lambda: (gan.epochs_seen, gan.batches_seen, gan.batches_seen - gan.epoch_start),
            rank=trainer.global_rank,
            world_size=world_size,
            image_size=self.image_size,
            chunk=self.chunk,
            intervals=self.intervals,
            stack=self.dataset.stack,
            most=most if isinstance(most, int) else None,
            second_batch=self.second_batch,
        )
        if loader.batches == 0:
            raise UserError(
                f"batch_size={self.batch_size} on {world_size} process(es) is more than the "
                f"{len(self.train.x)} training images of {self.dataset.name}; choose a smaller one."
            )
        return loader

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Nothing to move: the loader draws on the device."""
        return batch
