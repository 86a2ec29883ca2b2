"""Unrolled GANs (Metz et al., 2016, arXiv 1611.02163): G answers to the D that is to come.

Before G moves, D takes k steps of plain gradient descent against the very images that G is about
to be judged by,

    w_0 = w,    w_(i+1) = w_i - lr dL_D(w_i, G) / dw_i,

and G descends L_G(w_k, G), also through the dependence of w_k on G: it feels how D would react.
D itself stays where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ganmnist.duel import Duel, Sample
from ganmnist.networks.base import Discriminator
from ganmnist.schedules import checked_number

if TYPE_CHECKING:
    from ganmnist.gan import GAN


class Unroll:
    """Puts the discriminator `steps` steps of size `lr` ahead in the place of the present one."""

    def __init__(self, steps: int, lr: float) -> None:
        if steps < 0:
            raise ValueError(f"gan.unroll.steps={steps} is no number of steps: choose 0 or more")
        checked_number("gan.unroll.lr", lr)
        self.steps = steps
        self.lr = lr

    def check(self, gan: GAN) -> None:
        """Raises ValueError where what D's loss is made of cannot be taken of a D to come."""
        strangers = [name for name, term in gan.terms.items() if not term.of_any_d]
        if gan.objective.bounds_slope:  # by clipping, which D does after each of its steps
            strangers.append("clipped weights")
        if strangers:
            raise ValueError(
                f"Unrolled steps cannot follow {' and '.join(strangers)}: choose an objective "
                "without a bound on D's slope, penalty=none and a family without such a term, or "
                "leave stabilizer=unrolled out"
            )

    def __call__(self, gan: GAN, real: Sample, fake: Sample) -> Discriminator:
        here = gan.discriminator
        weights = {name: w.detach().requires_grad_() for name, w in here.named_parameters()}
        state = {name: buffer.clone() for name, buffer in here.named_buffers()}
        for _ in range(self.steps):
            loss = gan.loss("d", Duel(Ahead(here, {**weights, **state}), real, fake))
            slopes = torch.autograd.grad(loss, [*weights.values()], create_graph=True)
            steps = zip(weights.items(), slopes, strict=True)
            weights = {name: w - self.lr * slope for (name, w), slope in steps}
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
