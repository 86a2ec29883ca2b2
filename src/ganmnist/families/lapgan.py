"""LAPGAN (Denton et al., 2015, arXiv 1506.05751): a GAN for each scale of a Laplacian pyramid.

A base GAN generates 7x7 images. Each finer scale upsamples the next coarser image and generates the
residual. In training, the coarser image is real, and all scales train at once. In sampling it is
generated (networks/pyramid.py). D sees the scales as tiles of one image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ganmnist.gan import GAN
from ganmnist.networks.pyramid import Generator, build_pyramid, tile, upsampled
from ganmnist.utils.batch import Batch, at_least_float32
from ganmnist.utils.modules import eval_no_grad
from ganmnist.utils.rng import generator_for


class LAPGAN(GAN):
    """A GAN for each scale of a Laplacian pyramid."""

    generator: Generator

    def real_inputs(self, batch: Batch, z: Tensor) -> Batch:
        scales = build_pyramid(batch.x, self.generator.n_scales)
        return Batch(tile(scales), tile(upsampled(scales)), z)

    def fake_inputs(self, batch: Batch, z: Tensor) -> Batch:
        u = upsampled(build_pyramid(batch.x, self.generator.n_scales))
        scales = [at_least_float32(x) for x in self.generator.scales(z, u)]
        return Batch(tile(scales), tile(u), z)

    def extra_images(self, real_images: Callable[[int], Batch]) -> dict[str, Tensor]:
        """`scales`: one row per scale, from coarse to fine, enlarged to the image's size."""
        rng = generator_for("scales", self.options.seed)
        z = self.latent(10, "cpu", rng).to(self.device)
        with eval_no_grad(self.generator):
            scales = self.generator.coarse_to_fine(z)[::-1]
        size = scales[-1].shape[-2:]
        return {"scales": torch.stack([F.interpolate(x, size) for x in scales])}
