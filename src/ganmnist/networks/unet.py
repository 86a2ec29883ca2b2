"""The U-Net generator of pix2pix (Isola et al., 2016, arXiv 1611.07004).

    down   y 1x28x28 -> 32x14x14 -> 64x7x7
    up     [z as 64x7x7, skip] -> [32x14x14, skip] -> 1x28x28, tanh

Each feature map on the way up is concatenated with that of its size on the way down. The paper has
dropout instead of z.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganmnist.networks.base import channels_last
from ganmnist.networks.dcgan import init_weights


class Generator(nn.Module):
    """Latents (B, latent_dim) and images y (B, channels, H, W) to images of that shape in [-1, 1].

    `widths` are the channels of the feature maps on the way down. Each is half as large as the
    previous one.
    """

    def __init__(
        self,
        latent_dim: int = 100,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (32, 64),
    ) -> None:
        super().__init__()
        size, rest = divmod(image_size, 2 ** len(widths))
        if rest or not size or not widths:
            raise ValueError(
                f"family.generator.widths={list(widths)}: images of {image_size} pixels cannot be "
                f"halved {len(widths)} times. Choose one width or more that halve them evenly"
            )
        inner = (channels, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c_in, c_out, 4, 2, padding=1, bias=i == 0),
                *([] if i == 0 else [nn.BatchNorm2d(c_out)]),
                nn.LeakyReLU(0.2),
            )
            for i, (c_in, c_out) in enumerate(zip(inner, widths, strict=True))
        )
        self.map_shape = (widths[-1], size, size)
        self.latent = nn.Linear(latent_dim, widths[-1] * size**2)
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(2 * c_in, c_out, 4, 2, padding=1, bias=i == 0),
                *([nn.Tanh()] if i == 0 else [nn.BatchNorm2d(c_out), nn.ReLU()]),
            )
            for i, (c_in, c_out) in enumerate(zip(widths, inner, strict=True))
        )
        self.apply(init_weights)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        maps = [channels_last(y)]
        for block in self.down:
            maps.append(block(maps[-1]))
        x = torch.unflatten(self.latent(z), 1, self.map_shape)
        for block, skip in zip(reversed(self.up), reversed(maps), strict=False):
            x = block(torch.cat([skip, x], 1))
        return x
