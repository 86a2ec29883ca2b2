"""R3GAN's networks (Huang et al., 2024, arXiv 2501.05441), for 28x28 images.

Both consist of residual bottlenecks with 1x1, grouped 3x3 and 1x1 convolutions, without any
normalization. The initialization sets the scale of the activations instead. The defaults are

    G   z -> 256x7x7 -> 128x14x14 -> 32x28x28 -> 1x28x28
    D   1x28x28 -> 32x28x28 -> 128x14x14 -> 256x7x7 -> 256 -> 1

with one block at each size. G starts from a learned 7x7 feature map. A linear function of z
multiplies each channel of it. G ends in a 1x1 convolution without tanh, as in the paper. Its values
may leave [-1, 1]: D sees them unchanged, saved images and metrics clip them.

Initial weights are from N(0, gain^2 / fan_in). The gain is 1 outside of the blocks. Inside, as in
Fixup (Zhang et al., 2019, arXiv 1901.09321), it is sqrt(2 / (1 + 0.2^2)) L^(-1/4) for the first two
convolutions of a block, in a network of L blocks, and 0 for the third. Every block is the identity
at first. G's learned feature map is from N(0, 1). Biases are 0.

The paper's networks for 32x32 images start from 4x4. They have one more stage, two blocks per
stage, 768 channels at every size (its networks for larger images have fewer channels in larger
feature maps) and 64 latents. Between two stages, feature maps are resampled with the authors'
filter, [1, 3, 3, 1] in both directions ([1, 2, 1] convolved with [1, 1]), and zero padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.base import channels_last
from ganmnist.utils.batch import Batch

SLOPE = 0.2  # of LeakyReLU


class Block(nn.Module):
    """(B, width, H, W) to the same shape: x + branch(x), which is x at first.

    The branch is `expansion` times as wide. Its 3x3 convolution has groups of `group_size`
    channels. The first two convolutions have a bias and LeakyReLU, the third has neither.
    `n_blocks` is the number of blocks in the network.
    """

    def __init__(self, width: int, expansion: int, group_size: int, n_blocks: int) -> None:
        super().__init__()
        inner = width * expansion
        gain = math.sqrt(2 / (1 + SLOPE**2)) * n_blocks ** (-1 / (2 * 3 - 2))  # 3 convolutions
        spatial = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group_size)
        self.branch = nn.Sequential(
            init_normal(nn.Conv2d(width, inner, 1), gain),
            nn.LeakyReLU(SLOPE),
            init_normal(spatial, gain),
            nn.LeakyReLU(SLOPE),
            init_normal(nn.Conv2d(inner, width, 1, bias=False), gain=0),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.branch(x)
        return y


class Filter(nn.Module):
    """[1, 3, 3, 1] / 8 in both directions, for each channel."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(row, row), persistent=False)

    def kernels(self, x: Tensor) -> Tensor:
        """(C, 1, 4, 4) for x (B, C, H, W)."""
        return self.kernel.expand(x.shape[1], 1, 4, 4)


class Upsample(Filter):
    """(B, C, H, W) to (B, C, 2H, 2W)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, 4 * self.kernels(x), stride=2, padding=1, groups=x.shape[1])


class Downsample(Filter):
    """(B, C, H, W) to (B, C, H / 2, W / 2)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernels(x), stride=2, padding=1, groups=x.shape[1])


class Generator(nn.Module):
    """Latents (B, latent_dim) to images (B, channels, image_size, image_size) around [-1, 1].

    `widths` and `blocks` are the channels and the number of blocks of each stage. Each stage has
    feature maps twice as large as the previous one.
    """

    def __init__(
        self,
        latent_dim: int = 100,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (256, 128, 32),
        blocks: Sequence[int] = (1, 1, 1),
        expansion: int = 2,
        group_size: int = 16,
    ) -> None:
        super().__init__()
        size = smallest_size(image_size, widths, blocks, expansion, group_size)
        self.basis = nn.Parameter(torch.randn(widths[0], size, size))
        self.modulation = init_normal(nn.Linear(latent_dim, widths[0], bias=False))
        layers: list[nn.Module] = []
        for i, (width, n) in enumerate(zip(widths, blocks, strict=True)):
            if i > 0:
                layers += [*change_width(widths[i - 1], width), Upsample()]
            layers += [Block(width, expansion, group_size, sum(blocks)) for _ in range(n)]
        self.layers = nn.Sequential(*layers)
        self.last = conv1x1(widths[-1], channels)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.basis * self.modulation(z)[:, :, None, None]
        images: Tensor = self.last(self.layers(channels_last(x)))
        return images


class Discriminator(Base):
    """Images (B, channels, image_size, image_size), also outside of [-1, 1], to logits (B,).

    `widths` and `blocks` are ordered from the largest feature maps to the smallest. A depthwise
    convolution with a kernel as large as the last feature map gives the features (B, widths[-1]).
    """

    per_sample = True

    def __init__(
        self,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (32, 128, 256),
        blocks: Sequence[int] = (1, 1, 1),
        expansion: int = 2,
        group_size: int = 16,
    ) -> None:
        super().__init__()
        size = smallest_size(image_size, widths, blocks, expansion, group_size)
        layers: list[nn.Module] = [conv1x1(channels, widths[0])]
        for i, (width, n) in enumerate(zip(widths, blocks, strict=True)):
            if i > 0:
                layers += [Downsample(), *change_width(widths[i - 1], width)]
            layers += [Block(width, expansion, group_size, sum(blocks)) for _ in range(n)]
        basis = init_normal(nn.Conv2d(widths[-1], widths[-1], size, groups=widths[-1], bias=False))
        self.layers = nn.Sequential(*layers, basis, nn.Flatten())
        self.n_features = widths[-1]
        self.last = init_normal(nn.Linear(self.n_features, 1, bias=False))

    def features(self, batch: Batch) -> Tensor:
        features: Tensor = self.layers(channels_last(batch.x))
        return features

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = self.last(features)
        return logits.flatten()


def change_width(c_in: int, c_out: int) -> list[nn.Module]:
    """The convolution between two stages. Stages of the same width need none."""
    return [] if c_in == c_out else [conv1x1(c_in, c_out)]


def conv1x1(c_in: int, c_out: int) -> nn.Module:
    return init_normal(nn.Conv2d(c_in, c_out, 1, bias=False))


def init_normal(layer: nn.Linear | nn.Conv2d, gain: float = 1) -> nn.Module:
    """Samples the weights from N(0, gain^2 / fan_in); biases are 0."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def smallest_size(
    image_size: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    expansion: int,
    group_size: int,
) -> int:
    """H and W of the smallest feature map.

    Raises:
        ValueError: the settings do not fit together.
    """
    if not widths or len(blocks) != len(widths) or min(blocks) < 0:
        raise ValueError(
            f"blocks={list(blocks)} and widths={list(widths)}: choose one number per stage, and no "
            "blocks below 0"
        )
    if min(*widths, expansion, group_size) < 1 or any(w * expansion % group_size for w in widths):
        raise ValueError(
            f"widths={list(widths)}, expansion={expansion} and group_size={group_size}: choose "
            "widths that are, times the expansion, positive multiples of the group size"
        )
    size, rest = divmod(image_size, 2 ** (len(widths) - 1))
    if rest or not size:
        raise ValueError(
            f"widths={list(widths)}: image_size={image_size} cannot be halved {len(widths) - 1} "
            "times. Choose fewer widths"
        )
    return int(size)
