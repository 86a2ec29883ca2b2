"""Figures of points in the plane, whose modes are known: nothing has to be learnt to see them.

`modes` and `high_quality` are counted as VEEGAN (Srivastava et al., 2017, arXiv 1705.07761) and
PacGAN (Lin et al., 2017, arXiv 1712.04086) do: a point is of high quality within three standard
deviations of a centre, and a mode is recovered with one such point. Both in one figure is

    jsd = KL(p || m) / 2 + KL(q || m) / 2,    m = (p + q) / 2,   in nats

with p the shares of high-quality points of each mode and of all other points, and q an equal share
of each mode: 0 at best, ln 2 = 0.69 where no point is of high quality. Of real points 98.9 % are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganmnist.data.plane import Mixture
from ganmnist.errors import UserError
from ganmnist.metrics.base import Metric, Real, Seen
from ganmnist.metrics.class_kl import kl_divergence
from ganmnist.metrics.evaluator import Evaluator
from ganmnist.rng import generator_for

if TYPE_CHECKING:
    from ganmnist.data import DataSet
    from ganmnist.gan import GAN

NEAR = 3.0  # standard deviations


class Eye:
    """Sees points as a classifier sees images: their features are the points themselves.

    Their logits are the log-densities of the Gaussians but for a constant, -(r / std)^2 / 2.
    """

    sha256 = None  # there are no weights

    def __init__(self, dataset: Mixture) -> None:
        self.dataset = dataset

    def __call__(self, images: Tensor) -> Seen:
        """Looks at points (N, 2, 1, 1) in [-1, 1]."""
        points = images.flatten(1).cpu().double() / self.dataset.scale
        r = torch.cdist(points, self.dataset.centres.double())
        return Seen(images, points, -(r / self.dataset.std).square()[:, None] / 2)


class Recovered(Metric):
    """`modes`, `high_quality` and `jsd`, with those of the real points beside them as `real_...`"""

    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        of_real = recovered(real.test).items()
        return recovered(fake) | {f"real_{name}": value for name, value in of_real}


def recovered(seen: Seen) -> dict[str, float]:
    """`modes`, `high_quality` and `jsd` of points."""
    n = seen.logits.shape[-1]
    density, mode = seen.logits[:, 0].max(1)
    near = density >= -(NEAR**2) / 2
    # One share more, the last, for the points that are near no centre.
    p = torch.bincount(mode.where(near, n), minlength=n + 1).double() / len(mode)
    q = torch.full_like(p, 1 / n)
    q[n] = 0
    middle = (p + q) / 2
    return {
        "modes": float((p[:n] > 0).sum()),
        "high_quality": near.double().mean().item(),
        "jsd": (kl_divergence(p, middle) + kl_divergence(q, middle)) / 2,
    }


class PlaneEvaluator(Evaluator):
    """Measures points: the same protocol, but that nothing is rounded to bytes.

    Validation is `Recovered`'s figures of `val_n` generated points.
    """

    monitors = ("jsd",)

    def eye_for(self, dataset: DataSet, device: torch.device | str) -> Eye:
        if not isinstance(dataset, Mixture):
            raise UserError(
                f"metrics=plane counts the modes of points, and {dataset.name} are images: leave "
                "it out, or choose data=ring8 or data=grid25."
            )
        return Eye(dataset)

    def draw(self, gan: GAN, n: int, ema: bool = False) -> Tensor:
        """Generated points (n, 2, 1, 1) float32, always the same from the same weights."""
        return gan.sample(*gan.prior(n, generator_for("evaluation", self.seed)), ema=ema)

    def validate(self, images: Tensor) -> dict[str, float]:
        """`modes`, `high_quality` and `jsd` of points."""
        figures = recovered(self.extractor(images))
        return {self.key(name): value for name, value in figures.items()}

    @property
    def floors(self) -> dict[str, Any]:
        """None: the table has its own."""
        return {}
