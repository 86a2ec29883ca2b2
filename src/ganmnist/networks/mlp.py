"""Multilayer perceptrons: the networks that the first GAN had (arXiv 1406.2661), with dropout.

G   z -> 32 -> 64 -> 128 -> 784, tanh
D   784 -> 128 -> 64 -> 32 -> 1
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.perceptron import Dropout, Linear

if TYPE_CHECKING:
    from ganmnist.duel import Sample


def hidden_layers(sizes: Sequence[int], slope: float, dropout: float) -> list[nn.Module]:
    """Linear, LeakyReLU and dropout between each two neighbours of `sizes`."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [Linear(n_in, n_out), nn.LeakyReLU(slope, inplace=True), Dropout(dropout)]
    return layers


class Generator(nn.Module):
    """Latents (B, latent_dim) to images (B, channels, image_size, image_size) in [-1, 1]."""

    def __init__(
        self,
        latent_dim: int = 100,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (32, 64, 128),
        slope: float = 0.2,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        shape = (channels, image_size, image_size)
        sizes = (latent_dim, *widths)
        self.layers = nn.Sequential(
            *hidden_layers(sizes, slope, dropout),
            Linear(sizes[-1], math.prod(shape)),
            nn.Tanh(),
            nn.Unflatten(1, shape),
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(z)


class Discriminator(Base):
    """Images (B, channels, image_size, image_size) in [-1, 1] to logits (B,)."""

    singly = True

    def __init__(
        self,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (128, 64, 32),
        slope: float = 0.2,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        sizes = (channels * image_size**2, *widths)
        self.layers = nn.Sequential(nn.Flatten(), *hidden_layers(sizes, slope, dropout))
        self.n_features = sizes[-1]
        self.last = Linear(self.n_features, 1)

    def features(self, sample: Sample) -> Tensor:
        return self.layers(sample.x)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).flatten()
