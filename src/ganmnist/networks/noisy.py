"""Perceptrons with noise in every layer of D, for a few labels (Salimans et al., arXiv 1606.03498).

G   z -> 500 -> 500 -> 784, batch norm and softplus in between, tanh
D   784 -> 1000 -> 500 -> 250 -> 250 -> 250 -> 1, weight norm, rectifiers

Normal noise is added to D's images, seen in [0, 1], and to every layer behind them; the features
are the last layer before its noise. The paper scales D's layers by a first batch until they have
variance 1, and trains the scale of the last alone; here they begin with what comes to the same, for
the power of their input, noise included, is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.perceptron import Linear

if TYPE_CHECKING:
    from ganmnist.duel import Sample

OF_DIGITS = 0.11  # mean square of MNIST's pixels
OF_RECTIFIED = 0.5  # that of max(0, x), x normal


class Noise(nn.Module):
    """Adds normal noise of standard deviation `sigma` while it trains."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training else x


def scaled(layer: nn.Linear, power: float, train_scale: bool = False) -> nn.Module:
    """The layer with weight norm; inputs of that mean square come out with variance 1."""
    nn.init.normal_(layer.weight, 0.0, 1 / math.sqrt(layer.in_features * power))
    nn.init.zeros_(layer.bias)
    weight_norm(layer).parametrizations.weight.original0.requires_grad_(train_scale)
    return layer


class Generator(nn.Module):
    """Latents (B, latent_dim) to images (B, channels, image_size, image_size) in [-1, 1]."""

    def __init__(
        self,
        latent_dim: int = 100,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (500, 500),
    ) -> None:
        super().__init__()
        shape = (channels, image_size, image_size)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((latent_dim, *widths)):
            layers += [Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.Softplus()]
        last = weight_norm(Linear((latent_dim, *widths)[-1], math.prod(shape)))
        self.layers = nn.Sequential(*layers, last, nn.Tanh(), nn.Unflatten(1, shape))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(z)


class Discriminator(Base):
    """Images (B, channels, image_size, image_size) in [-1, 1] to logits (B,)."""

    singly = True

    def __init__(
        self,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (1000, 500, 250, 250, 250),
        image_noise: float = 0.3,
        noise: float = 0.5,
    ) -> None:
        super().__init__()
        if min(image_noise, noise) < 0:
            raise ValueError(
                f"image_noise={image_noise} and noise={noise} are standard deviations: choose 0 or "
                "more"
            )
        if not widths:
            raise ValueError(f"widths={list(widths)} leaves D no layer: choose one or more")
        self.noise = noise
        self.power = OF_RECTIFIED + noise**2
        first, *others = pairwise((channels * image_size**2, *widths))
        layers: list[nn.Module] = [nn.Flatten(), Noise(image_noise)]
        layers += [scaled(Linear(*first), OF_DIGITS + image_noise**2), nn.ReLU()]
        for sizes in others:
            layers += [Noise(noise), scaled(Linear(*sizes), self.power), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.n_features = widths[-1]
        self.last = self.head(1)

    def head(self, n: int) -> nn.Module:
        layer = scaled(Linear(self.n_features, n), self.power, train_scale=True)
        return nn.Sequential(Noise(self.noise), layer)

    def features(self, sample: Sample) -> Tensor:
        assert sample.x is not None
        return self.layers((sample.x + 1) / 2)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).flatten()
