"""Perceptrons with noise in every layer of D, for a few labels (Salimans et al., arXiv 1606.03498).

G   z -> 500 -> 500 -> 784, batch norm and softplus in between, tanh
D   784 -> 1000 -> 500 -> 250 -> 250 -> 250 -> 1, weight norm, rectifiers

Normal noise is added to D's images, seen in [0, 1], and to every layer behind them; the features
are the last layer before its noise. The first 500 real images give every unit of D mean 0 and
variance 1 (`WeightNorm`). As in the authors' program, D trains the scale of its last layer alone,
and G's batch norm has a bias and no scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.perceptron import Linear

if TYPE_CHECKING:
    from ganmnist.duel import Sample


class Noise(nn.Module):
    """Adds normal noise of standard deviation `sigma` while it trains."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training else x


class WeightNorm(Linear):
    """A linear layer with weights g v / |v| (Salimans and Kingma, 2016, arXiv 1602.07868).

    `init_from_input` sets g and the bias so that the units have mean 0 and variance 1 over a batch.
    """

    def __init__(self, n_in: int, n_out: int, train_scale: bool = False) -> None:
        super().__init__(n_in, n_out)
        nn.init.normal_(self.weight, 0.0, 0.1)
        nn.init.zeros_(self.bias)
        weight_norm(self)
        nn.init.ones_(self.scale).requires_grad_(train_scale)

    @property
    def scale(self) -> nn.Parameter:
        """(n_out, 1) g"""
        return self.parametrizations.weight.original0  # type: ignore

    @torch.no_grad()
    def init_from_input(self, x: Tensor, rows: int) -> None:
        y = F.linear(x, self.weight)
        std, mean = torch.std_mean(y, 0, unbiased=False)
        std = std.clamp_min(1e-6)
        self.scale.div_(std[:, None])
        self.bias.copy_(-mean / std)


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
            norm = nn.BatchNorm1d(n_out)
            norm.weight.requires_grad_(False)
            layers += [Linear(n_in, n_out, bias=False), norm, nn.Softplus()]
        last = WeightNorm((latent_dim, *widths)[-1], math.prod(shape), train_scale=True)
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
        first, *others = pairwise((channels * image_size**2, *widths))
        layers: list[nn.Module] = [nn.Flatten(), Noise(image_noise)]
        layers += [WeightNorm(*first), nn.ReLU()]
        for sizes in others:
            layers += [Noise(noise), WeightNorm(*sizes), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.n_features = widths[-1]
        self.last = self.head(1)

    def head(self, n: int) -> nn.Module:
        return nn.Sequential(Noise(self.noise), WeightNorm(self.n_features, n, train_scale=True))

    def features(self, sample: Sample) -> Tensor:
        assert sample.x is not None
        return self.layers((sample.x + 1) / 2)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).flatten()
