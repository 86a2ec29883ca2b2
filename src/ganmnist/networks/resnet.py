"""Residual networks of SNGAN (Miyato et al., 2018, arXiv 1802.05957), for 28x28 images.

They are based on WGAN-GP's (Gulrajani et al., 2017, arXiv 1704.00028). The defaults are

    G   z -> 128x7x7 -> 64x14x14 -> 32x28x28 -> 1x28x28, tanh
    D   1x28x28 -> 32x14x14 -> 64x7x7 -> 128x7x7 -> 128x7x7 -> 128 -> 1

where an arrow between two feature maps is a residual block, or a convolution at the end of G. G has
batch norm, D has no normalization; stabilizer=spectral_norm adds the paper's. As in the authors'
code, the initial weights are Xavier uniform (Glorot and Bengio, 2010), with gain sqrt(2) in the
residual branches and gain 1 in shortcuts, in G's first and last layer and in D's last layer. Biases
are 0.

The paper's G for 32x32 images has 256 channels at every size. It starts from 4x4 and has one more
block. The paper's D has 128 channels at every size. Redundant biases are left out: those before
batch norm (the first convolution in a block of G) and those of shortcuts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.base import channels_last
from ganmnist.utils.batch import Batch


class UpBlock(nn.Module):
    """(B, c_in, H, W) to (B, c_out, 2H, 2W): batch norm, ReLU and convolution, twice."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(c_in),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="nearest"),
            conv3x3(c_in, c_out, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            conv3x3(c_out, c_out),
        )
        # The paper upsamples first: the same output at four times the cost.
        self.shortcut = nn.Sequential(
            conv1x1(c_in, c_out), nn.Upsample(scale_factor=2, mode="nearest")
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x) + self.shortcut(x)
        return y


class DownBlock(nn.Module):
    """(B, c_in, H, W) to (B, c_out, H, W), or to half the size: ReLU and convolution, twice.

    The `first` block of a network (the paper's "optimized" block) has no ReLU before its first
    convolution, which has c_out channels. In other blocks the second convolution has them.
    """

    def __init__(self, c_in: int, c_out: int, halve: bool, first: bool = False) -> None:
        super().__init__()
        inner = c_out if first else c_in
        # Not in place, because the shortcut reads the same x.
        relu = [] if first else [nn.ReLU()]
        pool = [nn.AvgPool2d(2)] if halve else []
        self.branch = nn.Sequential(
            *relu, conv3x3(c_in, inner), nn.ReLU(), conv3x3(inner, c_out), *pool
        )
        # The paper pools last. Average pooling and a 1x1 convolution commute.
        learned = first or halve or c_in != c_out
        self.shortcut = nn.Sequential(*pool, *([conv1x1(c_in, c_out)] if learned else []))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x) + self.shortcut(x)
        return y


class Generator(nn.Module):
    """Latents (B, latent_dim) to images (B, channels, image_size, image_size) in [-1, 1].

    `widths` are the channels of the feature maps. Each is twice as large as the previous one. The
    last is as large as the image.
    """

    def __init__(
        self,
        latent_dim: int = 100,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (128, 64, 32),
    ) -> None:
        super().__init__()
        check_widths("generator", widths)
        size = halve(image_size, len(widths) - 1)
        self.first = init_xavier(nn.Linear(latent_dim, widths[0] * size**2))
        self.map_shape = (widths[0], size, size)
        self.blocks = nn.Sequential(*(UpBlock(c_in, c_out) for c_in, c_out in pairwise(widths)))
        self.last = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.ReLU(),
            conv3x3(widths[-1], channels, gain=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = torch.unflatten(self.first(z), 1, self.map_shape)
        images: Tensor = self.last(self.blocks(channels_last(x)))
        return images


class Discriminator(Base):
    """Images (B, channels, image_size, image_size) in [-1, 1] to logits (B,).

    `widths` are the channels after each block. The first `halvings` blocks halve the feature map.
    The features (B, widths[-1]) are sums over the last feature map, after ReLU.
    """

    per_sample = True

    def __init__(
        self,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (32, 64, 128, 128),
        halvings: int = 2,
    ) -> None:
        super().__init__()
        check_widths("discriminator", widths)
        if not 0 <= halvings <= len(widths):
            raise ValueError(
                f"model.discriminator.halvings={halvings}: choose 0 to {len(widths)}, the number "
                f"of blocks for widths={list(widths)}"
            )
        halve(image_size, halvings)
        self.blocks = nn.Sequential(
            *(
                DownBlock(c_in, c_out, halve=i < halvings, first=i == 0)
                for i, (c_in, c_out) in enumerate(pairwise((channels, *widths)))
            ),
            nn.ReLU(),
        )
        self.n_features = widths[-1]
        self.last = init_xavier(nn.Linear(self.n_features, 1))

    def features(self, batch: Batch) -> Tensor:
        maps: Tensor = self.blocks(channels_last(batch.x))
        return maps.sum(dim=(2, 3))

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = self.last(features)
        return logits.flatten()


def conv3x3(c_in: int, c_out: int, gain: float = math.sqrt(2), bias: bool = True) -> nn.Module:
    return init_xavier(nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias), gain)


def conv1x1(c_in: int, c_out: int) -> nn.Module:
    return init_xavier(nn.Conv2d(c_in, c_out, 1, bias=False))


def init_xavier(layer: nn.Linear | nn.Conv2d, gain: float = 1) -> nn.Module:
    """Samples the weights from U(-a, a), a = gain sqrt(6 / (fan_in + fan_out)); biases are 0."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def check_widths(network: str, widths: Sequence[int]) -> None:
    if not widths or min(widths) < 1:
        raise ValueError(
            f"model.{network}.widths={list(widths)}: choose one number or more, all above 0"
        )


def halve(image_size: int, times: int) -> int:
    """The image's size, halved so many times."""
    size, rest = divmod(image_size, 2**times)
    if rest or not size:
        raise ValueError(
            f"image_size={image_size} cannot be halved {times} times. Choose fewer widths, or "
            "fewer halvings"
        )
    return int(size)
