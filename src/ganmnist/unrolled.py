"""Unrolled GANs (Metz et al., 2016, arXiv 1611.02163): G answers to the D that is to come.

Before G moves, D takes k steps of plain gradient descent against the very images that G is about
to be judged by,

    w_0 = w,    w_(i+1) = w_i - lr dL_D(w_i, G) / dw_i,

and G descends L_G(w_k, G), also through the dependence of w_k on G: it feels how D would react.
D itself stays where it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ganmnist.duel import Duel, Sample
from ganmnist.gan import GAN
from ganmnist.networks.base import Discriminator
from ganmnist.regularizers import HistoricalAverage, Penalty
from ganmnist.schedules import checked_number


class Unrolled(GAN):
    """A GAN whose generator looks `unroll` steps of the discriminator ahead.

    Args:
        unroll: k.
        unroll_lr: step size of those steps.
        parts: those of every GAN.

    Raises:
        ValueError: the parts do not go together.
    """

    def __init__(self, unroll: int, unroll_lr: float, **parts: Any) -> None:
        super().__init__(**parts)
        if unroll < 0:
            raise ValueError(f"gan.unroll={unroll} is no number of steps: choose 0 or more")
        checked_number("gan.unroll_lr", unroll_lr)
        # Slopes could be differentiated three times over where there is no batch norm, but the
        # graph grows with every step by a factor. The average is of the weights that D has.
        strangers = Penalty | HistoricalAverage
        penalties = [name for name, term in self.terms.items() if isinstance(term, strangers)]
        if self.objective.bounds_slope:  # by clipping, which D does after each of its steps
            penalties.append("clipped weights")
        if unroll > 0 and penalties:
            raise ValueError(
                f"Unrolled steps cannot follow {' and '.join(penalties)}: choose an objective "
                "without a bound on D's slope, and penalty=none"
            )
        self.unroll = unroll
        self.unroll_lr = unroll_lr

    def opponent(self, real: Sample, fake: Sample) -> Discriminator:
        here = self.discriminator
        weights = {name: w.detach().requires_grad_() for name, w in here.named_parameters()}
        state = {name: buffer.clone() for name, buffer in here.named_buffers()}
        for _ in range(self.unroll):
            loss = self.loss("d", Duel(Ahead(here, {**weights, **state}), real, fake))
            slopes = torch.autograd.grad(loss, [*weights.values()], create_graph=True)
            steps = zip(weights.items(), slopes, strict=True)
            weights = {name: w - self.unroll_lr * slope for (name, w), slope in steps}
        return Ahead(here, {**weights, **state})


class Ahead(Discriminator):
    """A discriminator with other weights and buffers than its own."""

    def __init__(self, discriminator: Discriminator, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.asked = Asked(discriminator)
        self.state = {f"discriminator.{name}": value for name, value in state.items()}
        self.n_features = discriminator.n_features

    def features(self, sample: Sample) -> Tensor:
        return functional_call(self.asked, self.state, ("features", sample))

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return functional_call(self.asked, self.state, ("score", features, sample))


class Asked(nn.Module):
    """Makes a call of a discriminator's method."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, method: str, *arguments: Any) -> Tensor:
        return getattr(self.discriminator, method)(*arguments)
