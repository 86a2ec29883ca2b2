"""Schedules: values that change over a run, as functions of the fraction t of it that is done.

    linear       v(t) = a + (b - a) s
    cosine       v(t) = b + (a - b) (1 + cos(pi s)) / 2         (arXiv 1608.03983)
    exponential  v(t) = a (b / a)^s

s is 0 until t = begin, rises linearly to 1 at t = until, and stays 1. A `Value` is a schedule or a
number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any, NamedTuple


class TrainingProgress(NamedTuple):
    """Progress of a training, passed to `before_d_step`."""

    d_iteration: int = 0  # number of the discriminator step, from 1
    fraction: float = 0.0  # of the batches of the run, from 0 to 1


class Schedule(ABC):
    """Goes from `start` to `end` between the fractions `begin` and `until` of the run.

    Raises:
        ValueError: not 0 <= begin < until <= 1.
    """

    def __init__(self, start: float, end: float, until: float = 1.0, begin: float = 0.0) -> None:
        name = type(self).__name__
        if not 0 < until <= 1:
            raise ValueError(f"{name}: until={until}: choose a fraction above 0, at most 1")
        if not 0 <= begin < until:
            raise ValueError(f"{name}: begin={begin}: choose 0 or more, and below until={until}")
        self.start = start
        self.end = end
        self.begin = begin
        self.until = until

    def __call__(self, fraction: float) -> float:
        """The value at a fraction of the run."""
        return self.value(min(max(fraction - self.begin, 0) / (self.until - self.begin), 1.0))

    @abstractmethod
    def value(self, s: float) -> float:
        """The value for s from 0 (`start`) to 1 (`end`)."""


class Linear(Schedule):
    """Changes by the same amount every batch."""

    def value(self, s: float) -> float:
        return self.start + (self.end - self.start) * s


class Cosine(Schedule):
    """Changes slowly at both ends."""

    def value(self, s: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * s)) / 2


class Exponential(Schedule):
    """Changes by the same factor every batch.

    Raises:
        ValueError: `start` or `end` is not above 0.
    """

    def __init__(self, start: float, end: float, until: float = 1.0, begin: float = 0.0) -> None:
        super().__init__(start, end, until, begin)
        if min(start, end) <= 0:
            raise ValueError(f"Exponential: start={start}, end={end}: choose numbers above 0")

    def value(self, s: float) -> float:
        return self.start * math.pow(self.end / self.start, s)


Value = float | Schedule


def at(value: Value, fraction: float) -> float:
    """A number, or a schedule's value at a fraction of the run."""
    return value(fraction) if isinstance(value, Schedule) else value


def check_value(name: str, value: Value, below: float = math.inf) -> Value:
    """Returns the value, if it is never negative.

    Args:
        name: of the setting, for the message.
        below: upper bound.

    Raises:
        ValueError: the value is not a number, or it is out of range.
    """
    ends = [value.start, value.end] if isinstance(value, Schedule) else [value]
    for end in ends:
        if isinstance(end, bool) or not isinstance(end, int | float) or not 0 <= end < below:
            upper = f", and below {below:g}" if below < math.inf else ""
            raise ValueError(f"{name}={end}: choose a number of 0 or more{upper}")
    return value


def check_number(name: str, value: float) -> float:
    """Returns the value, if it is not a schedule and not negative. Otherwise as `check_value`."""
    if isinstance(value, Schedule):
        raise ValueError(f"{name}: a schedule is not supported. Choose a number of 0 or more")
    check_value(name, value)
    return value


# Schedules of optimizer settings (conf/schedule/).

# Called with a parameter group and the finished fraction of the run.
OptimizerSchedule = Callable[[dict[str, Any], float], None]


def apply_schedules(
    schedules: Iterable[OptimizerSchedule], optimizers: Iterable[Any], fraction: float
) -> None:
    """Applies schedules to all parameter groups of optimizers.

    Raises:
        ValueError: a schedule does not fit an optimizer.
    """
    for schedule, optimizer in product(schedules, optimizers):
        for group in optimizer.param_groups:
            schedule(group, fraction)


class LearningRate:
    """Multiplies the initial learning rate by a factor."""

    def __init__(self, factor: Schedule) -> None:
        check_value("LearningRate: factor", factor)
        self.factor = factor

    def __call__(self, group: dict[str, Any], fraction: float) -> None:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * self.factor(fraction)


class Beta2:
    """Sets Adam's second beta, as R3GAN does (Huang et al., 2024, arXiv 2501.05441)."""

    def __init__(self, value: Schedule) -> None:
        check_value("Beta2: value", value, below=1)
        self.value = value

    def __call__(self, group: dict[str, Any], fraction: float) -> None:
        if "betas" not in group:
            raise ValueError("schedule: Adam's beta2 is not in this optimizer. Use optimizer=adam")
        group["betas"] = (group["betas"][0], self.value(fraction))


class Momentum:
    """Sets the momentum of SGD (Goodfellow et al., 2014: from 0.5 to 0.7)."""

    def __init__(self, value: Schedule) -> None:
        check_value("Momentum: value", value, below=1)
        self.value = value

    def __call__(self, group: dict[str, Any], fraction: float) -> None:
        if "momentum" not in group:
            raise ValueError("schedule: SGD's momentum is not in this optimizer. Use optimizer=sgd")
        group["momentum"] = self.value(fraction)
