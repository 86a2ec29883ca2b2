"""Residual networks of SNGAN (Miyato et al., 2018, arXiv 1802.05957), for 28x28 images.

They descend from WGAN-GP's (Gulrajani et al., 2017, arXiv 1704.00028). The defaults are

    G   z -> 128x7x7 -> 64x14x14 -> 32x28x28 -> 1x28x28, tanh
    D   1x28x28 -> 32x14x14 -> 64x7x7 -> 128x7x7 -> 128x7x7 -> 128 -> 1

where an arrow between two maps is a residual block, or a convolution at the end of G. G has batch
norm, D no normalisation: the spectral norm that the paper puts on all of D's weights is added from
outside. Weights are drawn as the authors draw them, Xavier uniform (Glorot and Bengio, 2010) with a
gain of sqrt(2) in the residual branches, and of 1 in shortcuts, G's two ends and D's last layer;
biases are 0.

The paper's G for 32x32 images has 256 channels throughout and starts from 4x4, so it has a block
more; its D has 128 channels throughout. Left out are the biases that batch norm would take back
(those of the first convolution in a block of G) or that would be added to another (shortcuts').
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.base import channels_last

if TYPE_CHECKING:
    from ganmnist.duel import Sample


class UpBlock(nn.Module):
    """(B, c_in, H, W) to (B, c_out, 2H, 2W): batch norm, ReLU and convolution, twice."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(c_in),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="nearest"),
            conv3(c_in, c_out, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            conv3(c_out, c_out),
        )
        # The paper enlarges first, which comes to the same pixels at four times the cost.
        self.shortcut = nn.Sequential(
            conv1(c_in, c_out), nn.Upsample(scale_factor=2, mode="nearest")
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + self.shortcut(x)


class DownBlock(nn.Module):
    """(B, c_in, H, W) to (B, c_out, H, W), or to half the size: ReLU and convolution, twice.

    The `first` block of a network meets an image, so no ReLU cuts its pixels and it widens at once
    (the paper's "optimised" block); the others widen in their second convolution.
    """

    def __init__(self, c_in: int, c_out: int, halve: bool, first: bool = False) -> None:
        super().__init__()
        inner = c_out if first else c_in
        # Not in place: the shortcut reads the same x.
        relu = [] if first else [nn.ReLU()]
        pool = [nn.AvgPool2d(2)] if halve else []
        self.branch = nn.Sequential(
            *relu, conv3(c_in, inner), nn.ReLU(), conv3(inner, c_out), *pool
        )
        # The paper pools last, but means of pixels and a 1x1 convolution commute.
        learned = first or halve or c_in != c_out
        self.shortcut = nn.Sequential(*pool, *([conv1(c_in, c_out)] if learned else []))

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + self.shortcut(x)


class Generator(nn.Module):
    """Latents (B, latent_dim) to images (B, channels, image_size, image_size) in [-1, 1].

    `widths` are the channels of the maps; each is twice as large as the one before it, and the last
    as large as the image.
    """

    def __init__(
        self,
        latent_dim: int = 100,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (128, 64, 32),
    ) -> None:
        super().__init__()
        check_widths(widths)
        size = halved(image_size, len(widths) - 1)
        self.first = xavier(nn.Linear(latent_dim, widths[0] * size**2))
        self.map = (widths[0], size, size)
        self.blocks = nn.Sequential(*(UpBlock(c_in, c_out) for c_in, c_out in pairwise(widths)))
        self.last = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.ReLU(),
            conv3(widths[-1], channels, gain=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.last(self.blocks(channels_last(self.first(z).unflatten(1, self.map))))


class Discriminator(Base):
    """Images (B, channels, image_size, image_size) in [-1, 1] to logits (B,).

    `widths` are the channels after each block, of which the first `halvings` halve the map. The
    features are the sums over the last map, rectified: (B, widths[-1]).
    """

    singly = True

    def __init__(
        self,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (32, 64, 128, 128),
        halvings: int = 2,
    ) -> None:
        super().__init__()
        check_widths(widths)
        if not 0 <= halvings <= len(widths):
            raise ValueError(
                f"halvings={halvings} must lie between 0 and the number of blocks, "
                f"{len(widths)} for widths={list(widths)}"
            )
        halved(image_size, halvings)
        self.blocks = nn.Sequential(
            *(
                DownBlock(c_in, c_out, halve=i < halvings, first=i == 0)
                for i, (c_in, c_out) in enumerate(pairwise((channels, *widths)))
            ),
            nn.ReLU(),
        )
        self.n_features = widths[-1]
        self.last = xavier(nn.Linear(self.n_features, 1))

    def features(self, sample: Sample) -> Tensor:
        assert sample.x is not None
        return self.blocks(channels_last(sample.x)).sum(dim=(2, 3))

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).flatten()


def conv3(c_in: int, c_out: int, gain: float = math.sqrt(2), bias: bool = True) -> nn.Module:
    return xavier(nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias), gain)


def conv1(c_in: int, c_out: int) -> nn.Module:
    return xavier(nn.Conv2d(c_in, c_out, 1, bias=False))


def xavier(layer: nn.Linear | nn.Conv2d, gain: float = 1) -> nn.Module:
    """Draws the weights from U(-a, a) with a = gain sqrt(6 / (fan_in + fan_out)); biases are 0."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def check_widths(widths: Sequence[int]) -> None:
    if not widths or min(widths) < 1:
        raise ValueError(f"widths={list(widths)} must be at least one number, and all above 0")


def halved(image_size: int, times: int) -> int:
    """The image's size, halved so many times."""
    size, rest = divmod(image_size, 2**times)
    if rest or not size:
        raise ValueError(f"image_size={image_size} cannot be halved {times} times evenly")
    return size
