"""Precision and recall, density and coverage, by balls around samples.

With B(x) the ball around x that reaches its k-th nearest neighbour in x's own set, X real, Y
generated, N and M their numbers:

    precision = |{y : y in some B(x)}| / M        recall   = |{x : x in some B(y)}| / N
    density   = sum_y |{x : y in B(x)}| / (k M)   coverage = |{x : some y in B(x)}| / N

Precision and recall: Kynkaanniemi et al. (2019, arXiv 1904.06991). Density and coverage, which one
outlier with a huge ball cannot spoil: Naeem et al. (2020, arXiv 2002.09797).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ganmnist.errors import UserError
from ganmnist.metrics.base import Metric, Real, Seen
from ganmnist.metrics.neighbours import BLOCK, blocks, radii


def coverage(x: Tensor, y: Tensor, k: int) -> float:
    """The share of real features (N, F) whose ball holds one of the generated ones (M, F)."""
    parts = zip(blocks(x, y), radii(x, k).split(BLOCK), strict=True)
    covered = [(distances <= radius[:, None]).any(1) for distances, radius in parts]
    return torch.cat(covered).double().mean().item()


class PRDC(Metric):
    """`precision`, `recall`, `density` and `coverage` against the test images.

    Raises:
        UserError: `k` is no number of neighbours that an image can have.
    """

    def __init__(self, k: int = 5) -> None:
        if k < 1:
            raise UserError(f"k={k} is no number of neighbours: use 1 or more.")
        self.k = k
        self.at_least = k + 1

    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        x, y = real.test.features, fake.features
        if self.k >= min(len(x), len(y)):
            raise UserError(
                f"k={self.k} neighbours take more images than {len(y)} generated and {len(x)} real "
                "ones: lower metrics.table.prdc.k, or give more images."
            )
        x_radii, y_radii = radii(x, self.k), radii(y, self.k)
        in_x = torch.zeros(len(y), dtype=torch.long, device=y.device)  # balls B(x) that hold y
        recalled, covered = [], []
        for distances, radius in zip(blocks(x, y), x_radii.split(BLOCK), strict=True):
            held = distances <= radius[:, None]
            in_x += held.sum(0)
            covered.append(held.any(1))
            recalled.append((distances <= y_radii).any(1))
        return {
            "precision": (in_x > 0).double().mean().item(),
            "recall": torch.cat(recalled).double().mean().item(),
            "density": (in_x.double().mean() / self.k).item(),
            "coverage": torch.cat(covered).double().mean().item(),
        }
