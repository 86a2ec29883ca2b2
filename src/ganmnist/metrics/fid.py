"""Frechet distance between two sets of features, each modeled as a Gaussian N(m, C)

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

(Heusel et al., 2017, arXiv 1706.08500). As usual, the squared distance is reported. The features
are those of the MNIST classifier: the values do not compare with an FID on Inception's features.
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from ganmnist.metrics.base import FeatureBatch, Metric, ReferenceSet
from ganmnist.metrics.identity import Identity


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The squared distance of features (N, F) and (M, F), float64, N and M at least 2."""
    # torchmetrics sums in the type of the features. In float32 the fifth digit differs.
    fid = FrechetInceptionDistance(Identity(a.shape[1]), sync_on_compute=False).to(a.device)
    fid.update(a, real=False)
    fid.update(b, real=True)
    return max(fid.compute().item(), 0.0)  # rounding may make it slightly negative


class FID(Metric):
    """`fid` against the test images: lower is better.

    Real images have `fid_floor`, the same for as many training images. It is 0.13 on MNIST with
    10,000 images.
    """

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        train = real.validation.features[: len(fake.features)]
        return {
            "fid": frechet_distance(fake.features, real.test.features),
            "fid_floor": frechet_distance(train, real.test.features),
        }
