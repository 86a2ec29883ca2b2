"""Frechet distance between two sets of features, each taken for a Gaussian N(m, C):

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

(Heusel et al., 2017, arXiv 1706.08500). Squared, as is the custom. On the features of another
network the numbers are other numbers: nothing here compares with an Inception FID.
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from ganmnist.metrics.base import Metric, Real, Seen
from ganmnist.metrics.identity import Identity


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The distance of features (N, F) from (M, F), both float64; symmetric, 0 for equal ones.

    N and M are 2 or more. torchmetrics sums in float64: in float32 the fifth digit is another.
    """
    fid = FrechetInceptionDistance(Identity(a.shape[1]), sync_on_compute=False).to(a.device)
    fid.update(a, real=False)
    fid.update(b, real=True)
    return max(fid.compute().item(), 0.0)  # rounding may leave it a hair below


class FID(Metric):
    """`fid` against the test images; `fid_floor`: as many training images against them."""

    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        as_many = real.validation.features[: len(fake.features)]
        return {
            "fid": frechet_distance(fake.features, real.test.features),
            "fid_floor": frechet_distance(as_many, real.test.features),
        }
