"""Batches from memory: a data set is one tensor, and a batch is one index into it.

MNIST has 47 MB. It lies on the training device, a batch costs one gather, and scaling to [-1, 1]
(mean 0.5, standard deviation 0.5) happens there. No Python runs per image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from ganmnist.data.datasets import DataSet, Images
from ganmnist.utils.batch import SPLITS, Batch, Split
from ganmnist.utils.errors import UserError
from ganmnist.utils.pixels import to_signed_range
from ganmnist.utils.resumable import ResumableModule
from ganmnist.utils.rng import generator_for
from ganmnist.utils.values import check_interval


def epoch_order(
    n: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    stack: int = 1,
    key: str = "order",
) -> Tensor:
    """Indices (samples, stack) of the images of one rank in one epoch, in order.

    A function of its arguments. All ranks shuffle alike, and each takes every world_size-th sample.
    Their shares are disjoint. `key` names the order: another key gives another one.
    """
    rng = generator_for(key, seed, epoch)
    order = torch.stack([torch.randperm(n, generator=rng) for _ in range(stack)], 1)
    return order[rank::world_size]


class Loader:
    """Iterates over one rank's batches of an epoch. Drops the last partial batch.

    With `chunk=1` it yields a `Batch` at a time. With `chunk=n` it yields lists of at most n
    batches. A list ends early where the number of batches seen reaches a multiple of an interval.

    Args:
        images: the training images, on the training device.
        batch_size: images of a batch.
        seed: seeds the order of every epoch.
        position: returns (epoch, batches seen, batches seen of this epoch). The iteration starts
            there.
        rank, world_size: this process, and the number of processes.
        image_size: size that images are resized to; None: their own.
        chunk: batches of an item.
        intervals: numbers of batches; see above.
        stack: images of a sample.
        max_batches: maximum number of batches of an epoch; None: no limit.
        second_batch: a batch has twice as many images. Its second half iterates over all images in
            another order.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        seed: int,
        position: Callable[[], tuple[int, int, int]],
        rank: int = 0,
        world_size: int = 1,
        image_size: int | None = None,
        chunk: int = 1,
        intervals: Sequence[int] = (),
        stack: int = 1,
        max_batches: int | None = None,
        second_batch: bool = False,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.position = position
        self.rank = rank
        self.world_size = world_size
        self.image_size = image_size
        self.chunk = chunk
        self.intervals = intervals
        self.stack = stack
        self.second_batch = second_batch
        available = len(images.x) // world_size // batch_size
        self.n_batches = available if max_batches is None else min(available, max_batches)

    def __len__(self) -> int:
        if self.chunk > 1:
            raise TypeError("With datamodule.chunk > 1, the number of chunks differs by epoch")
        return self.n_batches

    def __iter__(self) -> Iterator[Batch | list[Batch]]:
        epoch, batches_seen, start = self.position()
        epoch_start = batches_seen - start
        batches = self.batches_of(epoch, "order")
        if self.second_batch:
            pairs = zip(batches, self.batches_of(epoch, "second order"), strict=True)
            batches = [torch.cat(pair) for pair in pairs]
        while start < self.n_batches:
            seen = epoch_start + start
            to_interval = min((i - seen % i for i in self.intervals), default=self.chunk)
            stop = start + min(self.chunk, to_interval)
            chunk = [self.batch(indices) for indices in batches[start:stop]]
            yield chunk if self.chunk > 1 else chunk[0]
            start = stop

    def batches_of(self, epoch: int, key: str) -> list[Tensor]:
        """Indices (B, stack) of each batch of an epoch."""
        n = len(self.images.x)
        order = epoch_order(n, self.seed, epoch, self.rank, self.world_size, self.stack, key)
        return [*order.to(self.images.x.device).split(self.batch_size)[: self.n_batches]]

    def batch(self, indices: Tensor) -> Batch:
        """One batch of indices (B, stack)."""
        return Batch(*gather(self.images, indices, self.image_size))


def gather(images: Images, indices: Tensor, size: int | None) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) in [-1, 1] of indices (B, stack), and their labels (B,)."""
    x = images.x[indices].flatten(1, 2)
    if size is not None and size != x.shape[-1]:
        x = transforms.resize(x, [size, size], antialias=True)
    return to_signed_range(x), stacked_label(images.y, indices)


def stacked_label(digits: Tensor, indices: Tensor) -> Tensor:
    """Labels (B,) of stacked images: sum_i 10^i digits[indices[:, i]], for indices (B, stack)."""
    places = 10 ** torch.arange(indices.shape[1], device=digits.device)
    return (digits[indices] * places).sum(1)


class DataModule(L.LightningDataModule):
    """A LightningDataModule that holds the whole data set in memory.

    Args:
        dataset: the data set.
        batch_size: images per batch and process.
        seed: seeds the order of every epoch.
        chunk: batches of one training_step. With 1, the loader yields a `Batch`. With more, it
            yields a list of batches, which saves Lightning's overhead per step; the hooks of a
            callback then run once per list, after its last batch. Training is the same.
        intervals: numbers of batches. A list of batches ends at their multiples, where callbacks
            save or print. None among them is ignored.
        second_batch: a batch has twice as many images (see `Loader`).

    Raises:
        ValueError: `chunk` is below 1.
    """

    def __init__(
        self,
        dataset: DataSet,
        batch_size: int,
        seed: int = 0,
        chunk: int = 1,
        intervals: Sequence[int | None] = (),
        second_batch: bool = False,
    ) -> None:
        super().__init__()
        check_interval("datamodule.chunk", chunk)
        for interval in intervals:
            check_interval("datamodule.intervals", interval)
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.chunk = chunk
        self.intervals = tuple(i for i in intervals if i is not None)
        self.second_batch = second_batch
        self.splits: dict[Split, Images] = {}  # filled by `setup`

    def prepare_data(self) -> None:
        self.dataset = self.dataset.resolve()
        self.dataset.prepare()

    def setup(self, stage: str | None = None) -> None:
        if not self.splits:
            self.splits.update(zip(SPLITS, self.dataset.load(), strict=True))

    @property
    def train(self) -> Images:
        """The training images."""
        return self.splits["train"]

    @property
    def test(self) -> Images:
        """The test images."""
        return self.splits["test"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images in a batch."""
        _, channels, height, width = self.train.x.shape
        channels *= self.dataset.stack
        if self.dataset.image_size is not None:
            height = width = self.dataset.image_size
        return channels, height, width

    @property
    def n_classes(self) -> int:
        """The number of labels that a sample may have."""
        classes = int(self.train.y.max()) + 1
        return int(classes**self.dataset.stack)

    def labeled_subset(self, n: int, seed: int, device: torch.device) -> Batch:
        """n training samples in the order of labels 0, 1, ..., 0, 1, ...; a function of the seed.

        Raises:
            UserError: n is not a multiple of the number of classes, or a class has too few samples.
        """
        k = self.n_classes
        per_class, rest = divmod(n, k)
        if rest or per_class < 1:
            raise UserError(
                f"family.labeled={n}: every class needs the same number of labeled images. Choose "
                f"a multiple of {k}, the number of classes of {self.dataset.name}."
            )
        stack = self.dataset.stack
        order = torch.randperm(len(self.train.x), generator=generator_for("labelled", seed))
        indices = order[: len(order) // stack * stack].view(-1, stack)
        labels = stacked_label(self.train.y, indices)
        chosen = [indices[labels == label][:per_class] for label in range(k)]
        if (available := min(map(len, chosen))) < per_class:
            raise UserError(
                f"family.labeled={n}: this takes {per_class} images of each class, and a class of "
                f"{self.dataset.name} has {available}. Choose {available * k} or less."
            )
        x, y = gather(self.train, torch.stack(chosen, 1).flatten(0, 1), self.dataset.image_size)
        return Batch(x.to(device), y.to(device))

    def fixed_batch(self, split: Split, n: int, device: torch.device) -> Batch:
        """At most n samples of a split with their labels, always the same."""
        return next(self.batches(split, device, n))

    def batches(self, split: Split, device: torch.device, n: int = 500) -> Iterator[Batch]:
        """All samples of a split with their labels, in batches of n, always in the same order."""
        images = self.splits[split]
        indices = torch.randperm(len(images.x), generator=generator_for("some", split))
        stack = self.dataset.stack
        for chosen in indices[: len(indices) // stack * stack].view(-1, stack).split(n):
            x, y = gather(images, chosen, self.dataset.image_size)
            yield Batch(x.to(device), y.to(device))

    def train_dataloader(self) -> Loader:
        trainer = self.trainer
        assert trainer is not None
        gan = cast(ResumableModule, trainer.lightning_module)
        device, world_size = trainer.strategy.root_device, trainer.world_size
        limit = trainer.limit_train_batches
        if limit not in (None, 1.0) and not isinstance(limit, int):
            raise UserError(
                f"trainer.limit_train_batches={limit}: fractions are not supported. Choose a "
                "number of batches."
            )
        loader = Loader(
            Images(self.train.x.to(device), self.train.y.to(device)),
            self.batch_size,
            self.seed,
            position=lambda: (
                gan.state.epochs_seen,
                gan.state.batches_seen,
                gan.state.batches_seen - gan.state.epoch_start,
            ),
            rank=trainer.global_rank,
            world_size=world_size,
            image_size=self.dataset.image_size,
            chunk=self.chunk,
            intervals=self.intervals,
            stack=self.dataset.stack,
            max_batches=limit if isinstance(limit, int) else None,
            second_batch=self.second_batch,
        )
        self.check_size(world_size)
        if loader.n_batches == 0:
            raise UserError(
                "trainer.limit_train_batches=0: nothing would be trained. Use 1 or more."
            )
        return loader

    def batches_per_epoch(self, trainer: L.Trainer) -> int:
        """Batches of one process in an epoch."""
        available = len(self.train.x) // trainer.world_size // self.batch_size
        limit = trainer.limit_train_batches
        return min(available, limit) if isinstance(limit, int) else available

    def check_size(self, world_size: int) -> None:
        """Raises UserError if a process has no full batch."""
        if len(self.train.x) // world_size < self.batch_size:
            raise UserError(
                f"batch_size={self.batch_size}: {self.dataset.name} has {len(self.train.x)} "
                f"training images for {world_size} process(es). Choose a smaller batch."
            )

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Returns the batch, which is on the device already."""
        return batch
