"""Kernel distance: the squared maximum mean discrepancy between features under the kernel

    k(x, y) = (x.y / F + 1)^3

(Binkowski et al., 2018, arXiv 1801.01401), unbiased, so that it may be a little below 0; the mean
over random subsets.
"""

from __future__ import annotations

import warnings

import torch
from torchmetrics.image.kid import KernelInceptionDistance

from ganmnist.metrics.base import Metric, Real, Seen
from ganmnist.metrics.identity import Identity
from ganmnist.rng import seed_for


class KID(Metric):
    """`kid` against the test images, of `subsets` subsets of `subset_size` images.

    Where there are fewer images, a subset is all of them.
    """

    def __init__(self, subsets: int = 100, subset_size: int = 1000) -> None:
        self.subsets = subsets
        self.subset_size = subset_size

    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        a, b = fake.features, real.test.features
        size = min(self.subset_size, len(a), len(b))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*will save all extracted features in buffer")
            kid = KernelInceptionDistance(
                Identity(a.shape[1]),
                subsets=self.subsets,
                subset_size=size,
                sync_on_compute=False,
            )
        kid.update(a, real=False)
        kid.update(b, real=True)
        with torch.random.fork_rng(devices=[]):  # subsets come from the global generator
            torch.default_generator.manual_seed(seed_for("kid"))
            mean, _ = kid.compute()
        return {"kid": mean.item()}
