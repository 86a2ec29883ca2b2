"""Precision, recall, density and coverage, by balls around samples.

B(x) is the ball around x whose radius is the distance to the k-th nearest neighbor of x in the set
of x. X are N real samples and Y are M generated ones:

    precision = |{y : y in some B(x)}| / M        recall   = |{x : x in some B(y)}| / N
    density   = sum_y |{x : y in B(x)}| / (k M)   coverage = |{x : some y in B(x)}| / N

Precision and recall: Kynkaanniemi et al. (2019, arXiv 1904.06991). Density and coverage, which are
robust to outliers with large balls: Naeem et al. (2020, arXiv 2002.09797).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ganmnist.metrics.base import FeatureBatch, Metric, ReferenceSet
from ganmnist.utils.errors import UserError
from ganmnist.utils.neighbors import BLOCK, blocks, radii


def coverage(x: Tensor, y: Tensor, k: int) -> float:
    """The share of real features (N, F) whose ball holds a generated one (M, F)."""
    pairs = zip(blocks(x, y), radii(x, k).split(BLOCK), strict=True)
    covered = [(distances <= radius[:, None]).any(1) for distances, radius in pairs]
    return torch.cat(covered).double().mean().item()


class PRDC(Metric):
    """`precision`, `recall`, `density` and `coverage` against the test images: higher is better.

    MNIST's training images have 0.93, 0.93, 0.92 and 0.95 with k = 5 and 10,000 images. Density may
    exceed 1; the others do not.

    Args:
        k: number of the neighbor whose distance is the radius.

    Raises:
        UserError: k is below 1, or there are not more than k images.
    """

    def __init__(self, k: int = 5) -> None:
        if k < 1:
            raise UserError(f"metrics.table.prdc.k={k}: choose 1 or more.")
        self.k = k
        self.min_images = k + 1

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        x, y = real.test.features, fake.features
        if self.k >= min(len(x), len(y)):
            raise UserError(
                f"metrics.table.prdc.k={self.k}: more than {self.k} images are necessary; there "
                f"are {len(y)} generated and {len(x)} real ones. Choose a smaller k."
            )
        x_radii, y_radii = radii(x, self.k), radii(y, self.k)
        n_balls = torch.zeros(len(y), dtype=torch.long, device=y.device)  # balls B(x) around each y
        recalled, covered = [], []
        for distances, radius in zip(blocks(x, y), x_radii.split(BLOCK), strict=True):
            inside = distances <= radius[:, None]
            n_balls += inside.sum(0)
            covered.append(inside.any(1))
            recalled.append((distances <= y_radii).any(1))
        return {
            "precision": (n_balls > 0).double().mean().item(),
            "recall": torch.cat(recalled).double().mean().item(),
            "density": (n_balls.double().mean() / self.k).item(),
            "coverage": torch.cat(covered).double().mean().item(),
        }
