"""A table of metrics by one protocol, the same in training and afterwards.

Generated images are rounded to bytes first, as images in files are; latents are a function of the
protocol's seed; the generator is in evaluation mode. So the same weights give the same figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganmnist.errors import UserError
from ganmnist.metrics.base import Eye, Metric, Real, Seen
from ganmnist.metrics.class_kl import frequencies
from ganmnist.metrics.extractor import Extractor, classifier_path
from ganmnist.metrics.fid import frechet_distance
from ganmnist.metrics.prdc import coverage
from ganmnist.passes import at_rest
from ganmnist.rng import generator_for

if TYPE_CHECKING:
    from ganmnist.data import DataModule, DataSet
    from ganmnist.gan import GAN


# The real images of the last evaluator, for the next job of a sweep.
LOOKED_AT: dict[tuple[Any, ...], Real] = {}


class Evaluator:
    """Measures images against a data set.

    Attributes:
        monitors: figures of `validate` that are the lower the better, to choose the best weights.

    Args:
        table: the metrics of the full table; without any, nothing is measured during training.
        n: generated images of the full table, and training images that `fid_floor` compares.
        val_n: images of `val_fid`, generated as well as real.
        seed: keys the latents.
        classifier: weights to use instead of those that belong to the data.
    """

    monitors: tuple[str, ...] = ("val_fid",)

    def __init__(
        self,
        table: Mapping[str, Metric],
        n: int = 10_000,
        val_n: int = 2_000,
        seed: int = 0,
        classifier: str | None = None,
    ) -> None:
        self.table = dict(table)
        for name, value, fewest in (("val_n", val_n, 2), ("n", n, 2)):
            if value < fewest:
                raise UserError(f"metrics.{name}={value}: to compare them takes {fewest} or more.")
        self.n = n
        self.val_n = val_n
        self.seed = seed
        self.classifier = classifier
        self.check(n)

    def check(self, n: int) -> None:
        """Raises UserError where a metric cannot be had of n generated images."""
        for name, metric in self.table.items():
            if n < metric.at_least:
                raise UserError(
                    f"{n} generated images are too few for metrics.table.{name}, which takes "
                    f"{metric.at_least} or more: raise n."
                )

    def prepare(self, data: DataModule, device: torch.device | str = "cpu") -> None:
        """Takes a data set that has been set up for what is real.

        Raises:
            UserError: no classifier fits it.
        """
        assert data.train is not None
        assert data.test is not None
        self.extractor = self.eye_for(data.dataset, device)
        n = max(self.n, 2 * self.val_n)  # so that val_fid has images to spare for its floor
        size = data.image_size
        known = (self.extractor.sha256, str(device), data.dataset.name, data.dataset.checksum)
        if (key := (*known, data.shape, n, size)) not in LOOKED_AT:
            LOOKED_AT.clear()
            LOOKED_AT[key] = Real(self.extractor, data.dataset, data.train, data.test, n, size)
        self.real = LOOKED_AT[key]
        self.size = size or data.shape[-1]
        self.data = data.dataset.name

    def eye_for(self, dataset: DataSet, device: torch.device | str) -> Eye:
        """What looks at the images."""
        path = Path(self.classifier) if self.classifier else classifier_path(dataset)
        return Extractor(path, dataset, device)

    def key(self, metric: str) -> str:
        """A metric's key: on other data than MNIST it carries their name."""
        return key_of(metric, self.data)

    @property
    def protocol(self) -> dict[str, Any]:
        """What the figures depend on besides the weights."""
        return {
            "data": self.data,
            "image_size": self.size,
            "n": self.n,
            "val_n": self.val_n,
            "seed": self.seed,
            "classifier": self.extractor.sha256,
        }

    def draw(self, gan: GAN, n: int, ema: bool = False) -> Tensor:
        """Generated images (n, C, H, W) uint8, always the same from the same weights."""
        return gan.draw(n, generator_for("evaluation", self.seed), ema)

    def validate(self, images: Tensor) -> dict[str, float]:
        """Figures of images against `val_n` training images, for all that is chosen by figures.

        `val_fid`; `val_coverage`, the share of those training images that a generated one is near
        to; `val_class_entropy`, in nats: ln 10 = 2.3 where all digits are drawn alike, 0 for one.
        """
        seen = self.extractor(images)
        real = self.real.validation.features[: self.val_n]
        p = frequencies(seen.classes, seen.logits.shape[-1])
        k = min(5, len(real) - 1)
        return {
            self.key("val_fid"): frechet_distance(seen.features, real),
            self.key("val_coverage"): coverage(real, seen.features, k),
            self.key("val_class_entropy"): -torch.xlogy(p, p).sum().item(),
        }

    @property
    def floors(self) -> dict[str, float]:
        """What real images get in validation."""
        return {"val_fid_floor": self.val_fid_floor}

    @cached_property
    def val_fid_floor(self) -> float:
        """What `val_fid` would be of training images, `val_n` others than it compares with.

        NaN where the data have not as many.
        """
        features = self.real.validation.features
        compared, others = features[: self.val_n], features[self.val_n : 2 * self.val_n]
        return frechet_distance(others, compared) if len(others) == self.val_n else math.nan

    def measure(
        self, seen: Seen, track: Callable[[Iterable[Metric]], Iterable[Metric]] = iter
    ) -> dict[str, float]:
        """The full table; `track` may watch its metrics go by."""
        figures: dict[str, float] = {}
        for metric in track(self.table.values()):
            figures |= metric(seen, self.real)
        return {self.key(name): value for name, value in figures.items()}

    def measure_family(self, gan: GAN, data: DataModule) -> dict[str, float]:
        """What the GAN's family measures of itself, in evaluation mode."""
        with at_rest(gan):
            figures = gan.figures(partial(data.batches, device=gan.device))
        return {self.key(name): value for name, value in figures.items()}


def key_of(metric: str, data: str) -> str:
    """A metric's key: on other data than MNIST it carries their name."""
    return metric if data == "MNIST" else f"{data.lower()}_{metric}"
