"""Kernel distance against its definition."""

import pytest
import torch
from helpers.features import feature_batch, normal, reference_set

from ganmnist.metrics import KID
from ganmnist.utils.rng import generator_for


def kernel(x: list[float], y: list[float]) -> float:
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def mmd2(x: list[list[float]], y: list[list[float]]) -> float:
    """The unbiased estimator: no sample is compared with itself."""

    def within(z: list[list[float]]) -> float:
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
        return sum(kernel(z[i], z[j]) for i, j in pairs) / len(pairs)

    across = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * across


def test_kid_is_the_unbiased_squared_mmd() -> None:
    x, y = normal(12, 4), normal(12, 4) + 0.5
    kid = KID(subsets=3, subset_size=12)(feature_batch(x), reference_set(test=feature_batch(y)))
    torch.testing.assert_close(kid, {"kid": mmd2(x.tolist(), y.tolist())})


def test_kid_is_the_mean_over_random_subsets() -> None:
    x, y = normal(15, 4), normal(12, 4) + 0.5
    kid = KID(subsets=3, subset_size=5)(feature_batch(x), reference_set(test=feature_batch(y)))
    rng, values = generator_for("kid"), []
    for _ in range(3):
        real, fake = (z[torch.randperm(len(z), generator=rng)[:5]].tolist() for z in (y, x))
        values.append(mmd2(fake, real))
    torch.testing.assert_close(kid, {"kid": sum(values) / 3})


@pytest.mark.parametrize(("generated", "test"), [(30, 8), (8, 30), (8, 8)])
def test_a_subset_has_at_most_all_images(generated: int, test: int) -> None:
    """Here it has 8. The larger set repeats one image, so all its subsets are equal."""
    x = normal(8, 4) if generated == 8 else normal(1, 4).expand(generated, 4)
    y = normal(8, 4) if test == 8 else normal(1, 4).expand(test, 4)
    kid = KID(subsets=2, subset_size=1000)(feature_batch(x), reference_set(test=feature_batch(y)))
    torch.testing.assert_close(kid, {"kid": mmd2(x[:8].tolist(), y[:8].tolist())})
