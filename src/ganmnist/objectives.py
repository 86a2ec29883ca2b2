"""Adversarial objectives: one small class each, one file in conf/objective/ each.

With the discriminator's probability D = sigmoid(logits), Goodfellow et al. (2014, arXiv 1406.2661)
let D minimise

    L_D = -E[log D(x)] - E[log(1 - D(G(z)))]

and G, in the non-saturating form they recommend in practice,

    L_G = -E[log D(G(z))].

At the equilibrium D is 1/2 everywhere, so L_D = 2 ln 2 and L_G = ln 2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ganmnist.duel import Duel, Term


class Objective(Term):
    """A game between the two players. `equilibrium` is what (L_D, L_G) are when nobody can win."""

    equilibrium: tuple[float, float] | None = None

    def d_loss(self, duel: Duel) -> Tensor:
        raise NotImplementedError

    def g_loss(self, duel: Duel) -> Tensor:
        raise NotImplementedError


class BCE(Objective):
    """The non-saturating GAN (Goodfellow et al., 2014, arXiv 1406.2661) as binary cross-entropy.

    stable=False takes the cross-entropy of the probability sigmoid(logits), as the papers print
    it and with the bound of 100 that PyTorch puts on -log; stable=True computes the same number
    from the logits, with gradients also where the sigmoid has rounded to 0 or 1.
    """

    equilibrium = (2 * math.log(2), math.log(2))

    def __init__(self, stable: bool = True) -> None:
        super().__init__()
        self.stable = stable

    def d_loss(self, duel: Duel) -> Tensor:
        return duel.part("real", self.cross_entropy(duel.real_logits, 1.0)) + duel.part(
            "fake", self.cross_entropy(duel.fake_logits, 0.0)
        )

    def g_loss(self, duel: Duel) -> Tensor:
        return self.cross_entropy(duel.fake_logits, 1.0)

    def cross_entropy(self, logits: Tensor, target: float) -> Tensor:
        """Mean cross-entropy, in nats, of logits (B,) with one target for all of them."""
        targets = torch.full_like(logits, target)
        if self.stable:
            return F.binary_cross_entropy_with_logits(logits, targets)
        # Autocast forbids the cross-entropy of probabilities by name, though these are float32.
        with torch.autocast(logits.device.type, enabled=False):
            probability = logits.sigmoid()
            loss = F.binary_cross_entropy(probability.nan_to_num(), targets)
        # PyTorch asserts that a probability is one, and on a GPU that would end the process. A loss
        # that is NaN, as it ought to be, ends the run with a sentence.
        return loss + 0 * probability.sum()
