"""GANs with an encoder E, from images to latents. G(E(x)) is the reconstruction of x."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ganmnist.gan import GAN
from ganmnist.networks.encoders import Encoder
from ganmnist.networks.initialization import first_batches, init_from_data
from ganmnist.utils.batch import Batch, concat_columns
from ganmnist.utils.modules import eval_no_grad


class EncoderGAN(GAN):
    """A GAN with an encoder E, from images (B, C, H, W) to latents (B, Z).

    encoder: builds E from `channels`.
    """

    def __init__(self, encoder: Callable[..., Encoder], channels: int = 1, **settings: Any) -> None:
        super().__init__(channels=channels, **settings)
        self.encoder = encoder(channels=channels)

    def initialize(self, real_images: Callable[[int], Batch], batch_size: int) -> None:
        super().initialize(real_images, batch_size)
        images, n_batches = first_batches(real_images, batch_size)
        init_from_data(self.encoder, lambda: self.encoder(images), n_batches)

    def encode(self, real: Batch) -> Tensor:
        """E(x) (B, Z), in evaluation mode."""
        with eval_no_grad(self.encoder):
            z: Tensor = self.encoder(real)
            return z

    def reconstruct(self, real: Batch) -> Tensor:
        """G(E(x)) (B, C, H, W), in evaluation mode."""
        return self.sample(self.encode(real), real.y)

    def reconstruction_error(self, batches: Iterable[Batch]) -> float:
        """The mean of |x - G(E(x))|^2, for pixels in [0, 1]."""
        rows = ((squared_distance(batch.x, self.reconstruct(batch)),) for batch in batches)
        (distances,) = concat_columns(rows)
        return distances.mean().item()

    def reconstruction_grid(self, real: Batch) -> Tensor:
        """Rows of ten images, each followed by a row of their reconstructions."""
        pairs = [torch.unflatten(x, 0, (-1, 10)) for x in (real.x, self.reconstruct(real))]
        return torch.stack(pairs, 1).flatten(0, 1)


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """|x - y|^2 (B,) of images in [-1, 1], for pixels in [0, 1]."""
    return ((x - y) / 2).square().flatten(1).sum(1)
