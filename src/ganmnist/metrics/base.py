"""Inputs of a metric: generated images with their features, and the real reference set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from ganmnist.data import DataSet, Images
from ganmnist.utils.batch import Split
from ganmnist.utils.neighbors import nearest


class FeatureBatch(NamedTuple):
    """Images with their features and logits, which are float64 for exact sums."""

    images: Tensor  # (N, C, H, W) uint8
    features: Tensor  # (N, F)
    logits: Tensor  # (N, K, 10), for the K digits of an image
    labels: Tensor | None = None  # (N,), the conditions of a conditional generator

    def first(self, n: int) -> FeatureBatch:
        """The first n images."""
        labels = None if self.labels is None else self.labels[:n]
        return FeatureBatch(self.images[:n], self.features[:n], self.logits[:n], labels)

    @property
    def predicted_classes(self) -> Tensor:
        """(N, K) classes of the digits."""
        return self.logits.argmax(-1)

    @property
    def predicted_labels(self) -> Tensor:
        """(N,) labels of the images: sum_k 10^k predicted_classes[:, k]."""
        _, digits, classes = self.logits.shape
        place = classes ** torch.arange(digits, device=self.logits.device)
        return (self.predicted_classes * place).sum(1)


class FeatureExtractor(Protocol):
    """Maps images (N, C, H, W) to features and logits."""

    @property
    def sha256(self) -> str | None:
        """The checksum of its weights; None if it has no weights."""

    def __call__(self, images: Tensor, /) -> FeatureBatch: ...


class ReferenceSet:
    """Features of the real images. Each property is computed once, on first use.

    Args:
        extractor: computes the features.
        dataset: selects the samples of a split.
        train, test: its splits.
        n: size of `validation`, and of `test` for a stacked data set.
        size: size of the generated images. Real images are resized to it as well, and lose the same
            detail. None: no resizing.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        dataset: DataSet,
        train: Images,
        test: Images,
        n: int,
        size: int | None = None,
    ) -> None:
        self.extractor = extractor
        self.dataset = dataset
        self.size = size
        self.splits: dict[Split, Images] = {"train": train, "test": test}
        self.n = n
        # Test accuracies of classifiers trained on real images, by (images, epochs). GANTrain
        # fills them.
        self.accuracies: dict[tuple[int, int], float] = {}

    def features_of_split(self, split: Split, min_images: int) -> FeatureBatch:
        """Features of all images of a split, or of `min_images` samples if these are more."""
        images = self.splits[split]
        n = max(min_images, len(images.x))
        return self.features_of(self.dataset.fixed_subset(images, n))

    def features_of(self, images: Tensor) -> FeatureBatch:
        """Features of real images (N, C, H, W)."""
        return self.extractor(self.resize(images))

    def resize(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) at the size of the generated ones."""
        if self.size in (None, images.shape[-1]):
            return images
        side, batches = [self.size, self.size], images.split(1000)
        return torch.cat([transforms.resize(x, side, antialias=True) for x in batches])

    @cached_property
    def test(self) -> FeatureBatch:
        """All test images; n samples of a stacked data set."""
        return self.features_of_split("test", self.n)

    @cached_property
    def train(self) -> FeatureBatch:
        """All training images."""
        return self.features_of_split("train", 0)

    @cached_property
    def validation(self) -> FeatureBatch:
        """n of the training images, always the same."""
        return self.features_of(self.dataset.fixed_subset(self.splits["train"], self.n))

    @cached_property
    def test_to_train(self) -> Tensor:
        """(N,) distances of the test images to their nearest training images."""
        return nearest(self.test.features, self.train.features)[0]


class Metric(ABC):
    """Measures generated images against real ones.

    A metric may return several scalars, for example precision and recall.
    """

    min_images = 2  # smallest number of generated images

    @abstractmethod
    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        """Scalars by key."""
