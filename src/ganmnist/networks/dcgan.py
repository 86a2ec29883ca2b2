"""Deep convolutional GAN (Radford et al., 2015, arXiv 1511.06434).

The generator is a column of transposed convolutions, the discriminator a column of strided ones;
batch norm and a rectifier follow each block but the last. The defaults are the 28x28 networks

    G   z -> 256x4x4 -> 128x7x7 -> 64x14x14 -> 1x28x28, tanh
    D   1x28x28 -> 64x14x14 -> 128x7x7 -> 1

and conf/model/dcgan64.yaml gives the five blocks of the paper's 64x64 ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.base import channels_last, norm_layer
from ganmnist.networks.perceptron import linear

if TYPE_CHECKING:
    from ganmnist.duel import Sample


class Generator(nn.Module):
    """Latents (B, latent_dim) to images (B, channels, H, W) in [-1, 1].

    Block i has `kernels[i]` and `strides[i]`; padding is 0 in the first, which opens the latent
    into a picture, and 1 after it. `widths` are the channels between the blocks.
    """

    def __init__(
        self,
        latent_dim: int = 100,
        channels: int = 1,
        widths: Sequence[int] = (256, 128, 64),
        kernels: Sequence[int] = (4, 3, 4, 4),
        strides: Sequence[int] = (1, 2, 2, 2),
    ) -> None:
        super().__init__()
        check_lengths(widths, kernels, strides)
        blocks: list[nn.Module] = []
        sizes = zip((latent_dim, *widths), (*widths, channels), kernels, strides, strict=True)
        for i, (c_in, c_out, kernel, stride) in enumerate(sizes):
            padding = 0 if i == 0 else 1
            convolution = Opening if i == 0 else nn.ConvTranspose2d
            blocks.append(convolution(c_in, c_out, kernel, stride, padding=padding, bias=False))
            last = i == len(widths)
            blocks += [nn.Tanh()] if last else [nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
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

    The last kernel spans the whole of the last feature map. `norm` is batch, layer, instance or
    none; `first_norm` puts it on the first block as well, where the paper leaves it out.
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
    ) -> None:
        super().__init__()
        check_lengths(widths, kernels, strides)
        # Norm layers have biases; without any D would be homogeneous, D(0) = 0 whatever it learns.
        free = norm == "none"
        blocks: list[nn.Module] = []
        *body, (c_last, c_logit, kernel, stride) = zip(
            (channels, *widths), (*widths, 1), kernels, strides, strict=True
        )
        for i, (c_in, c_out, k, s) in enumerate(body):
            blocks.append(nn.Conv2d(c_in, c_out, k, s, padding=1, bias=free))
            if first_norm or i > 0:
                blocks.append(norm_layer(norm, c_out))
            blocks.append(nn.LeakyReLU(slope, inplace=True))
        self.blocks = nn.Sequential(*blocks)
        self.singly = norm != "batch"
        self.n_features = c_last * kernel**2
        self.last = Closing(c_last, c_logit, kernel, stride, bias=free)
        self.apply(init_weights)

    def features(self, sample: Sample) -> Tensor:
        assert sample.x is not None
        return self.blocks(channels_last(sample.x)).permute(0, 2, 3, 1).flatten(1)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).flatten()


def check_lengths(widths: Sequence[int], kernels: Sequence[int], strides: Sequence[int]) -> None:
    if not len(kernels) == len(strides) == len(widths) + 1:
        raise ValueError(
            f"kernels={list(kernels)} and strides={list(strides)} must each name one value more "
            f"than widths={list(widths)}"
        )


def init_weights(module: nn.Module) -> None:
    """The paper's initialisation: convolutions ~ N(0, 0.02), batch norm ~ N(1, 0.02), biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
