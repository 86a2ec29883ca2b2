"""Deep convolutional GAN (Radford et al., 2015, arXiv 1511.06434).

The generator is a sequence of transposed convolutions, the discriminator one of strided
convolutions. Batch norm and an activation follow each convolution except the last. The defaults
are for 28x28 images:

    G   z -> 256x4x4 -> 128x7x7 -> 64x14x14 -> 1x28x28, tanh
    D   1x28x28 -> 64x14x14 -> 128x7x7 -> 1

conf/model/dcgan64.yaml has five blocks for 64x64 images. A kernel as large as its
feature map, without padding, is a fully connected layer (conf/model/dcgan_fc.yaml).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.base import channels_last, norm_layer
from ganmnist.networks.perceptron import linear
from ganmnist.utils.batch import Batch


class Generator(nn.Module):
    """Latents (B, latent_dim) to images (B, channels, H, W) in [-1, 1].

    Block i has `kernels[i]`, `strides[i]` and `paddings[i]`. The default paddings are 0 in the
    first block, which makes a feature map from the latent, and 1 in the others. `widths` are the
    channels between the blocks.
    """

    def __init__(
        self,
        latent_dim: int = 100,
        channels: int = 1,
        widths: Sequence[int] = (256, 128, 64),
        kernels: Sequence[int] = (4, 3, 4, 4),
        strides: Sequence[int] = (1, 2, 2, 2),
        paddings: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        paddings = [0, *[1] * len(widths)] if paddings is None else paddings
        check_lengths("generator", widths, kernels, strides, paddings)
        blocks: list[nn.Module] = []
        channels_of = pairwise((latent_dim, *widths, channels))
        size = 1
        for (c_in, c_out), k, s, p in zip(channels_of, kernels, strides, paddings, strict=True):
            convolution = ConvTransposeFrom1x1 if size == 1 and p == 0 else nn.ConvTranspose2d
            blocks.append(convolution(c_in, c_out, k, s, padding=p, bias=False))
            blocks += [nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
            size = (size - 1) * s - 2 * p + k
        blocks[-2:] = [nn.Tanh()]
        self.blocks = nn.Sequential(*blocks)
        self.apply(init_weights)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        images: Tensor = self.blocks(z[:, :, None, None])
        return images


class ConvTransposeFrom1x1(nn.ConvTranspose2d):
    """A transposed convolution of 1x1 feature maps, computed as a matrix product.

    It is equal up to rounding, and faster on a CPU.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        x = linear(x.flatten(1), self.weight.flatten(1).t())
        return channels_last(torch.unflatten(x, 1, self.weight.shape[1:]))


class FinalConv(nn.Conv2d):
    """A convolution of feature maps as large as the kernel, computed as a matrix product.

    The input is flattened to (B, H W C), with the channels last.
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)


class Discriminator(Base):
    """Images (B, channels, H, W) in [-1, 1] to logits (B,).

    Block i has `kernels[i]`, `strides[i]` and `paddings[i]`. The default paddings are 1 except in
    the last block. The kernel of the last block is as large as its feature map, and its stride is
    not used.
    `norm` is batch, layer, instance or none. With `first_norm` the first block has it too; the
    paper has none there.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (64, 128),
        kernels: Sequence[int] = (4, 4, 7),
        strides: Sequence[int] = (2, 2, 1),
        norm: str = "batch",
        first_norm: bool = True,
        slope: float = 0.2,
        paddings: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        paddings = [*[1] * len(widths), 0] if paddings is None else paddings
        check_lengths("discriminator", widths, kernels, strides, paddings)
        if paddings[-1]:
            raise ValueError(
                f"model.discriminator.paddings={list(paddings)}: the last kernel is as large as "
                "its feature map. Choose 0 for the last padding"
            )
        # Without norm layers and biases, the logit of the gray image x = 0 would always be 0.
        bias = norm == "none"
        blocks: list[nn.Module] = []
        layers = zip(pairwise((channels, *widths)), kernels, strides, paddings, strict=False)
        for i, ((c_in, c_out), k, s, p) in enumerate(layers):
            blocks.append(nn.Conv2d(c_in, c_out, k, s, padding=p, bias=bias))
            if first_norm or i > 0:
                blocks.append(norm_layer(norm, c_out))
            blocks.append(nn.LeakyReLU(slope, inplace=True))
        self.blocks = nn.Sequential(*blocks)
        self.per_sample = norm != "batch"
        last_width = (channels, *widths)[-1]
        self.n_features = last_width * kernels[-1] ** 2
        self.last = FinalConv(last_width, 1, kernels[-1], bias=bias)
        self.apply(init_weights)

    def features(self, batch: Batch) -> Tensor:
        maps: Tensor = self.blocks(channels_last(batch.x))
        return maps.permute(0, 2, 3, 1).flatten(1)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = self.last(features)
        return logits.flatten()


def check_lengths(network: str, widths: Sequence[int], *per_block: Sequence[int]) -> None:
    for name, values in zip(("kernels", "strides", "paddings"), per_block, strict=True):
        if len(values) != len(widths) + 1:
            raise ValueError(
                f"model.{network}.{name}={list(values)}: choose {len(widths) + 1} numbers, one "
                f"more than widths={list(widths)} has"
            )


def init_weights(module: nn.Module) -> None:
    """The initialization of DCGANs: normal weights with a standard deviation of 0.02.

    Their mean is 0 in convolutions and 1 in batch norm. Biases are 0.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
