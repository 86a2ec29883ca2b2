"""Networks around latents: encoders, and discriminators that see latents.

Whatever sees images is the body of a discriminator, so each works with every architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator
from ganmnist.networks.perceptron import Linear

if TYPE_CHECKING:
    from ganmnist.duel import Sample


class Encoder(nn.Module):
    """The images of a sample to latents (B, latent_dim), by a linear layer on D's features.

    `bounded`: latents are 2 sigmoid(x) - 1, for a prior that is uniform in [-1, 1].
    """

    def __init__(self, body: Discriminator, latent_dim: int, bounded: bool = False) -> None:
        super().__init__()
        self.body = headless(body)
        self.last = Linear(body.n_features, latent_dim)
        self.bounded = bounded

    def features(self, sample: Sample) -> Tensor:
        """(B, F) the last hidden layer."""
        return self.body.features(sample)

    def forward(self, sample: Sample) -> Tensor:
        z = self.last(self.features(sample))
        return 2 * z.sigmoid() - 1 if self.bounded else z


class Joint(Discriminator):
    """Pairs of images and latents (B, latent_dim) to logits (B,), by a layer of `hidden` units.

    The latent joins D's features there: a body with one hidden layer makes this D's second one.
    `norm` is none, or batch, before the LeakyReLU.
    """

    def __init__(
        self, body: Discriminator, latent_dim: int, hidden: int = 1024, norm: str = "none"
    ) -> None:
        super().__init__()
        if norm not in ("none", "batch"):
            raise ValueError(f"family.discriminator.norm={norm}: choose none or batch")
        self.singly = body.singly and norm == "none"
        self.sees = body.sees | {"z"}
        self.body = headless(body)
        layers: list[nn.Module] = [Linear(body.n_features + latent_dim, hidden)]
        layers += [nn.BatchNorm1d(hidden)] if norm == "batch" else []
        self.join = nn.Sequential(*layers, nn.LeakyReLU(0.2))
        self.n_features = hidden
        self.last = nn.Linear(hidden, 1)

    def features(self, sample: Sample) -> Tensor:
        assert sample.z is not None
        return self.join(torch.cat([self.body.features(sample), sample.z], 1))

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).flatten()


class Latent(Discriminator):
    """Latents (B, latent_dim) to logits (B,), by a perceptron."""

    singly = True
    sees = frozenset("z")

    def __init__(self, latent_dim: int, widths: Sequence[int] = (1000, 1000)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in zip((latent_dim, *widths), widths, strict=False):
            layers += [Linear(n_in, n_out), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.n_features = widths[-1] if widths else latent_dim
        self.last = nn.Linear(self.n_features, 1)

    def features(self, sample: Sample) -> Tensor:
        return self.layers(sample.z)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).flatten()


def headless(body: Discriminator) -> Discriminator:
    """A discriminator that will be asked for features alone, without the layer that scores them."""
    body.last = nn.Identity()
    return body
