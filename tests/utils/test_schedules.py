"""Schedules."""

import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from helpers.gan import fit, small_gan

from ganmnist.losses.base import NetworkName
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.utils.schedules import (
    Beta2,
    Cosine,
    Exponential,
    LearningRate,
    Linear,
    Momentum,
    Schedule,
    at,
)


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_schedule_goes_from_start_to_end_and_stays_there(kind: type[Schedule]) -> None:
    schedule = kind(start=3.0, end=-1.0, until=0.4)
    assert schedule(0.0) == 3
    assert schedule(0.2) == pytest.approx(1)
    assert schedule(0.4) == schedule(0.7) == schedule(1.0) == -1


@pytest.mark.parametrize("t", [0.1, 0.25, 0.9])
def test_schedule_is_the_formula(t: float) -> None:
    assert Linear(2.0, 6.0)(t) == pytest.approx(2 + 4 * t)
    assert Cosine(2.0, 6.0)(t) == pytest.approx(4 - 2 * math.cos(math.pi * t))
    assert Exponential(2.0, 6.0)(t) == pytest.approx(2 * 3**t)


@pytest.mark.parametrize("kind", [Linear, Cosine, Exponential])
def test_schedule_is_constant_before_begin(kind: type[Schedule]) -> None:
    late, full = kind(4.0, 1.0, begin=0.5, until=0.9), kind(4.0, 1.0)
    assert late(0.0) == late(0.5) == 4
    assert late(0.6) == pytest.approx(full(0.25))
    assert late(0.9) == late(1.0) == 1
    with pytest.raises(ValueError, match=r"begin=0\.9"):
        kind(4.0, 1.0, begin=0.9, until=0.9)


def test_exponential_refuses_zero() -> None:
    with pytest.raises(ValueError, match="end=0"):
        Exponential(1.0, 0.0)


def test_value_is_a_number_or_a_schedule() -> None:
    assert at(0.3, 0.0) == at(0.3, 1.0) == 0.3
    assert at(Linear(1.0, 0.0), 0.25) == 0.75


@pytest.mark.parametrize("until", [0.0, -0.1, 1.5])
def test_until_is_a_fraction_of_the_run(until: float) -> None:
    with pytest.raises(ValueError, match=f"until={until}"):
        Linear(1.0, 0.0, until=until)


def test_training_updates_both_optimizers() -> None:
    """Four batches: the fraction of the run is 1/4 in the first and 1 in the last."""
    schedules = {"lr": LearningRate(Linear(1.0, 0.0)), "beta2": Beta2(Linear(0.9, 0.99))}
    gan = small_gan(schedules=schedules)
    settings = []
    minimize = gan.minimize

    def recorded(network: NetworkName, outputs: Sequence[DiscriminatorOutputs]) -> None:
        [group] = gan.optimizer_of(network).param_groups
        settings.append((group["lr"], *group["betas"]))
        minimize(network, outputs)

    gan.minimize = recorded
    fit(gan, batches=2, epochs=2)
    expected = [
        (1e-2 * (1 - t), 0.5, 0.9 + 0.09 * t) for t in (0.25, 0.5, 0.75, 1.0) for _ in range(2)
    ]
    torch.testing.assert_close(settings, expected)


def test_momentum_of_sgd_follows_its_schedule() -> None:
    sgd = partial(torch.optim.SGD, lr=1e-2)
    schedules = {"momentum": Momentum(Linear(0.5, 0.7))}
    gan = small_gan(schedules=schedules, optimizers={"d": sgd, "g": sgd})
    fit(gan, batches=2)
    for optimizer in gan.optimizers():
        assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.7)


def test_schedule_that_does_not_fit_the_optimizer_is_refused() -> None:
    sgd = partial(torch.optim.SGD, lr=1e-2)
    with pytest.raises(ValueError, match="SGD's momentum"):
        small_gan(schedules={"it": Momentum(Linear(0.5, 0.7))}).configure_optimizers()
    with pytest.raises(ValueError, match="Adam's beta2"):
        small_gan(
            schedules={"it": Beta2(Linear(0.9, 0.99))}, optimizers={"d": sgd, "g": sgd}
        ).configure_optimizers()
