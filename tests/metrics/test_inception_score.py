"""Inception score against closed forms."""

import math

import pytest
import torch
from helpers.features import certain_logits, feature_batch, normal, reference_set
from torch import Tensor

from ganmnist.metrics import InceptionScore
from ganmnist.utils.rng import generator_for


def subsets(n: int) -> tuple[Tensor, ...]:
    """The indices of n images in each of the ten subsets."""
    return torch.randperm(n, generator=generator_for("inception score")).chunk(10)


def inception_score(logits: Tensor) -> float:
    (score,) = InceptionScore()(feature_batch(logits=logits), reference_set()).values()
    return score


def test_certain_and_equally_frequent_classes_have_10() -> None:
    classes = torch.empty(200, dtype=torch.long)
    for subset in subsets(200):
        classes[subset] = torch.arange(20) % 10
    torch.testing.assert_close(inception_score(certain_logits(classes)), 10.0)


def test_identical_images_have_1() -> None:
    for row in (normal(1, 1, 10), certain_logits([3]), torch.zeros(1, 1, 10, dtype=torch.float64)):
        torch.testing.assert_close(inception_score(row.expand(50, 1, 10)), 1.0)


@pytest.mark.parametrize("zero_logit", [-1e4, -math.inf])
def test_two_classes(zero_logit: float) -> None:
    """(p, 1-p) and (1-p, p) equally often: KL = ln 2 - H(p), whose exp is 2 p^p (1-p)^(1-p)."""
    p = 0.8
    logits = torch.full((200, 1, 10), zero_logit, dtype=torch.float64)
    for subset in subsets(200):
        first, second = subset.chunk(2)
        logits[first, 0, :2] = torch.tensor([p, 1 - p], dtype=torch.float64).log()
        logits[second, 0, :2] = torch.tensor([1 - p, p], dtype=torch.float64).log()
    expected = 2 * p**p * (1 - p) ** (1 - p)
    torch.testing.assert_close(inception_score(logits), expected)


@pytest.mark.parametrize(("n", "digits"), [(100, 1), (101, 1), (3, 1), (40, 3)])
def test_the_score_is_the_mean_over_ten_subsets(n: int, digits: int) -> None:
    logits = 3 * normal(n, digits, 10)
    p = logits.flatten(0, 1).softmax(1)
    scores = []
    for subset in subsets(n * digits):
        rows, marginal = p[subset].tolist(), p[subset].mean(0).tolist()
        kl = [sum(a * math.log(a / b) for a, b in zip(r, marginal, strict=True)) for r in rows]
        scores.append(math.exp(sum(kl) / len(kl)))
    torch.testing.assert_close(inception_score(logits), sum(scores) / len(scores))
