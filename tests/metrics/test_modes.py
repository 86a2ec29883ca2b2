"""Modes of Stacked MNIST against closed forms."""

import math

import torch
from helpers.features import predicting, reference_set

from ganmnist.metrics import FeatureBatch, Modes


def triples(*numbers: int) -> FeatureBatch:
    """Stacked digits; the first channel is the hundreds of a number."""
    return predicting([[n // 100, n // 10 % 10, n % 10] for n in numbers])


def test_all_triples() -> None:
    for times in (1, 2):
        fake = triples(*torch.randperm(1000).repeat(times).tolist())
        values = Modes()(fake, reference_set(test=triples(7)))
        assert (values["modes"], values["mode_kl"]) == (1000, 0)


def test_one_triple() -> None:
    values = Modes()(triples(*[321] * 5), reference_set(test=triples(7)))
    torch.testing.assert_close(
        values,
        {
            "modes": 1.0,
            "mode_kl": math.log(1000),
            "real_modes": 1.0,
            "real_mode_kl": math.log(1000),
        },
    )


def test_the_order_of_the_digits_matters() -> None:
    """Frequencies 1/2, 1/4, 1/4: the KL from uniform is ln 1000 minus the entropy."""
    values = Modes()(
        triples(*(1, 10, 100, 1) * 2), reference_set(test=triples(123, 321, 213, 123, 231, 312))
    )
    assert (values["modes"], values["real_modes"]) == (3, 5)
    torch.testing.assert_close(values["mode_kl"], math.log(1000) - 1.5 * math.log(2))
    entropy = 4 / 6 * math.log(6) + 2 / 6 * math.log(3)
    torch.testing.assert_close(values["real_mode_kl"], math.log(1000) - entropy)


def test_single_digits_have_ten_modes() -> None:
    fake, test = predicting([4] * 30), predicting(torch.arange(30) % 10)
    torch.testing.assert_close(
        Modes()(fake, reference_set(test=test)),
        {"modes": 1.0, "mode_kl": math.log(10), "real_modes": 10.0, "real_mode_kl": 0.0},
    )


def test_real_modes_are_counted_among_as_many_images() -> None:
    values = Modes()(triples(1, 2, 3), reference_set(test=triples(*range(1000))))
    assert (values["modes"], values["real_modes"]) == (3, 3)
    assert values["mode_kl"] == values["real_mode_kl"]
