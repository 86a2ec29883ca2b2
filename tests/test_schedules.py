"""Schedules against their formulas."""

import math
from functools import partial

import pytest
import torch
from conftest import fit, small_gan

from ganmnist.schedules import (
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
def test_a_schedule_goes_from_its_start_to_its_end_and_stays(kind: type[Schedule]) -> None:
    schedule = kind(start=3.0, end=-1.0, until=0.4)
    assert schedule(0.0) == 3
    assert schedule(0.2) == pytest.approx(1)
    assert schedule(0.4) == schedule(0.7) == schedule(1.0) == -1


@pytest.mark.parametrize("t", [0.1, 0.25, 0.9])
def test_schedules_are_their_formulas(t: float) -> None:
    assert Linear(2.0, 6.0)(t) == pytest.approx(2 + 4 * t)
    assert Cosine(2.0, 6.0)(t) == pytest.approx(4 - 2 * math.cos(math.pi * t))
    assert Exponential(2.0, 6.0)(t) == pytest.approx(2 * 3**t)


@pytest.mark.parametrize("kind", [Linear, Cosine, Exponential])
def test_a_schedule_may_begin_late(kind: type[Schedule]) -> None:
    late, whole = kind(4.0, 1.0, begin=0.5, until=0.9), kind(4.0, 1.0)
    assert late(0.0) == late(0.5) == 4
    assert late(0.6) == pytest.approx(whole(0.25))
    assert late(0.9) == late(1.0) == 1
    with pytest.raises(ValueError, match=r"begin=0\.9"):
        kind(4.0, 1.0, begin=0.9, until=0.9)


def test_a_factor_has_no_zero() -> None:
    with pytest.raises(ValueError, match="end=0"):
        Exponential(1.0, 0.0)


def test_a_number_is_a_constant() -> None:
    assert at(0.3, 0.0) == at(0.3, 1.0) == 0.3
    assert at(Linear(1.0, 0.0), 0.25) == 0.75


@pytest.mark.parametrize("until", [0.0, -0.1, 1.5])
def test_until_is_a_part_of_the_run(until: float) -> None:
    with pytest.raises(ValueError, match=f"until={until}"):
        Linear(1.0, 0.0, until=until)


def test_both_optimisers_follow_their_schedules() -> None:
    """Four batches: the progress is 1/4 at the first and 1 at the last."""
    schedules = {"lr": LearningRate(Linear(1.0, 0.0)), "beta2": Beta2(Linear(0.9, 0.99))}
    gan = small_gan(schedules=schedules)
    seen = []
    update = gan.update

    def noted(player, duels) -> None:
        for optimizer in gan.optimizers():
            [group] = optimizer.param_groups
            seen.append((group["lr"], *group["betas"]))
        update(player, duels)

    gan.update = noted
    fit(gan, batches=2, epochs=2)
    expected = [
        (1e-2 * (1 - t), 0.5, 0.9 + 0.09 * t) for t in (0.25, 0.5, 0.75, 1.0) for _ in range(4)
    ]
    torch.testing.assert_close(seen, expected)


def test_momentum_of_sgd_follows_its_schedule() -> None:
    sgd = partial(torch.optim.SGD, lr=1e-2)
    schedules = {"momentum": Momentum(Linear(0.5, 0.7))}
    gan = small_gan(schedules=schedules, d_optimizer=sgd, g_optimizer=sgd)
    fit(gan, batches=2)
    for optimizer in gan.optimizers():
        assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.7)
    with pytest.raises(ValueError, match="SGD's momentum"):
        small_gan(schedules=schedules).configure_optimizers()
