"""Adversarial autoencoder (Makhzani et al., 2015, arXiv 1511.05644).

D classifies latents as samples of the prior or as codes E(x). E and the decoder G also reconstruct
x:

    L_D = l_D(D(z), D(E(x))),    L_E,G = l_G(D(E(x))) + w mean |x - G(E(x))|^2 / 2

where l_D and l_G take the logits of real and of fake latents. The square is summed over pixels in
[0, 1]. If G takes the label as well, the code represents the
style.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ganmnist.families.encoder_gan import EncoderGAN, squared_distance
from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks.base import Discriminator
from ganmnist.utils.batch import Batch, Split, at_least_float32
from ganmnist.utils.schedules import check_number


class Reconstruction(LossTerm):
    """w mean |x - G(E(x))|^2 / 2, for pixels in [0, 1]."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        check_number("family.auxiliary.reconstruction.weight", weight)
        self.weight = weight

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return self.weight * squared_distance(out.real.x, out.fake.x).mean() / 2


class AAE(EncoderGAN):
    """A GAN whose D sees latents only, with an encoder."""

    grid_size = 10  # rows and columns of `manifold` and `map`

    def build_discriminator(
        self, make: Callable[..., Discriminator], channels: int
    ) -> Discriminator:
        return make()

    def real_inputs(self, batch: Batch, z: Tensor) -> Batch:
        return Batch(batch.x, batch.y, z)

    def fake_inputs(self, batch: Batch, z: Tensor) -> Batch:
        code = self.encoder(batch)
        x = at_least_float32(self.generator(code, batch.y))
        return Batch(x, batch.y, at_least_float32(code))

    def extra_images(self, real_images: Callable[[int], Batch]) -> dict[str, Tensor]:
        """`reconstructions`; for two-dimensional latents also `manifold` and `map`.

        `manifold` has G's images at a grid of quantiles of the prior. `map` has, for each of these
        points, the real image with the nearest code.
        """
        grids = {"reconstructions": self.reconstruction_grid(real_images(50))}
        batch = real_images(1000)
        codes = self.encode(batch)
        if codes.shape[1] == 2 and self.labels is None:
            quantiles = (torch.arange(self.grid_size) + 0.5) / self.grid_size
            values = torch.special.ndtri(quantiles).to(codes)
            points = torch.cartesian_prod(-values, values).flip(1)
            nearest = torch.cdist(points, codes).argmin(1)
            shape = (self.grid_size, self.grid_size)
            grids["manifold"] = torch.unflatten(self.sample(points), 0, shape)
            grids["map"] = torch.unflatten(batch.x[nearest], 0, shape)
        return grids

    def extra_metrics(self, real_batches: Callable[[Split], Iterable[Batch]]) -> dict[str, float]:
        """`reconstruction_error` of test images."""
        return {"reconstruction_error": self.reconstruction_error(real_batches("test"))}
