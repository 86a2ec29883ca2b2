"""Memorization against closed forms."""

import torch
from helpers.features import ODD, feature_batch, normal, on_line, reference_set
from torch import Tensor

from ganmnist.metrics import Memorization


def memorization(generated: Tensor, test: Tensor, train: Tensor) -> float:
    real = reference_set(test=feature_batch(test), train=feature_batch(train))
    (value,) = Memorization()(feature_batch(generated), real).values()
    return value


def test_copies_have_0() -> None:
    train = normal(ODD, 64)
    assert memorization(train[torch.randperm(ODD)[:300]], normal(100, 64), train) == 0


def test_the_test_images_have_1() -> None:
    test = normal(100, 64)
    assert memorization(test[torch.randperm(100)], test, normal(ODD, 64)) == 1


def test_medians_of_odd_and_even_numbers() -> None:
    """1 and 2 of three distances; 2.5 and 10 of two, the mean of both."""
    train = on_line(0, 100)
    odd = memorization(on_line(99, 0.5, -6), on_line(1, 102, -3), train)
    torch.testing.assert_close(odd, 1 / 2)
    even = memorization(on_line(1, 104), on_line(92, -12), train)
    torch.testing.assert_close(even, 2.5 / 10)
