"""Nearest neighbors and radii against brute force."""

import math

import numpy as np
import pytest
import torch
from helpers.features import ODD, normal, on_line
from torch import Tensor

from ganmnist.utils.neighbors import BLOCK, nearest, radii


def distances(a: Tensor, b: Tensor) -> np.ndarray:
    return np.array([[math.dist(p, q) for q in b.tolist()] for p in a.tolist()])


@pytest.mark.parametrize(("n", "m"), [(ODD, 90), (90, ODD), (BLOCK, 1), (1, 3)])
def test_nearest_equals_brute_force(n: int, m: int) -> None:
    a, b = normal(n, 4), normal(m, 4)
    distance, index = nearest(a, b)
    expected = distances(a, b)
    assert index.tolist() == expected.argmin(1).tolist()
    torch.testing.assert_close(distance.numpy(), expected.min(1))


def test_the_distance_to_a_copy_is_exactly_0() -> None:
    b = 10 * normal(ODD, 64)
    b[7] = b[300]
    order = torch.randperm(ODD)
    distance, index = nearest(b[order], b)
    assert (distance == 0).all()
    assert torch.equal(b[index], b[order])


@pytest.mark.parametrize("n", [8, BLOCK, ODD])
def test_radii_equal_brute_force(n: int) -> None:
    a = normal(n, 4)
    expected = np.sort(distances(a, a), axis=1)
    for k in (1, 5):
        torch.testing.assert_close(radii(a, k).numpy(), expected[:, k])


def test_duplicates_count_as_neighbors() -> None:
    a = on_line(0, 0, 0, 4, 9)
    assert radii(a, 2).tolist() == [0, 0, 0, 4, 9]
    assert radii(a, 3).tolist() == [4, 4, 4, 4, 9]
    twice = torch.cat([torch.arange(ODD), torch.arange(ODD)]).double()[:, None]
    assert radii(twice, 1).tolist() == [0] * 2 * ODD
    assert radii(twice, 2).tolist() == [1] * 2 * ODD
