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
    """The images of a sample to latents (B, latent_dim)."""

    def __init__(self, body: Discriminator, latent_dim: int) -> None:
        super().__init__()
        self.body = headless(body)
        self.last = Linear(body.n_features, latent_dim)

    def forward(self, sample: Sample) -> Tensor:
        return self.last(self.body.features(sample))


class Joint(Discriminator):
    """Pairs of images and latents (B, latent_dim) to logits (B,), by a layer of `hidden` units."""

    def __init__(self, body: Discriminator, latent_dim: int, hidden: int = 1024) -> None:
        super().__init__()
        self.singly = body.singly
        self.sees = body.sees | {"z"}
        self.body = headless(body)
        self.join = nn.Sequential(Linear(body.n_features + latent_dim, hidden), nn.LeakyReLU(0.2))
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
