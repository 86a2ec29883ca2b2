"""Networks of LAPGAN (Denton et al., 2015, arXiv 1506.05751): a G_k and a D_k for each scale.

With downsampling by means of 2x2 pixels and bilinear upsampling `up`, the scales of 28x28 images
are

    base     z_0 -> x_0                            1x7x7
    finer    x_k = u_k + G_k(z_k, u_k)             u_k = up(x_(k-1)), 1x14x14 and 1x28x28

D_k sees x_k and u_k as channels. Each scale has its own part of the latent. In training, u_k comes
from real images, so the scales train independently. `tile` puts the scales of an image into one
image: the finest at the left, the others in a column at its right.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.networks import mlp
from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.base import channels_last, drop_head_
from ganmnist.utils.batch import Batch


def upsample(x: Tensor) -> Tensor:
    """Images of twice the size."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def build_pyramid(x: Tensor, n_scales: int) -> list[Tensor]:
    """Images (B, C, H, W) at each scale, from fine to coarse."""
    scales = [x]
    for _ in range(n_scales - 1):
        scales.append(F.avg_pool2d(scales[-1], 2))
    return scales


def upsampled(scales: Sequence[Tensor]) -> list[Tensor]:
    """u_k of each scale, from fine to coarse. That of the base is 0."""
    return [*(upsample(x) for x in scales[1:]), torch.zeros_like(scales[-1])]


def tile(scales: Sequence[Tensor]) -> Tensor:
    """The scales of images as images (B, C, H, W + W / 2)."""
    finest, *others = scales
    h, w = finest.shape[2:]
    column = torch.cat([F.pad(x, (0, w // 2 - x.shape[3])) for x in others], 2)
    return torch.cat([finest, F.pad(column, (0, 0, 0, h - column.shape[2]))], 3)


def untile(x: Tensor, n_scales: int) -> list[Tensor]:
    """The inverse of `tile`."""
    h = w = x.shape[2]
    scales, top = [x[..., :w]], 0
    for _ in range(n_scales - 1):
        h = h // 2
        scales.append(x[..., top : top + h, w : w + h])
        top += h
    return scales


def base_size(n_scales: int, image_size: int) -> int:
    """H and W of the base.

    Raises:
        ValueError: the image does not have so many scales.
    """
    size, rest = divmod(image_size, 2 ** (n_scales - 1)) if n_scales > 1 else (0, 0)
    if rest or not size:
        raise ValueError(
            f"family.generator.n_scales={n_scales}: images of {image_size} pixels do not have so "
            "many scales. Choose 2 or more that halve them evenly"
        )
    return size


class ResidualGenerator(nn.Module):
    """G_k: z (B, latent_dim) and u (B, channels, size, size) to the residual x - u."""

    def __init__(self, latent_dim: int, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.plane = nn.Sequential(nn.Linear(latent_dim, size**2), nn.Unflatten(1, (1, size, size)))
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise((channels + 1, width, width)):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        residual: Tensor = self.layers(channels_last(torch.cat([u, self.plane(z)], 1)))
        return residual


class Generator(nn.Module):
    """Latents (B, latent_dim) to images (B, channels, image_size, image_size) around [-1, 1]."""

    def __init__(
        self,
        latent_dim: int = 100,
        channels: int = 1,
        image_size: int = 28,
        n_scales: int = 3,
        width: int = 32,
    ) -> None:
        super().__init__()
        size = base_size(n_scales, image_size)
        self.n_scales = n_scales
        base, *finer = (len(part) for part in torch.zeros(latent_dim).tensor_split(n_scales))
        self.base = mlp.Generator(base, channels, size, [256, 512], dropout=0.0)
        self.finer = nn.ModuleList(
            ResidualGenerator(dim, channels, size * 2**k, width) for k, dim in enumerate(finer, 1)
        )

    def scales(self, z: Tensor, u: Sequence[Tensor]) -> list[Tensor]:
        """The scales of images from given u_k. Both are ordered from fine to coarse."""
        z_base, *z_finer = z.tensor_split(self.n_scales, 1)
        finer = zip(self.finer, z_finer, reversed(u[:-1]), strict=True)
        scales = [u_k + generator(z_k, u_k) for generator, z_k, u_k in finer]
        return [*reversed(scales), self.base(z_base)]

    def coarse_to_fine(self, z: Tensor) -> list[Tensor]:
        """The scales of images, each generated from the next coarser one; from fine to coarse."""
        z_base, *z_finer = z.tensor_split(self.n_scales, 1)
        scales: list[Tensor] = [self.base(z_base)]
        for generator, z_k in zip(self.finer, z_finer, strict=True):
            u_k = upsample(scales[-1])
            scales.append(u_k + generator(z_k, u_k))
        return scales[::-1]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.coarse_to_fine(z)[0]


class ScaleFeatures(nn.Module):
    """D_k without its last layer: x and u (B, 2 channels, size, size) to features."""

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * channels, width, 4, 2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.n_features = 2 * width * (size // 2) ** 2

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.layers(channels_last(x))
        return maps.permute(0, 2, 3, 1).flatten(1)


class Discriminator(Base):
    """Tiled scales x and their tiled u_k, in y, to one logit per scale (n_scales B,)."""

    per_sample = True
    input_fields = frozenset({"x", "y"})

    def __init__(
        self, channels: int = 1, image_size: int = 28, n_scales: int = 3, width: int = 32
    ) -> None:
        super().__init__()
        size = base_size(n_scales, image_size)
        self.n_scales = n_scales
        base = mlp.Discriminator(channels, size, [256, 256], dropout=0.0)
        finer = [ScaleFeatures(channels, image_size // 2**k, width) for k in range(n_scales - 1)]
        self.sizes = [*(features.n_features for features in finer), base.n_features]
        self.n_features = sum(self.sizes)
        self.finer = nn.ModuleList(finer)
        self.base = drop_head_(base)
        self.last = nn.ModuleList(nn.Linear(n, 1, bias=False) for n in self.sizes)

    def features(self, batch: Batch) -> Tensor:
        xs, us = untile(batch.x, self.n_scales), untile(batch.condition, self.n_scales)
        scales = zip(self.finer, xs[:-1], us[:-1], strict=True)
        finer = [features(torch.cat([x, u], 1)) for features, x, u in scales]
        return torch.cat([*finer, self.base.features(batch._replace(x=xs[-1]))], 1)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        scales = zip(self.last, torch.split(features, self.sizes, 1), strict=True)
        return torch.cat([last(part).flatten() for last, part in scales])
