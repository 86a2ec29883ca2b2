"""Multilayer perceptrons, as in the first GAN (Goodfellow et al., 2014, arXiv 1406.2661).

G   z -> 32 -> 64 -> 128 -> 784, tanh
D   784 -> 128 -> 64 -> 32 -> 1

A hidden layer is Linear, optional batch norm, LeakyReLU and dropout. With `pieces` above 1 it is a
maxout layer (Goodfellow et al., 2013, arXiv 1302.4389), as in the discriminator of the first GAN:
each unit is the maximum of `pieces` linear functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator as Base
from ganmnist.networks.perceptron import Dropout, Linear
from ganmnist.utils.batch import Batch


class Maxout(nn.Module):
    """(B, n_in) to (B, n_out): the maximum of `pieces` linear functions for each unit."""

    def __init__(self, n_in: int, n_out: int, pieces: int) -> None:
        super().__init__()
        self.linear = Linear(n_in, n_out * pieces)
        self.shape = (n_out, pieces)

    def forward(self, x: Tensor) -> Tensor:
        return torch.unflatten(self.linear(x), 1, self.shape).amax(2)


class ScaledSigmoid(nn.Module):
    """2 sigmoid(x) - 1, in [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.sigmoid() - 1


# Output functions of a generator, and their inverses for images in (-1, 1).
OUTPUTS: dict[str, tuple[type[nn.Module], Callable[[Tensor], Tensor]]] = {
    "tanh": (nn.Tanh, torch.atanh),
    "sigmoid": (ScaledSigmoid, lambda x: ((x + 1) / 2).logit()),
}


def hidden_layers(
    sizes: Sequence[int],
    slope: float,
    dropout: float,
    norm: str = "none",
    first_norm: bool = True,
    pieces: int = 1,
) -> list[nn.Module]:
    """Hidden layers whose numbers of units are `sizes`; the first is the input size.

    Raises:
        ValueError: `norm` is neither "none" nor "batch", or `pieces` is below 1.
    """
    if norm not in ("none", "batch"):
        raise ValueError(f"norm={norm}: multilayer perceptrons have none or batch")
    if pieces < 1:
        raise ValueError(
            f"model.discriminator.pieces={pieces}: choose 1 (LeakyReLU) or more (maxout)"
        )
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        layers.append(Linear(n_in, n_out) if pieces == 1 else Maxout(n_in, n_out, pieces))
        if norm == "batch" and (first_norm or i > 0):
            layers.append(nn.BatchNorm1d(n_out))
        if pieces == 1:
            layers.append(nn.LeakyReLU(slope, inplace=True))
        layers.append(Dropout(dropout))
    return layers


def init_uniform(network: nn.Module, bound: float | None) -> None:
    """Weights of linear layers uniform in [-bound, bound], biases 0; None: PyTorch's default."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear) and bound is not None:
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)


class Generator(nn.Module):
    """Latents (B, latent_dim) to images (B, channels, image_size, image_size) in [-1, 1].

    Args:
        widths: units of the hidden layers.
        output: tanh, or sigmoid, which is 2 sigmoid(x) - 1.
        init_bound: see `init_uniform`.
        mean_bias: initialize the last biases with the inverse output function of the mean of 10,000
            training images, as in the code of the first GAN.
    """

    def __init__(
        self,
        latent_dim: int = 100,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (32, 64, 128),
        slope: float = 0.2,
        dropout: float = 0.3,
        norm: str = "none",
        output: str = "tanh",
        init_bound: float | None = None,
        mean_bias: bool = False,
    ) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise ValueError(f"model.generator.output={output}: choose {' or '.join(OUTPUTS)}")
        shape = (channels, image_size, image_size)
        sizes = (latent_dim, *widths)
        function, self.inverse_output = OUTPUTS[output]
        self.layers = nn.Sequential(
            *hidden_layers(sizes, slope, dropout, norm),
            Linear(sizes[-1], math.prod(shape)),
            function(),
            nn.Unflatten(1, shape),
        )
        self.mean_bias = mean_bias
        init_uniform(self, init_bound)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        images: Tensor = self.layers(z)
        return images

    @torch.no_grad()
    def init_from_images(self, x: Tensor) -> None:
        """Sets the last biases by the mean of images (N, C, H, W)."""
        *_, last = (layer for layer in self.layers if isinstance(layer, nn.Linear))
        bound = 1 - 2e-7  # as in the code of the first GAN: 1e-7 for pixels in [0, 1]
        last.bias.copy_(self.inverse_output(x.mean(0).flatten().clamp(-bound, bound)))


class Discriminator(Base):
    """Images (B, channels, image_size, image_size) in [-1, 1] to logits (B,).

    Args:
        widths: units of the hidden layers.
        first_norm: the first hidden layer has the norm too.
        pieces: above 1: maxout layers, and `slope` is not used.
        input_dropout: probability that a pixel is set to black. If it is above 0, the input of the
            first layer is in [0, 1].
        init_bound: see `init_uniform`.
    """

    def __init__(
        self,
        channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (128, 64, 32),
        slope: float = 0.2,
        dropout: float = 0.3,
        norm: str = "none",
        first_norm: bool = True,
        pieces: int = 1,
        input_dropout: float = 0.0,
        init_bound: float | None = None,
    ) -> None:
        super().__init__()
        sizes = (channels * image_size**2, *widths)
        layers = hidden_layers(sizes, slope, dropout, norm, first_norm, pieces)
        self.layers = nn.Sequential(nn.Flatten(), *layers)
        self.drop_pixels = Dropout(input_dropout) if input_dropout else None
        self.per_sample = norm == "none"
        self.n_features = sizes[-1]
        self.last = Linear(self.n_features, 1)
        init_uniform(self, init_bound)

    def features(self, batch: Batch) -> Tensor:
        x = batch.x if self.drop_pixels is None else self.drop_pixels((batch.x + 1) / 2)
        features: Tensor = self.layers(x)
        return features

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = self.last(features)
        return logits.flatten()
