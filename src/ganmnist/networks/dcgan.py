"""Deep convolutional GAN (Radford et al., 2015, arXiv 1511.06434).

The generator is a column of transposed convolutions, the discriminator a column of strided ones;
batch norm and a rectifier follow each block but the last. The defaults are the 28x28 networks

    G   z -> 256x4x4 -> 128x7x7 -> 64x14x14 -> 1x28x28, tanh
    D   1x28x28 -> 64x14x14 -> 128x7x7 -> 1

and conf/model/dcgan64.yaml gives the five blocks of the paper's 64x64 ones. A block whose kernel
spans all there is, without padding, is a fully connected layer (conf/model/dcgan_fc.yaml).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.base import channels_last, norm_layer
from ganmnist.networks.perceptron import linear

if TYPE_CHECKING:
    from ganmnist.duel import Sample


class Generator(nn.Module):
    """Latents (B, latent_dim) to images (B, channels, H, W) in [-1, 1].

    Block i has `kernels[i]`, `strides[i]` and `paddings[i]`, by default 0 in the first, which opens
    the latent into a picture, and 1 after it. `widths` are the channels between the blocks.
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
        check_lengths(widths, kernels, strides, paddings)
        blocks: list[nn.Module] = []
        channels_of = pairwise((latent_dim, *widths, channels))
        size = 1
        for (c_in, c_out), k, s, p in zip(channels_of, kernels, strides, paddings, strict=True):
            convolution = Opening if size == 1 and p == 0 else nn.ConvTranspose2d
            blocks.append(convolution(c_in, c_out, k, s, padding=p, bias=False))
            blocks += [nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
            size = (size - 1) * s - 2 * p + k
        blocks[-2:] = [nn.Tanh()]
        self.blocks = nn.Sequential(*blocks)
        self.apply(init_weights)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.blocks(z[:, :, None, None])


class Opening(nn.ConvTranspose2d):
    """The transposed convolution of 1x1 pictures, as the matrix product that it is.

    Equal up to rounding, and faster on a CPU.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        x = linear(x.flatten(1), self.weight.flatten(1).t())
        return channels_last(x.unflatten(1, self.weight.shape[1:]))


class Closing(nn.Conv2d):
    """The convolution of maps as large as the kernel, as the matrix product that it is.

    They come as rows (B, H W C), pixel by pixel.
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)


class Discriminator(Base):
    """Images (B, channels, H, W) in [-1, 1] to logits (B,).

    Block i has `kernels[i]`, `strides[i]` and `paddings[i]`, by default 1 but for the last, whose
    kernel spans the whole of the last feature map, so that its stride says nothing. `norm`
    is batch, layer, instance or none; `first_norm` puts it on the first block as well, where the
    paper leaves it out.
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
        check_lengths(widths, kernels, strides, paddings)
        if paddings[-1]:
            raise ValueError(
                f"paddings={list(paddings)}: the last kernel spans its whole map, so end with 0"
            )
        # Norm layers have biases; without any D would be homogeneous, D(0) = 0 whatever it learns.
        free = norm == "none"
        blocks: list[nn.Module] = []
        layers = zip(pairwise((channels, *widths)), kernels, strides, paddings, strict=False)
        for i, ((c_in, c_out), k, s, p) in enumerate(layers):
            blocks.append(nn.Conv2d(c_in, c_out, k, s, padding=p, bias=free))
            if first_norm or i > 0:
                blocks.append(norm_layer(norm, c_out))
            blocks.append(nn.LeakyReLU(slope, inplace=True))
        self.blocks = nn.Sequential(*blocks)
        self.singly = norm != "batch"
        last = (channels, *widths)[-1]
        self.n_features = last * kernels[-1] ** 2
        self.last = Closing(last, 1, kernels[-1], bias=free)
        self.apply(init_weights)

    def features(self, sample: Sample) -> Tensor:
        assert sample.x is not None
        return self.blocks(channels_last(sample.x)).permute(0, 2, 3, 1).flatten(1)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).flatten()


def check_lengths(widths: Sequence[int], *of_blocks: Sequence[int]) -> None:
    if any(len(values) != len(widths) + 1 for values in of_blocks):
        names = ("kernels", "strides", "paddings")
        all_of = zip(names, of_blocks, strict=True)
        values = " and ".join(f"{name}={list(value)}" for name, value in all_of)
        raise ValueError(f"{values} must each name one value more than widths={list(widths)}")


def init_weights(module: nn.Module) -> None:
    """The paper's initialisation: convolutions ~ N(0, 0.02), batch norm ~ N(1, 0.02), biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
