"""What a loss sees: real against fake in front of one discriminator.

A `Sample` is one draw, an image with whatever belongs to it. A `Duel` holds a real and a fake
sample for the length of one update and asks the discriminator about them only when a loss wants
to know: the non-saturating generator loss never runs D on real images, a relativistic one does,
and a penalty reuses the logits that the loss before it already has. A `Term` turns a duel into a
scalar; objectives, penalties and auxiliary heads are all terms.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ganmnist.networks.base import Discriminator

Player = Literal["d", "g"]
Part = Literal["train", "test"]  # of a data set
PARTS: tuple[Part, ...] = ("train", "test")


class Clock(NamedTuple):
    """When an update happens."""

    turn: int = 0  # updates of D, this one included
    progress: float = 0.0  # of the run, from 0 to 1


class Sample(NamedTuple):
    """One draw of a batch. Slots that a family does not use stay None."""

    x: Tensor | None = None  # images (B, C, H, W) in [-1, 1]
    y: Tensor | None = None  # what the sample is conditioned on: labels (B,), or an image
    z: Tensor | None = None  # latents (B, Z)

    def detach(self, grad: bool = False) -> Sample:
        """The same values, cut from the graph that made them; grad: x and z take a gradient."""
        cut = Sample(*(slot if slot is None else slot.detach() for slot in self))
        for slot in (cut.x, cut.z):
            if grad and slot is not None:
                slot.requires_grad_()
        return cut


class Duel:
    """A real and a fake sample before the discriminator, alive for one update.

    Features (B, F) and logits (B,) are computed on first use and kept. Logits are at least
    float32, also under autocast, because every objective exponentiates them. Packing may make
    the logits fewer than the images, so a term takes means and counts nothing.

    at_once: one pass for both sides, where the discriminator judges images singly and a loss
        needs both anyway.
    """

    def __init__(
        self, discriminator: Discriminator, real: Sample, fake: Sample, at_once: bool = False
    ) -> None:
        self.discriminator = discriminator
        self.real = real
        self.fake = fake
        self.at_once = at_once
        self.parts: dict[str, Tensor] = {}

    @cached_property
    def real_features(self) -> Tensor:
        return self.both[0] if self.at_once else self.discriminator.features(self.real)

    @cached_property
    def fake_features(self) -> Tensor:
        return self.both[1] if self.at_once else self.discriminator.features(self.fake)

    @cached_property
    def real_logits(self) -> Tensor:
        return at_least_float32(self.discriminator.score(self.real_features, self.real))

    @cached_property
    def fake_logits(self) -> Tensor:
        return at_least_float32(self.discriminator.score(self.fake_features, self.fake))

    @cached_property
    def both(self) -> tuple[Tensor, ...]:
        """Features of the real and of the fake side, of one pass."""
        slots = zip(self.real, self.fake, strict=True)
        sample = Sample(*(None if a is None or b is None else torch.cat([a, b]) for a, b in slots))
        return self.discriminator.features(sample).chunk(2)

    def part(self, name: str, value: Tensor) -> Tensor:
        """Passes a summand of a loss through and notes it, to be logged under its name."""
        self.parts[name] = value
        return value

    def outputs(self, probability: bool) -> dict[str, Tensor]:
        """D's mean answers to the sides that some loss has looked at: D(x) and D(G(z)).

        As `real_prob` and `fake_prob` where sigmoid(logit) is a probability, else the logits.
        """
        seen = {side: vars(self).get(f"{side}_logits") for side in ("real", "fake")}
        logits = {side: value.detach() for side, value in seen.items() if value is not None}
        if probability:
            return {f"{side}_prob": value.sigmoid().mean() for side, value in logits.items()}
        return {f"{side}_logit": value.mean() for side, value in logits.items()}


def columns(rows: Iterable[tuple[Any, ...]]) -> list[Tensor]:
    """What batches (B, ...) have of several things, a tensor (N, ...) for each of these."""
    return [torch.cat(column) for column in zip(*rows, strict=True)]


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Term(nn.Module):
    """A summand of the players' losses: an objective, a penalty, an auxiliary head.

    A subclass overrides the losses it takes part in; both return a scalar. A term may own
    parameters: those of player "d" are trained on the discriminator's update and held fixed on
    the generator's, those of player "g" are trained by the generator's optimiser.
    """

    player: Player = "d"
    needs_real_grad = False  # d_loss differentiates with respect to real.x or real.z
    needs_fake_grad = False  # d_loss differentiates with respect to fake.x or fake.z
    bounds_slope = False  # holds D's slope near or under a number; one of a kind in a GAN
    discriminator_norm: str | None = None  # what model.discriminator.norm=auto has to be
    of_any_d = True  # d_loss is a function of the duel's D, which may be one to come (unrolled.py)

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        """Called once with the networks of the game.

        Raises:
            ValueError: the term makes no sense with them; says why, and what to do.
        """

    def after_initialization(self, discriminator: Discriminator) -> None:
        """Called once data has set parameters, which is after `setup`, in a new training."""

    def tick(self, clock: Clock) -> None:
        """Called before each update of D. Anything in a discriminator may have this too."""

    def d_loss(self, duel: Duel) -> Tensor | None:
        """The discriminator's loss; both samples are detached. None: takes no part."""
        return None

    def g_loss(self, duel: Duel) -> Tensor | None:
        """The generator's loss, through a discriminator held fixed. None: takes no part."""
        return None

    def after_d_update(self, discriminator: Discriminator) -> None:
        """Called once D has moved, for what acts on weights, such as clipping."""
