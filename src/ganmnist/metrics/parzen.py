"""Log-likelihood by Parzen windows (Goodfellow et al., 2014, arXiv 1406.2661)

    log p(x) = log mean_y N(x; y, s^2 1)

y are generated images and x test images, with pixels in [0, 1]. s is the width with the highest
likelihood of training images. This metric is for comparison with published numbers. It prefers
blurred means to digits, and real digits do not have the highest value (Theis et al., 2015, arXiv
1511.01844). The published numbers choose s from ten values; a finer grid gives up to 2 nats more on
real images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ganmnist.metrics.base import FeatureBatch, Metric, ReferenceSet
from ganmnist.utils.neighbors import blocks

# The grid of the authors' code, and one with 40 values per decade, which leaves s within 0.65
# nats of the best.
GRIDS = {
    "parzen": torch.logspace(-1, 0, 10, dtype=torch.float64),
    "parzen_fine": torch.logspace(-1.5, 0, 61, dtype=torch.float64),
}


class Parzen(Metric):
    """`parzen` in nats: higher is better. `parzen_error` is its standard error, `parzen_sigma` s.

    `parzen_fine`, `parzen_fine_error` and `parzen_fine_sigma` are those of the finer grid. 10,000
    of MNIST's training images have 243.3 +- 2.1 (fine: 244.9 +- 1.9). Blurred images may have more.

    Args:
        n_validation: training images whose likelihood chooses s.
    """

    def __init__(self, n_validation: int = 1000) -> None:
        if n_validation < 1:
            raise ValueError(f"metrics.table.parzen.n_validation={n_validation}: choose 1 or more")
        self.n_validation = n_validation

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        y = pixels(fake.images)
        validation = pixels(real.validation.images[: self.n_validation])
        squares = torch.cdist(validation, y).square()
        sigmas = {name: best_sigma(grid, squares, y.shape[1]) for name, grid in GRIDS.items()}
        test = pixels(real.test.images)
        nats: dict[str, list[Tensor]] = {name: [] for name in GRIDS}
        for block in blocks(test, y):
            squares = block.square()
            for name, sigma in sigmas.items():
                nats[name].append(log_p(squares, y.shape[1], sigma))
        values = {}
        for name, sigma in sigmas.items():
            likelihoods = torch.cat(nats[name])
            values[name] = likelihoods.mean().item()
            values[f"{name}_error"] = (likelihoods.std() / len(likelihoods) ** 0.5).item()
            values[f"{name}_sigma"] = sigma.item()
        return values


def best_sigma(grid: Tensor, squares: Tensor, dims: int) -> Tensor:
    """The s of a grid with the highest mean likelihood, for squared distances (N, M)."""
    return grid[torch.stack([log_p(squares, dims, s).mean() for s in grid]).argmax()]


def pixels(images: Tensor) -> Tensor:
    """Images (N, C, H, W) uint8 as rows (N, D) in [0, 1], on the CPU, as the real images are."""
    return images.cpu().flatten(1).double() / 255


def log_p(squares: Tensor, dims: int, sigma: Tensor) -> Tensor:
    """(N,) nats of squared distances (N, M) to the M means of Gaussians in `dims` dimensions."""
    volume = dims / 2 * torch.log(2 * math.pi * sigma**2)
    return torch.logsumexp(-squares / (2 * sigma**2), 1) - math.log(squares.shape[1]) - volume
