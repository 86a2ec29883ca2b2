"""Perceptrons for semi-supervised learning (Salimans et al., 2016, arXiv 1606.03498).

G   z -> 500 -> 500 -> 784, batch norm and softplus in between, tanh
D   784 -> 1000 -> 500 -> 250 -> 250 -> 250 -> 1, weight norm, ReLU, noise

D maps images to [0, 1]. It adds Gaussian noise to them and to the output of every hidden layer; its
features are the last hidden layer without noise. At the start, 500 real images or more give every
unit of D mean 0 and variance 1 (`WeightNorm`). As in the authors' code, D trains the scale of its
last layer only, and G's batch norm has a bias and no scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.perceptron import Linear
from ganmnist.utils.batch import Batch


class Noise(nn.Module):
    """Adds Gaussian noise of standard deviation `sigma`, in training mode."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training else x


class WeightNorm(Linear):
    """A linear layer with weights g v / |v| (Salimans and Kingma, 2016, arXiv 1602.07868).

    `init_from_input` sets g and the bias: the units have mean 0 and variance 1 over the batch.
    """

    def __init__(self, n_in: int, n_out: int, train_scale: bool = False) -> None:
        super().__init__(n_in, n_out)
        nn.init.normal_(self.weight, 0.0, 0.1)
        nn.init.zeros_(self.bias)
        weight_norm(self)
        nn.init.ones_(self.scale).requires_grad_(train_scale)

    @property
    def scale(self) -> nn.Parameter:
        """g (n_out, 1)"""
        return self.get_parameter("parametrizations.weight.original0")

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
        images: Tensor = self.layers(z)
        return images


class Discriminator(Base):
    """Images (B, channels, image_size, image_size) in [-1, 1] to logits (B,)."""

    per_sample = True

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
                f"model.discriminator.image_noise={image_noise}, noise={noise}: choose standard "
                "deviations of 0 or more"
            )
        if not widths:
            raise ValueError("model.discriminator.widths=[]: choose one or more")
        self.noise = noise
        first, *others = pairwise((channels * image_size**2, *widths))
        layers: list[nn.Module] = [nn.Flatten(), Noise(image_noise)]
        layers += [WeightNorm(*first), nn.ReLU()]
        for sizes in others:
            layers += [Noise(noise), WeightNorm(*sizes), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.n_features = widths[-1]
        self.last = self.make_head(1)

    def make_head(self, n: int) -> nn.Module:
        return nn.Sequential(Noise(self.noise), WeightNorm(self.n_features, n, train_scale=True))

    def features(self, batch: Batch) -> Tensor:
        features: Tensor = self.layers((batch.x + 1) / 2)
        return features

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = self.last(features)
        return logits.flatten()
