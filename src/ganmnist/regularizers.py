"""Penalties: what is added to the objective's losses, one small class each.

With D's logit at an image and its gradient there,

    R1                  E |grad D(x)|^2 / 2           at real images
    R2                  E |grad D(G(z))|^2 / 2        at generated ones
    gradient penalty    E (|grad D(y)| - 1)^2         at y between a real and a generated image
    DRAGAN              E (|grad D(y)| - 1)^2         at y around real images

each times its weight. The gradient is with respect to the inputs of D: in a BiGAN, the norm is over
image and latent together, and y lies between two pairs; in an adversarial autoencoder it is over
the latent alone. What a sample is conditioned on takes no gradient. Where D packs several images
into one logit, the gradient is the pack's; where batch norm makes a logit depend on the other
images, R1 and R2 take the gradient of all logits' sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganmnist.duel import Clock, Duel, Player, Sample, Term
from ganmnist.schedules import Value, at, checked, checked_number

if TYPE_CHECKING:
    from ganmnist.networks.base import Discriminator


INPUTS = ("x", "z")  # of D; y is what they are conditioned on


class Penalty(Term):
    """weight times something that D's loss is charged for.

    Args:
        weight: a number, or a schedule over the run.
        every: D's updates from one charge to the next, which is `every` times as heavy (lazy
            regularisation: Karras et al., 2020, arXiv 1912.04958).
    """

    on_real = False  # differentiates with respect to the real side
    on_fake = False  # differentiates with respect to the fake side
    # Slopes of slopes of slopes could be taken where there is no batch norm, but the graph grows
    # with every step by a factor.
    of_any_d = False

    def __init__(self, weight: Value, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every={every} is no number of updates: choose 1 or more")
        self.weight = checked(f"the weight of {type(self).__name__}", weight)
        self.every = every
        self.tick(Clock())

    def tick(self, clock: Clock) -> None:
        self.due = clock.turn % self.every == 0
        self.needs_real_grad = self.due and self.on_real
        self.needs_fake_grad = self.due and self.on_fake
        self.strength = self.every * at(self.weight, clock.progress)

    def d_loss(self, duel: Duel) -> Tensor | None:
        return self.strength * self.penalty(duel) if self.due else None

    def penalty(self, duel: Duel) -> Tensor:
        """A scalar, before it is weighted."""
        raise NotImplementedError


def inputs_of(discriminator: Discriminator, sample: Sample) -> dict[str, Tensor]:
    """The fields of a sample that are inputs of a discriminator: images x, latents z, or both."""
    fields = {name: getattr(sample, name) for name in INPUTS if name in discriminator.sees}
    return {name: value for name, value in fields.items() if value is not None}


def gradients(logits: Tensor, fields: Mapping[str, Tensor]) -> list[Tensor]:
    """The gradient of the sum of logits (P,) with respect to each of the fields."""
    grads = torch.autograd.grad(logits.sum(), [*fields.values()], create_graph=True)
    return [grad.float() for grad in grads]


def mean_square(duel: Duel, logits: Tensor, sample: Sample) -> Tensor:
    """The mean over logits (P,) of the squared norm of the gradient of each."""
    squares = (g.square().sum() for g in gradients(logits, inputs_of(duel.discriminator, sample)))
    return sum(squares, torch.zeros((), device=logits.device)) / len(logits)


class R1(Penalty):
    """gamma / 2 E|grad D(x)|^2 at real images (Mescheder et al., 2018, arXiv 1801.04406)."""

    on_real = True

    def __init__(self, gamma: Value, every: int = 1) -> None:
        super().__init__(gamma, every)

    def penalty(self, duel: Duel) -> Tensor:
        return mean_square(duel, duel.real_logits, duel.real) / 2


class R2(Penalty):
    """gamma / 2 E|grad D(G(z))|^2 at generated images (Mescheder et al., arXiv 1801.04406)."""

    on_fake = True

    def __init__(self, gamma: Value, every: int = 1) -> None:
        super().__init__(gamma, every)

    def penalty(self, duel: Duel) -> Tensor:
        return mean_square(duel, duel.fake_logits, duel.fake) / 2


class GradientPenalty(Penalty):
    """E(|grad D(y)| - 1)^2 at y = t x + (1 - t) G(z), t uniform (WGAN-GP, arXiv 1704.00028)."""

    bounds_slope = True
    discriminator_norm = "layer"

    def __init__(self, weight: Value = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        if any(isinstance(module, _BatchNorm) for module in discriminator.modules()):
            raise ValueError(
                f"{type(self).__name__} bounds D's slope at each image by itself, but batch norm "
                "makes D's answer depend on the whole batch: choose model.discriminator.norm=layer "
                "or none, or a model without it, such as mlp, resnet or r3gan"
            )
        if discriminator.levels > 1:
            raise ValueError(
                f"{type(self).__name__} bounds the slope of one logit, and this family's D has "
                f"{discriminator.levels} for an image: choose penalty=r1, and an objective without "
                "such a bound"
            )

    def penalty(self, duel: Duel) -> Tensor:
        real, fake = (inputs_of(duel.discriminator, side) for side in (duel.real, duel.fake))
        points = {k: v.detach().requires_grad_() for k, v in self.points(real, fake).items()}
        logits = duel.discriminator(duel.real._replace(**points)).float()
        rows = [grad.reshape(len(logits), -1) for grad in gradients(logits, points)]
        return (torch.cat(rows, 1).norm(dim=1) - 1).square().mean()

    def points(self, real: dict[str, Tensor], fake: dict[str, Tensor]) -> dict[str, Tensor]:
        """Where the gradient is taken, of the inputs (B, ...) of both sides."""
        t = uniform(next(iter(real.values())))
        return {name: lerp(fake[name], real[name], t) for name in real}


class Dragan(GradientPenalty):
    """E(|grad D(y)| - 1)^2 around real images (DRAGAN: Kodali et al., 2017, arXiv 1705.07215).

    As in the authors' program, y = x + t u std(x) / 2 with t and u uniform, t one number an image
    and u one a pixel; the paper writes normal noise. The gradient is the logit's.
    """

    def points(self, real: dict[str, Tensor], fake: dict[str, Tensor]) -> dict[str, Tensor]:
        t = uniform(next(iter(real.values())))
        return {name: lerp(x, x + torch.rand_like(x) * x.std() / 2, t) for name, x in real.items()}


def uniform(x: Tensor) -> Tensor:
    """(B,) numbers between 0 and 1."""
    return torch.rand(len(x), device=x.device)


def lerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """start + t (end - start), with one t (B,) for each of (B, ...)."""
    return torch.lerp(start, end, t.view(-1, *[1] * (start.dim() - 1)))


class FeatureMatching(Term):
    """G matches the mean of D's features (Salimans et al., 2016, arXiv 1606.03498).

    weight |E phi(x) - E phi(G(z))|^2
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        checked_number("the weight of FeatureMatching", weight)
        self.weight = weight

    def g_loss(self, duel: Duel) -> Tensor:
        gap = duel.real_features.float().mean(0) - duel.fake_features.float().mean(0)
        return self.weight * gap.square().sum()


class HistoricalAverage(Term):
    """Both players stay near the mean of their past (Salimans et al., 2016, arXiv 1606.03498).

    weight |w - mean of w until now|^2, summed over a player's weights.
    """

    of_any_d = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        checked_number("the weight of HistoricalAverage", weight)
        self.weight = weight
        self.turn = 0

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        networks = {"d": discriminator, "g": generator}
        # Not as modules: they are the GAN's own.
        self.now: dict[str, list[Tensor]] = {
            player: [*network.parameters()] for player, network in networks.items()
        }
        past = {player: deepcopy(network) for player, network in networks.items()}
        self.past = nn.ModuleDict(past).requires_grad_(False)

    def after_initialization(self, discriminator: Discriminator) -> None:
        for player, now in self.now.items():
            for past, w in zip(self.past[player].parameters(), now, strict=True):
                past.copy_(w.detach())

    def tick(self, clock: Clock) -> None:
        self.turn = clock.turn

    def d_loss(self, duel: Duel) -> Tensor:
        return self.distance("d")

    def g_loss(self, duel: Duel) -> Tensor:
        return self.distance("g")

    def distance(self, player: Player) -> Tensor:
        pairs = zip(self.now[player], self.past[player].parameters(), strict=True)
        return self.weight * torch.stack([(now - past).square().sum() for now, past in pairs]).sum()

    @torch.no_grad()
    def after_d_update(self, discriminator: Discriminator) -> None:
        for player, now in self.now.items():
            past: list[Tensor] = [*self.past[player].parameters()]
            torch._foreach_lerp_(past, now, 1 / (self.turn + 1))
