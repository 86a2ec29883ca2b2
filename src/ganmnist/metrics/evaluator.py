"""Metrics of generated images by one protocol, the same in training and afterwards.

Generated images are rounded to bytes, as images in files are. Latents are a function of the
protocol's seed. The generator is in evaluation mode. The same weights give the same values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganmnist.data import DataModule, DataSet
from ganmnist.metrics.base import FeatureBatch, FeatureExtractor, Metric, ReferenceSet
from ganmnist.metrics.class_kl import frequencies
from ganmnist.metrics.extractor import ClassifierFeatures, classifier_path
from ganmnist.metrics.fid import frechet_distance
from ganmnist.metrics.prdc import coverage
from ganmnist.utils.errors import UserError
from ganmnist.utils.modules import eval_no_grad
from ganmnist.utils.rng import generator_for

if TYPE_CHECKING:
    from ganmnist.gan import GAN


class ReferenceCache:
    """The reference set of the last evaluator, for the next job of a sweep."""

    def __init__(self) -> None:
        self.entry: tuple[Any, ReferenceSet] | None = None

    def get(self, key: Any, build: Callable[[], ReferenceSet]) -> ReferenceSet:
        if self.entry is None or self.entry[0] != key:
            self.entry = None  # frees its memory first
            self.entry = (key, build())
        return self.entry[1]


class Evaluator:
    """Measures generated images against a data set.

    Attributes:
        monitors: the metrics of `validate` that may choose the best weights; lower is better.

    Args:
        table: the metrics of the full table. If it is empty, nothing is measured.
        main: the metric that chooses best.ckpt.
        n: generated images of the full table, and training images of `fid_floor`.
        val_n: images of `val_fid`, generated and real.
        seed: seed of the latents.
        classifier: a file of weights; None: the classifier of the data set.
    """

    monitors: tuple[str, ...] = ("val_fid",)
    references = ReferenceCache()

    def __init__(
        self,
        table: Mapping[str, Metric],
        main: str = "val_fid",
        n: int = 10_000,
        val_n: int = 2_000,
        seed: int = 0,
        classifier: str | Path | None = None,
    ) -> None:
        for name, metric in table.items():
            if not isinstance(metric, Metric):
                raise ValueError(f"metrics.table.{name} is a {type(metric).__name__}, not a metric")
        self.table = dict(table)
        self.main = main
        for name, value in (("val_n", val_n), ("n", n)):
            if value < 2:
                raise UserError(f"metrics.{name}={value}: choose 2 or more.")
        self.n = n
        self.val_n = val_n
        self.seed = seed
        self.classifier = classifier
        self.check(n)

    def check(self, n: int) -> None:
        """Raises UserError if a metric needs more than n generated images."""
        for name, metric in self.table.items():
            if n < metric.min_images:
                raise UserError(
                    f"n={n} generated images: metrics.table.{name} needs at least "
                    f"{metric.min_images}. Use more."
                )

    def prepare(self, data: DataModule, device: torch.device | str = "cpu") -> None:
        """Makes a loaded data set the reference.

        Raises:
            UserError: there is no classifier for it.
        """
        dataset = data.dataset
        self.extractor = self.build_extractor(dataset, device)
        n = max(self.n, 2 * self.val_n)  # val_fid_floor compares val_n images with val_n others
        size = dataset.image_size
        key = (self.extractor.sha256, str(device), dataset.name, dataset.checksum, data.shape)
        build = partial(ReferenceSet, self.extractor, dataset, data.train, data.test, n, size)
        self.real = self.references.get((*key, n, size), build)
        self.size = size or data.shape[-1]
        self.data = dataset.name

    def build_extractor(self, dataset: DataSet, device: torch.device | str) -> FeatureExtractor:
        path = Path(self.classifier) if self.classifier else classifier_path(dataset)
        return ClassifierFeatures(path, dataset, device)

    def key(self, metric: str) -> str:
        """The key of a metric's value (see `key_of`)."""
        return key_of(metric, self.data)

    @property
    def protocol(self) -> dict[str, Any]:
        """The settings that determine the values for given weights."""
        return {
            "data": self.data,
            "image_size": self.size,
            "n": self.n,
            "val_n": self.val_n,
            "seed": self.seed,
            "classifier": self.extractor.sha256,
        }

    def sample(self, gan: GAN, n: int, ema: bool = False) -> Tensor:
        """Generated images (n, C, H, W) uint8; a function of the weights and of `seed`."""
        return gan.sampler.uint8(n, generator_for("evaluation", self.seed), ema)

    def validate(self, images: Tensor) -> dict[str, float]:
        """Metrics during training, of images (N, C, H, W), against `val_n` training images.

        `val_fid`: lower is better; real images have `val_fid_floor`. `val_coverage`: the share of
        those training images with a generated neighbor; higher is better, at most 1.
        `val_class_entropy` of the predicted classes, in nats: ln 10 = 2.3 if all ten are equally
        frequent, 0 for one class.
        """
        fake = self.extractor(images)
        real = self.real.validation.features[: self.val_n]
        p = frequencies(fake.predicted_classes, fake.logits.shape[-1])
        k = min(5, len(real) - 1)
        return {
            self.key("val_fid"): frechet_distance(fake.features, real),
            self.key("val_coverage"): coverage(real, fake.features, k),
            self.key("val_class_entropy"): -torch.xlogy(p, p).sum().item(),
        }

    @property
    def floors(self) -> dict[str, float]:
        """The values of real images in validation."""
        return {"val_fid_floor": self.val_fid_floor}

    @cached_property
    def val_fid_floor(self) -> float:
        """`val_fid` of `val_n` other training images; NaN if there are not as many."""
        features = self.real.validation.features
        compared, others = features[: self.val_n], features[self.val_n : 2 * self.val_n]
        return frechet_distance(others, compared) if len(others) == self.val_n else math.nan

    def measure(
        self, fake: FeatureBatch, track: Callable[[Iterable[Metric]], Iterable[Metric]] = iter
    ) -> dict[str, float]:
        """The full table. `track` wraps the iteration over its metrics, for a progress bar."""
        values: dict[str, float] = {}
        for metric in track(self.table.values()):
            values |= metric(fake, self.real)
        return {self.key(name): value for name, value in values.items()}

    def measure_extra(self, gan: GAN, data: DataModule) -> dict[str, float]:
        """The metrics of the GAN's family, in evaluation mode."""
        with eval_no_grad(gan):
            values = gan.extra_metrics(partial(data.batches, device=gan.device))
        return {self.key(name): value for name, value in values.items()}


def key_of(metric: str, data: str) -> str:
    """The key of a metric's value: `fid` for MNIST, `digits_fid` for the digits."""
    return metric if data == "MNIST" else f"{data.lower()}_{metric}"
