"""Values that change over a run, as functions of its progress t from 0 to 1:

    linear       v(t) = a + (b - a) s
    cosine       v(t) = b + (a - b) (1 + cos(pi s)) / 2         (arXiv 1608.03983)
    exponential  v(t) = a (b / a)^s

where s rises from 0 at t = begin to 1 at t = until, and stays there. What takes a `Value` takes a
plain number as well.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any


class Schedule(ABC):
    """From `start` to `end`, between the fractions `begin` and `until` of the run.

    Raises:
        ValueError: not 0 <= begin < until <= 1.
    """

    def __init__(self, start: float, end: float, until: float = 1.0, begin: float = 0.0) -> None:
        if not 0 < until <= 1:
            raise ValueError(f"until={until} is no part of a run: choose one above 0, at most 1")
        if not 0 <= begin < until:
            raise ValueError(f"begin={begin}: choose a part of the run from 0 to below {until}")
        self.start = start
        self.end = end
        self.begin = begin
        self.until = until

    def __call__(self, progress: float) -> float:
        return self.between(min(max(progress - self.begin, 0) / (self.until - self.begin), 1.0))

    @abstractmethod
    def between(self, s: float) -> float:
        """The value at s from 0, where it is `start`, to 1, where it is `end`."""


class Linear(Schedule):
    """The same step every batch."""

    def between(self, s: float) -> float:
        return self.start + (self.end - self.start) * s


class Cosine(Schedule):
    """Half a wave: slow at both ends."""

    def between(self, s: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * s)) / 2


class Exponential(Schedule):
    """The same factor every batch.

    Raises:
        ValueError: an end is not above 0.
    """

    def __init__(self, start: float, end: float, until: float = 1.0, begin: float = 0.0) -> None:
        super().__init__(start, end, until, begin)
        if min(start, end) <= 0:
            raise ValueError(f"start={start} and end={end} of a factor: choose numbers above 0")

    def between(self, s: float) -> float:
        return self.start * (self.end / self.start) ** s


Value = float | Schedule


def checked_number(what: str, value: float) -> float:
    """The same for what stays as it is over the run."""
    if isinstance(value, Schedule):
        raise ValueError(f"{what} is a schedule: choose a number of at least 0")
    checked(what, value)
    return value


def checked(what: str, value: Value, below: float = math.inf) -> Value:
    """The value, which is a number from 0 to `below` at any time of the run.

    Raises:
        ValueError: it is not.
    """
    ends = [value.start, value.end] if isinstance(value, Schedule) else [value]
    for end in ends:
        if isinstance(end, bool) or not isinstance(end, int | float) or not 0 <= end < below:
            most = f" and below {below:g}" if below < math.inf else ""
            raise ValueError(f"{what} is {end}: choose a number of at least 0{most}")
    return value


def at(value: Value, progress: float) -> float:
    """What a number or a schedule is at a moment of the run."""
    return value(progress) if isinstance(value, Schedule) else value


class LearningRate:
    """Multiplies the learning rate that an optimiser began with."""

    def __init__(self, factor: Schedule) -> None:
        checked("the factor of the learning rate", factor)
        self.factor = factor

    def __call__(self, group: dict[str, Any], progress: float) -> None:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * self.factor(progress)


class Beta2:
    """Sets Adam's second beta, as R3GAN does (Huang et al., 2024, arXiv 2501.05441)."""

    def __init__(self, value: Schedule) -> None:
        checked("Adam's beta2", value, below=1)
        self.value = value

    def __call__(self, group: dict[str, Any], progress: float) -> None:
        if "betas" not in group:
            raise ValueError("this schedule is of Adam's beta2, which the optimiser does not have")
        group["betas"] = (group["betas"][0], self.value(progress))


class Momentum:
    """Sets the momentum of SGD (Goodfellow et al., 2014: from 0.5 to 0.7)."""

    def __init__(self, value: Schedule) -> None:
        checked("the momentum", value, below=1)
        self.value = value

    def __call__(self, group: dict[str, Any], progress: float) -> None:
        if "momentum" not in group:
            raise ValueError("this schedule sets SGD's momentum, and the optimizer has none")
        group["momentum"] = self.value(progress)
