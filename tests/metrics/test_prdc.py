"""Precision, recall, density and coverage against their definitions."""

import math

import pytest
import torch
from helpers.features import ODD, feature_batch, normal, on_line, reference_set
from torch import Tensor

from ganmnist.metrics import PRDC
from ganmnist.utils.errors import UserError


def prdc(x: Tensor, y: Tensor, k: int = 5) -> dict[str, float]:
    """The metrics of real features x and generated features y."""
    return PRDC(k)(feature_batch(y), reference_set(test=feature_batch(x)))


def balls(points: list[list[float]], k: int) -> list[tuple[list[float], float]]:
    """Each point with the distance to its k-th nearest neighbor."""
    others = [points[:i] + points[i + 1 :] for i in range(len(points))]
    return [
        (p, sorted(math.dist(p, q) for q in rest)[k - 1])
        for p, rest in zip(points, others, strict=True)
    ]


@pytest.mark.parametrize(("n", "m"), [(60, 47), (30, 61), (ODD, 80), (80, ODD)])
def test_values_follow_the_definition(n: int, m: int) -> None:
    k, x, y = 5, normal(n, 3), normal(m, 3) + 1
    real_balls, fake_balls = balls(x.tolist(), k), balls(y.tolist(), k)
    in_real = [[math.dist(c, p) <= r for p in y.tolist()] for c, r in real_balls]
    in_fake = [[math.dist(c, p) <= r for p in x.tolist()] for c, r in fake_balls]
    expected = {
        "precision": sum(map(any, zip(*in_real, strict=True))) / m,
        "recall": sum(map(any, zip(*in_fake, strict=True))) / n,
        "density": sum(map(sum, in_real)) / (k * m),
        "coverage": sum(map(any, in_real)) / n,
    }
    torch.testing.assert_close(prdc(x, y, k), expected)


def test_values_by_hand() -> None:
    """Real balls [-1, 1], [0, 2], [1, 5], [13, 15], [14, 16] hold 1, 2, 3, 0, 0 of 1, 2, 4, 10.

    Fake balls [0, 2], [1, 3], [2, 6], [4, 16] together hold all real ones.
    """
    values = prdc(on_line(0, 1, 3, 14, 15), on_line(1, 2, 4, 10), k=1)
    expected = {"precision": 3 / 4, "recall": 1.0, "density": 6 / 4, "coverage": 3 / 5}
    torch.testing.assert_close(values, expected)


def test_identical_sets() -> None:
    """Every ball holds its center and k others. No two distances are equal."""
    x = on_line(*(2.0**i for i in range(30)))
    expected = {"precision": 1.0, "recall": 1.0, "density": 3 / 2, "coverage": 1.0}
    torch.testing.assert_close(prdc(x, x, k=2), expected)
    x = normal(ODD, 8)
    values = prdc(x, x[torch.randperm(ODD)])
    assert (values["precision"], values["recall"], values["coverage"]) == (1, 1, 1)


def test_distant_sets_have_0() -> None:
    values = prdc(normal(40, 3), normal(30, 3) + 100)
    assert values == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_copies_of_one_image() -> None:
    """Their balls have radius 0 and hold no real image. They are inside real balls."""
    x = on_line(0, 1, 3, 7, 20)
    values = prdc(x, on_line(*[2] * 6), k=1)
    expected = {"precision": 1.0, "recall": 0.0, "density": 2.0, "coverage": 2 / 5}
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize(("n", "m"), [(5, 9), (9, 5), (1, 1)])
def test_more_images_than_neighbors_are_necessary(n: int, m: int) -> None:
    with pytest.raises(UserError, match=rf"prdc\.k=5.* {m} generated and {n} real"):
        prdc(normal(n, 3), normal(m, 3))


def test_all_other_images_as_neighbors() -> None:
    x, y = on_line(0, 1, 2), on_line(1, 2, 3)
    expected = {"precision": 1.0, "recall": 1.0, "density": 7 / 6, "coverage": 1.0}
    torch.testing.assert_close(prdc(x, y, k=2), expected)


def test_k_below_1_is_refused() -> None:
    with pytest.raises(UserError, match=r"prdc\.k=0"):
        PRDC(k=0)
