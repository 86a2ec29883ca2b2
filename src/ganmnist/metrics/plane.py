"""Metrics of points in the plane. Their modes are known and need no classifier.

`modes` and `high_quality` follow VEEGAN (Srivastava et al., 2017, arXiv 1705.07761) and PacGAN (Lin
et al., 2017, arXiv 1712.04086): a point is of high quality within three standard deviations of a
center, and a mode is captured if it has such a point. One number for both is

    jsd = KL(p || m) / 2 + KL(q || m) / 2,    m = (p + q) / 2,   in nats

p are the shares of the high-quality points of each mode and the share of all other points. q is
uniform over the modes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ganmnist.data import DataSet, Mixture
from ganmnist.metrics.base import FeatureBatch, FeatureExtractor, Metric, ReferenceSet
from ganmnist.metrics.class_kl import kl_divergence
from ganmnist.metrics.evaluator import Evaluator
from ganmnist.utils.errors import UserError
from ganmnist.utils.rng import generator_for

if TYPE_CHECKING:
    from ganmnist.gan import GAN

HIGH_QUALITY = 3.0  # standard deviations


class PointFeatures:
    """Points to features and logits. The features are the coordinates of the points.

    The logits are the log-densities of the Gaussians up to a constant, -(r / std)^2 / 2.
    """

    sha256 = None  # there are no weights

    def __init__(self, dataset: Mixture) -> None:
        self.dataset = dataset

    def __call__(self, images: Tensor) -> FeatureBatch:
        """Features of points (N, 2, 1, 1) in [-1, 1]."""
        points = images.flatten(1).cpu().double() / self.dataset.scale
        r = torch.cdist(points, self.dataset.centers.double())
        return FeatureBatch(images, points, -(r / self.dataset.std).square()[:, None] / 2)


class ModesCaptured(Metric):
    """`modes` and `high_quality`: higher is better. `jsd`: lower is better, from 0 to ln 2 = 0.69.

    Real points have `real_modes` (all), `real_high_quality` (0.989) and `real_jsd` (about 0.004).
    """

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        of_real = count_modes(real.test).items()
        return count_modes(fake) | {f"real_{name}": value for name, value in of_real}


def count_modes(batch: FeatureBatch) -> dict[str, float]:
    """`modes`, `high_quality` and `jsd` of points."""
    n = batch.logits.shape[-1]
    density, mode = batch.logits[:, 0].max(1)
    high_quality = density >= -(HIGH_QUALITY**2) / 2
    # The last share is that of the points of low quality.
    p = torch.bincount(mode.where(high_quality, n), minlength=n + 1).double() / len(mode)
    q = torch.full_like(p, 1 / n)
    q[n] = 0
    middle = (p + q) / 2
    return {
        "modes": float((p[:n] > 0).sum()),
        "high_quality": high_quality.double().mean().item(),
        "jsd": (kl_divergence(p, middle) + kl_divergence(q, middle)) / 2,
    }


class PlaneEvaluator(Evaluator):
    """Evaluator of points. They are not rounded to bytes.

    Validation is `modes`, `high_quality` and `jsd` of `val_n` generated points.
    """

    monitors = ("jsd",)

    def build_extractor(self, dataset: DataSet, device: torch.device | str) -> FeatureExtractor:
        if not isinstance(dataset, Mixture):
            raise UserError(
                f"metrics=plane: {dataset.name} has images, not points. Use metrics=default, or "
                "data=ring8 or data=grid25."
            )
        return PointFeatures(dataset)

    def sample(self, gan: GAN, n: int, ema: bool = False) -> Tensor:
        """Generated points (n, 2, 1, 1) float32; a function of the weights and of `seed`."""
        return gan.sample(*gan.sampler.prior(n, generator_for("evaluation", self.seed)), ema=ema)

    def validate(self, images: Tensor) -> dict[str, float]:
        """`modes`, `high_quality` and `jsd` of points."""
        values = count_modes(self.extractor(images))
        return {self.key(name): value for name, value in values.items()}

    @property
    def floors(self) -> dict[str, float]:
        """None. The table has the values of real points."""
        return {}
