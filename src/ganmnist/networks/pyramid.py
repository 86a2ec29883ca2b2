"""Networks of LAPGAN (Denton et al., 2015, arXiv 1506.05751): a G and a D for each size of images.

With down(x) the means of 2x2 pixels and up(x) bilinear interpolation, the levels of 28x28 ones are

    base     z_0 -> x_0                            1x7x7
    finer    x_k = u_k + G_k(z_k, u_k)             u_k = up(x_(k-1)), 1x14x14 and 1x28x28

and D_k judges x_k beside u_k. Each level has its own share of the latent. While training, the u_k
are those of real images, so that every level plays a game of its own; the levels of an image lie
in one picture, `tiled`, the finest at the left and the others below each other beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.base import channels_last
from ganmnist.networks.encoders import headless
from ganmnist.networks.mlp import Discriminator as Perceptron
from ganmnist.networks.mlp import Generator as FromLatents

if TYPE_CHECKING:
    from ganmnist.duel import Sample


def up(x: Tensor) -> Tensor:
    """Images of twice the size."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def levels_of(x: Tensor, levels: int) -> list[Tensor]:
    """Images (B, C, H, W) at each size, the finest first."""
    parts = [x]
    for _ in range(levels - 1):
        parts.append(F.avg_pool2d(parts[-1], 2))
    return parts


def enlarged(parts: Sequence[Tensor]) -> list[Tensor]:
    """u_k for each level, the finest first; nothing, which is 0, for the base."""
    return [*(up(part) for part in parts[1:]), torch.zeros_like(parts[-1])]


def tiled(parts: Sequence[Tensor]) -> Tensor:
    """The levels of images as images (B, C, H, W + W / 2)."""
    finest, *others = parts
    h, w = finest.shape[2:]
    column = torch.cat([F.pad(x, (0, w // 2 - x.shape[3])) for x in others], 2)
    return torch.cat([finest, F.pad(column, (0, 0, 0, h - column.shape[2]))], 3)


def untiled(x: Tensor, levels: int) -> list[Tensor]:
    """The levels of `tiled` images."""
    h = w = x.shape[2]
    parts, top = [x[..., :w]], 0
    for _ in range(levels - 1):
        h = h // 2
        parts.append(x[..., top : top + h, w : w + h])
        top += h
    return parts


def check_levels(levels: int, image_size: int) -> int:
    """The size of the base."""
    size, rest = divmod(image_size, 2 ** (levels - 1)) if levels > 1 else (0, 0)
    if rest or not size:
        raise ValueError(
            f"levels={levels} must be at least 2 and halve image_size={image_size} evenly"
        )
    return size


class Detail(nn.Module):
    """G_k: z (B, latent_dim) and u (B, channels, size, size) to what u is short of."""

    def __init__(self, latent_dim: int, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.plane = nn.Sequential(nn.Linear(latent_dim, size**2), nn.Unflatten(1, (1, size, size)))
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise((channels + 1, width, width)):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return self.layers(channels_last(torch.cat([u, self.plane(z)], 1)))


class Generator(nn.Module):
    """Latents (B, latent_dim) to images (B, channels, image_size, image_size) around [-1, 1]."""

    def __init__(
        self,
        latent_dim: int = 100,
        channels: int = 1,
        image_size: int = 28,
        levels: int = 3,
        width: int = 32,
    ) -> None:
        super().__init__()
        size = check_levels(levels, image_size)
        self.levels = levels
        base, *finer = (len(part) for part in torch.zeros(latent_dim).tensor_split(levels))
        self.base = FromLatents(base, channels, size, [256, 512], dropout=0.0)
        self.details = nn.ModuleList(
            Detail(dim, channels, size * 2**k, width) for k, dim in enumerate(finer, 1)
        )

    def parts(self, z: Tensor, u: Sequence[Tensor]) -> list[Tensor]:
        """The levels of images, each made of a given u_k; the finest first, in u as well."""
        base, *finer = z.tensor_split(self.levels, 1)
        details = zip(self.details, finer, reversed(u[:-1]), strict=True)
        made = [low + detail(share, low) for detail, share, low in details]
        return [*reversed(made), self.base(base)]

    def grow(self, z: Tensor) -> list[Tensor]:
        """The levels of images, each made of the one below it; the finest first."""
        base, *finer = z.tensor_split(self.levels, 1)
        made = [self.base(base)]
        for detail, share in zip(self.details, finer, strict=True):
            low = up(made[-1])
            made.append(low + detail(share, low))
        return made[::-1]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.grow(z)[0]


class Critic(nn.Module):
    """D_k without its last layer: x beside u, (B, 2 channels, size, size), to features."""

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(2 * channels, width, 4, 2, padding=1), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.LeakyReLU(0.2)),
        )
        self.n_features = 2 * width * (size // 2) ** 2

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(channels_last(x)).permute(0, 2, 3, 1).flatten(1)


class Discriminator(Base):
    """Levels of images and their u_k, both tiled, to a logit a level (levels B,)."""

    singly = True
    sees = frozenset({"x", "y"})

    def __init__(
        self, channels: int = 1, image_size: int = 28, levels: int = 3, width: int = 32
    ) -> None:
        super().__init__()
        size = check_levels(levels, image_size)
        self.levels = levels
        base = Perceptron(channels, size, [256, 256], dropout=0.0)
        finer = [Critic(channels, image_size // 2**k, width) for k in range(levels - 1)]
        self.sizes = [*(critic.n_features for critic in finer), base.n_features]
        self.n_features = sum(self.sizes)
        self.critics = nn.ModuleList(finer)
        self.base = headless(base)
        self.last = nn.ModuleList(nn.Linear(n, 1, bias=False) for n in self.sizes)

    def features(self, sample: Sample) -> Tensor:
        assert sample.x is not None
        assert sample.y is not None
        xs, us = untiled(sample.x, self.levels), untiled(sample.y, self.levels)
        pairs = zip(self.critics, xs[:-1], us[:-1], strict=True)
        finer = [critic(torch.cat([x, u], 1)) for critic, x, u in pairs]
        return torch.cat([*finer, self.base.features(sample._replace(x=xs[-1]))], 1)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        parts = zip(self.last, features.split(self.sizes, 1), strict=True)
        return torch.cat([last(part).flatten() for last, part in parts])
