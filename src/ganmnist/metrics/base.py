"""What a metric sees: images, and what the classifier makes of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from ganmnist.metrics.neighbours import nearest

if TYPE_CHECKING:
    from ganmnist.data import DataSet, Images


class Seen(NamedTuple):
    """Images as the classifier sees them. Features and logits are float64, for exact sums."""

    images: Tensor  # (N, C, H, W) uint8
    features: Tensor  # (N, F)
    logits: Tensor  # (N, K, 10), for the K digits that an image shows
    labels: Tensor | None = None  # (N,), what a conditional generator was asked for

    def first(self, n: int) -> Seen:
        """The first n images."""
        labels = None if self.labels is None else self.labels[:n]
        return Seen(self.images[:n], self.features[:n], self.logits[:n], labels)

    @property
    def classes(self) -> Tensor:
        """(N, K) predicted classes."""
        return self.logits.argmax(-1)

    @property
    def numbers(self) -> Tensor:
        """(N,) the predicted classes as one number, which the K digits spell, the ones first."""
        _, digits, classes = self.logits.shape
        place = classes ** torch.arange(digits, device=self.logits.device)
        return (self.classes * place).sum(1)


class Eye(Protocol):
    """Looks at images (N, C, H, W)."""

    @property
    def sha256(self) -> str | None:
        """The checksum of its weights; None where there are none."""

    def __call__(self, images: Tensor, /) -> Seen: ...


class Real:
    """The real images through the classifier; each part is looked at once, on first use.

    Args:
        extractor: the classifier, or what else looks at them.
        dataset: draws the images to look at.
        train, test: its parts.
        n: how many are compared with as many generated ones.
        size: of the generated images. The real ones go through it too, so that both have lost the
            same detail; None is their own.
    """

    def __init__(
        self,
        extractor: Eye,
        dataset: DataSet,
        train: Images,
        test: Images,
        n: int,
        size: int | None = None,
    ) -> None:
        self.extractor = extractor
        self.dataset = dataset
        self.size = size
        self.parts = {"train": train, "test": test}
        self.n = n
        # Of classifiers trained on real images, by (images, epochs): metrics note them here.
        self.accuracies: dict[tuple[int, int], float] = {}

    def look(self, part: str, at_least: int) -> Seen:
        images = self.parts[part]
        return self.see(self.dataset.still(images, max(at_least, len(images.x))))

    def see(self, images: Tensor) -> Seen:
        return self.extractor(self.resized(images))

    def resized(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) as large as generated ones."""
        if self.size in (None, images.shape[-1]):
            return images
        side, batches = [self.size, self.size], images.split(1000)
        return torch.cat([transforms.resize(x, side, antialias=True) for x in batches])

    @cached_property
    def test(self) -> Seen:
        """All test images; of a stacked data set, `n` samples."""
        return self.look("test", self.n)

    @cached_property
    def train(self) -> Seen:
        """All training images."""
        return self.look("train", 0)

    @cached_property
    def validation(self) -> Seen:
        """`n` of the training images, always the same."""
        return self.see(self.dataset.still(self.parts["train"], self.n))

    @cached_property
    def test_to_train(self) -> Tensor:
        """(N,) distances of the test images to their nearest training images."""
        return nearest(self.test.features, self.train.features)[0]


class Metric(ABC):
    """One protocol; it may give several scalars, such as precision and recall."""

    at_least = 2  # generated images that it needs

    @abstractmethod
    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        """Scalars by their keys."""
