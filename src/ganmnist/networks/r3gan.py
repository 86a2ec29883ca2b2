"""R3GAN's networks (Huang et al., 2024, arXiv 2501.05441), for 28x28 images.

Both are residual bottlenecks from end to end, 1x1, grouped 3x3 and 1x1 convolutions, without any
normalisation: the initialisation sees to the size of signals instead. The defaults are

    G   z -> 256x7x7 -> 128x14x14 -> 32x28x28 -> 1x28x28
    D   1x28x28 -> 32x28x28 -> 128x14x14 -> 256x7x7 -> 256 -> 1

with one block at each size. G starts from a learned 7x7 map, each channel of which is multiplied by
a number that is linear in z. It ends in a 1x1 convolution without a tanh, as in the paper, so
values may leave [-1, 1]: D sees them as they are, pictures and metrics clip them.

Weights are drawn from N(0, gain^2 / fan_in). The gain is 1 outside of the blocks; inside, in the
manner of fixup (Zhang et al., 2019, arXiv 1901.09321), it is sqrt(2 / (1 + 0.2^2)) L^(-1/4) for the
first two convolutions of a block, in a network of L blocks, and 0 for the third, so that every
block starts as the identity. G's map is drawn from N(0, 1); biases are 0.

The paper's networks for 32x32 images start from 4x4 and so have a stage more, with two blocks in
each, 768 channels throughout (its networks for larger images narrow as maps grow, as ours do) and
64 latents. Between two stages, maps are doubled and halved with the authors' filter, [1, 3, 3, 1]
in both directions ([1, 2, 1] convolved with [1, 1]), and zeros around the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.base import channels_last

if TYPE_CHECKING:
    from ganmnist.duel import Sample

SLOPE = 0.2  # of all leaky rectifiers


class Block(nn.Module):
    """(B, width, H, W) to the same shape: x + branch(x), which is x at first.

    The branch is `expansion` times as wide, and its 3x3 convolution sees groups of `group_size`
    channels. A bias and a leaky rectifier follow each of the first two convolutions, nothing the
    third. `total` is the number of blocks in the network.
    """

    def __init__(self, width: int, expansion: int, group_size: int, total: int) -> None:
        super().__init__()
        inner = width * expansion
        gain = math.sqrt(2 / (1 + SLOPE**2)) * total ** (-1 / (2 * 3 - 2))  # 3 convolutions
        spatial = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group_size)
        self.branch = nn.Sequential(
            normal(nn.Conv2d(width, inner, 1), gain),
            nn.LeakyReLU(SLOPE),
            normal(spatial, gain),
            nn.LeakyReLU(SLOPE),
            normal(nn.Conv2d(inner, width, 1, bias=False), gain=0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Filter(nn.Module):
    """[1, 3, 3, 1] / 8 in both directions, for each channel by itself."""

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(line, line), persistent=False)

    def kernels(self, x: Tensor) -> Tensor:
        """(C, 1, 4, 4) for x (B, C, H, W)."""
        return self.kernel.expand(x.shape[1], 1, 4, 4)  # type: ignore[operator]


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

    `widths` and `blocks` are the channels and the number of blocks of each stage, whose maps are
    twice as large as those of the stage before it.
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
        size = smallest_map(image_size, widths, blocks, expansion, group_size)
        self.basis = nn.Parameter(torch.randn(widths[0], size, size))
        self.modulation = normal(nn.Linear(latent_dim, widths[0], bias=False))
        layers: list[nn.Module] = []
        for i, (width, n) in enumerate(zip(widths, blocks, strict=True)):
            if i > 0:
                layers += [*change(widths[i - 1], width), Upsample()]
            layers += [Block(width, expansion, group_size, sum(blocks)) for _ in range(n)]
        self.layers = nn.Sequential(*layers)
        self.last = conv1(widths[-1], channels)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.basis * self.modulation(z)[:, :, None, None]
        return self.last(self.layers(channels_last(x)))


class Discriminator(Base):
    """Images (B, channels, image_size, image_size), also beyond [-1, 1], to logits (B,).

    The generator's mirror image: `widths` and `blocks` go from the largest maps to the smallest.
    Each channel of the last map has a kernel of its own that spans it, which makes the features
    (B, widths[-1]).
    """

    singly = True

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
        size = smallest_map(image_size, widths, blocks, expansion, group_size)
        layers: list[nn.Module] = [conv1(channels, widths[0])]
        for i, (width, n) in enumerate(zip(widths, blocks, strict=True)):
            if i > 0:
                layers += [Downsample(), *change(widths[i - 1], width)]
            layers += [Block(width, expansion, group_size, sum(blocks)) for _ in range(n)]
        basis = normal(nn.Conv2d(widths[-1], widths[-1], size, groups=widths[-1], bias=False))
        self.layers = nn.Sequential(*layers, basis, nn.Flatten())
        self.n_features = widths[-1]
        self.last = normal(nn.Linear(self.n_features, 1, bias=False))

    def features(self, sample: Sample) -> Tensor:
        assert sample.x is not None
        return self.layers(channels_last(sample.x))

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).flatten()


def change(c_in: int, c_out: int) -> list[nn.Module]:
    """What changes the width between two stages; nothing where it stays."""
    return [] if c_in == c_out else [conv1(c_in, c_out)]


def conv1(c_in: int, c_out: int) -> nn.Module:
    return normal(nn.Conv2d(c_in, c_out, 1, bias=False))


def normal(layer: nn.Linear | nn.Conv2d, gain: float = 1) -> nn.Module:
    """Draws the weights from N(0, gain^2 / fan_in); biases are 0."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def smallest_map(
    image_size: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    expansion: int,
    group_size: int,
) -> int:
    """The size of the map with the most channels, where these settings fit together."""
    if not widths or len(blocks) != len(widths) or min(blocks) < 0:
        raise ValueError(
            f"blocks={list(blocks)} and widths={list(widths)} must each have one number a stage, "
            "and blocks none below 0"
        )
    if min(*widths, expansion, group_size) < 1 or any(w * expansion % group_size for w in widths):
        raise ValueError(
            f"widths={list(widths)} times expansion={expansion} must be positive multiples of "
            f"group_size={group_size}"
        )
    size, rest = divmod(image_size, 2 ** (len(widths) - 1))
    if rest or not size:
        raise ValueError(
            f"image_size={image_size} cannot be halved {len(widths) - 1} times evenly, as "
            f"widths={list(widths)} ask"
        )
    return size
