"""Heads on the discriminator's features, which say more of an image than real or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.duel import Duel, Sample, Term
from ganmnist.schedules import checked_number

if TYPE_CHECKING:
    from ganmnist.networks.base import Discriminator


def check_singles(discriminator: Discriminator) -> None:
    """Raises ValueError where a row of features is of several images."""
    if discriminator.pack > 1:
        raise ValueError(
            f"A head on D's features speaks of one image, and D judges {discriminator.pack} at "
            "once: leave stabilizer=pacgan out, or choose family=gan"
        )


class AuxiliaryClassifier(Term):
    """ACGAN (Odena et al., 2017, arXiv 1610.09585): D also names the class of every image.

    weight E[-log p(y | x) - log p(y | G(z, y))] in D's loss, its second half in G's.
    """

    def __init__(self, classes: int, weight: float = 1.0) -> None:
        super().__init__()
        checked_number("the weight of AuxiliaryClassifier", weight)
        self.classes = classes
        self.weight = weight

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        check_singles(discriminator)
        self.head = nn.Linear(discriminator.n_features, self.classes)

    def d_loss(self, duel: Duel) -> Tensor:
        real = self.surprise(duel.real_features, duel.real)
        return self.weight * (real + self.surprise(duel.fake_features, duel.fake))

    def g_loss(self, duel: Duel) -> Tensor:
        return self.weight * self.surprise(duel.fake_features, duel.fake)

    def surprise(self, features: Tensor, sample: Sample) -> Tensor:
        """Mean cross-entropy, in nats, of the labels."""
        assert sample.y is not None
        return F.cross_entropy(self.head(features).float(), sample.y)
