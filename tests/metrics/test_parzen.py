"""Parzen log-likelihood against closed forms and brute force."""

import math

import pytest
import torch
from helpers.features import feature_batch, normal, reference_set
from torch import Tensor

from ganmnist.metrics import FeatureBatch, Parzen
from ganmnist.metrics.parzen import GRIDS


def gray(*levels: int, side: int = 2) -> FeatureBatch:
    """Images (N, 1, side, side), each of one gray level."""
    images = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1)
    return feature_batch(normal(len(levels), 1))._replace(images=images.expand(-1, 1, side, side))


def test_the_best_width_is_the_root_mean_square_distance() -> None:
    """All four pixels differ by 0.2 from the training images, and by 0.4 from the test images."""
    real = reference_set(validation=gray(151, 49), test=gray(202, 202))
    values = Parzen()(gray(100), real)
    (nearest,) = {s for s in GRIDS["parzen_fine"].tolist() if abs(math.log10(s / 0.2)) <= 1 / 80}
    for name, sigma in (("parzen", 10 ** (-6 / 9)), ("parzen_fine", nearest)):
        assert values[f"{name}_sigma"] == pytest.approx(sigma, rel=1e-12)
        expected = -4 * 0.4**2 / (2 * sigma**2) - 4 / 2 * math.log(2 * math.pi * sigma**2)
        torch.testing.assert_close(values[name], expected)
        assert values[f"{name}_error"] == 0.0


def test_the_coarse_grid_has_the_ten_values_of_the_authors() -> None:
    assert GRIDS["parzen"].tolist() == pytest.approx([10 ** (k / 9 - 1) for k in range(10)])


def test_the_density_is_a_mixture_over_all_generated_images() -> None:
    """By brute force. The two training images after the first ten do not choose the width."""
    x, y = torch.arange(0, 250, 25), torch.arange(3, 250, 10)
    real = reference_set(validation=gray(*x, 255, 255, side=1), test=gray(*x[:7], side=1))
    values = Parzen(n_validation=10)(gray(*y, side=1), real)

    def likelihoods(sigma: float, n: int) -> Tensor:
        window = torch.distributions.Normal(y.double() / 255, sigma)
        return window.log_prob(x[:n, None].double() / 255).exp().mean(1).log()

    expected = {}
    for name, grid in GRIDS.items():
        best = max(grid.tolist(), key=lambda s: likelihoods(s, 10).mean().item())
        nats = likelihoods(best, 7)
        expected |= {
            name: nats.mean().item(),
            f"{name}_error": nats.std().item() / math.sqrt(7),
            f"{name}_sigma": best,
        }
    assert values == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="n_validation=0"):
        Parzen(n_validation=0)
