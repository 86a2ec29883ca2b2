"""Auxiliary losses: heads on the discriminator's features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks.base import Discriminator
from ganmnist.utils.batch import Batch
from ganmnist.utils.schedules import check_number


def require_single_images(discriminator: Discriminator) -> None:
    """Raises ValueError if a row of features belongs to several images."""
    if discriminator.pack_size > 1:
        raise ValueError(
            "stabilizer=pacgan: this family needs features of single images, and D packs "
            f"{discriminator.pack_size}. Use another stabilizer, or family=gan"
        )


class AuxiliaryClassifier(LossTerm):
    """ACGAN (Odena et al., 2017, arXiv 1610.09585): D also classifies images.

    weight E[-log p(y | x) - log p(y | G(z, y))] in D's loss, the second summand in G's loss.
    """

    def __init__(self, n_classes: int, weight: float = 1.0) -> None:
        super().__init__()
        check_number("family.auxiliary.acgan.weight", weight)
        self.n_classes = n_classes
        self.weight = weight

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        require_single_images(discriminator)
        self.head = nn.Linear(discriminator.n_features, self.n_classes)

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        real = self.nll(out.real_features, out.real)
        return self.weight * (real + self.nll(out.fake_features, out.fake))

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return self.weight * self.nll(out.fake_features, out.fake)

    def nll(self, features: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy of the labels, in nats."""
        return F.cross_entropy(self.head(features).float(), batch.condition)
