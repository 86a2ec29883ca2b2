"""Penalties: what is added to the objective's losses, one small class each.

With D's logit at an image and its gradient there,

    R1                  E |grad D(x)|^2 / 2           at real images
    R2                  E |grad D(G(z))|^2 / 2        at generated ones
    gradient penalty    E (|grad D(y)| - 1)^2         at y between a real and a generated image
    DRAGAN              E (|grad D(y)| - 1)^2         at y around real images

each times its weight. Where D packs several images into one logit, the slope is the pack's; where
batch norm makes a logit depend on the other images, R1 and R2 take the slope of all logits' sum.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganmnist.duel import Clock, Duel, Player, Term
from ganmnist.schedules import Value, at, checked, checked_number

if TYPE_CHECKING:
    from ganmnist.networks.base import Discriminator


class Penalty(Term):
    """weight times something that D's loss is charged for.

    Args:
        weight: a number, or a schedule over the run.
        every: D's updates from one charge to the next, which is `every` times as heavy (lazy
            regularisation: Karras et al., 2020, arXiv 1912.04958).
    """

    on_real = False  # differentiates with respect to real.x
    on_fake = False  # differentiates with respect to fake.x
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

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        if "x" not in discriminator.sees:
            raise ValueError(
                f"{type(self).__name__} bounds D's slope at images, and this D sees latents alone: "
                "choose penalty=none, and an objective that has none"
            )

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


def gradient(logits: Tensor, x: Tensor) -> Tensor:
    """(B, C, H, W) gradients of logits (P,) with respect to the images they answer to."""
    (grad,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return grad.float()


def mean_square(logits: Tensor, x: Tensor) -> Tensor:
    """The mean over logits (P,) of the squared gradient of each."""
    return gradient(logits, x).square().sum() / len(logits)


class R1(Penalty):
    """gamma / 2 E|grad D(x)|^2 at real images (Mescheder et al., 2018, arXiv 1801.04406)."""

    on_real = True

    def __init__(self, gamma: Value, every: int = 1) -> None:
        super().__init__(gamma, every)

    def penalty(self, duel: Duel) -> Tensor:
        assert duel.real.x is not None
        return mean_square(duel.real_logits, duel.real.x) / 2


class R2(Penalty):
    """gamma / 2 E|grad D(G(z))|^2 at generated images (Mescheder et al., arXiv 1801.04406)."""

    on_fake = True

    def __init__(self, gamma: Value, every: int = 1) -> None:
        super().__init__(gamma, every)

    def penalty(self, duel: Duel) -> Tensor:
        assert duel.fake.x is not None
        return mean_square(duel.fake_logits, duel.fake.x) / 2


class GradientPenalty(Penalty):
    """E(|grad D(y)| - 1)^2 at y = t x + (1 - t) G(z), t uniform (WGAN-GP, arXiv 1704.00028)."""

    bounds_slope = True

    def __init__(self, weight: Value = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        super().setup(generator, discriminator)
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
        y = self.points(duel).detach().requires_grad_()
        logits = duel.discriminator(duel.real._replace(x=y)).float()
        slopes = gradient(logits, y).reshape(len(logits), -1)  # a row a logit, of a pack as well
        return (slopes.norm(dim=1) - 1).square().mean()

    def points(self, duel: Duel) -> Tensor:
        """Where the slope is taken, (B, C, H, W)."""
        assert duel.real.x is not None
        assert duel.fake.x is not None
        t = uniform_per_image(duel.real.x)
        return t * duel.real.x + (1 - t) * duel.fake.x


class Dragan(GradientPenalty):
    """E(|grad D(y)| - 1)^2 around real images (DRAGAN: Kodali et al., 2017, arXiv 1705.07215).

    As in the authors' program, y = x + t u std(x) / 2 with t and u uniform, t one number an image
    and u one a pixel; the paper writes normal noise. The slope is the logit's.
    """

    def points(self, duel: Duel) -> Tensor:
        x = duel.real.x
        assert x is not None
        return x + uniform_per_image(x) * torch.rand_like(x) * x.std() / 2


def uniform_per_image(x: Tensor) -> Tensor:
    """(B, 1, 1, 1) numbers between 0 and 1."""
    return torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device)


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
