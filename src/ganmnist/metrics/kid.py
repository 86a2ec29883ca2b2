"""Kernel Inception distance: the squared maximum mean discrepancy of features under the kernel

    k(x, y) = (x.y / F + 1)^3

(Binkowski et al., 2018, arXiv 1801.01401), averaged over random subsets. The estimator is unbiased.
Its values may be slightly negative.
"""

from __future__ import annotations

import warnings

import torch
from torchmetrics.image.kid import KernelInceptionDistance

from ganmnist.metrics.base import FeatureBatch, Metric, ReferenceSet
from ganmnist.metrics.identity import Identity
from ganmnist.utils.rng import seed_for


class KID(Metric):
    """`kid` against the test images: lower is better. MNIST's training images have 0.003.

    Args:
        subsets: number of random subsets.
        subset_size: images of a subset; at most all generated and all test images.
    """

    def __init__(self, subsets: int = 100, subset_size: int = 1000) -> None:
        self.subsets = subsets
        self.subset_size = subset_size

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
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
        with torch.random.fork_rng(devices=[]):  # torchmetrics uses the global generator
            torch.default_generator.manual_seed(seed_for("kid"))
            mean, _ = kid.compute()
        return {"kid": mean.item()}
