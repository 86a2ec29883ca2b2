"""LAPGAN (Denton et al., 2015, arXiv 1506.05751): from coarse to fine, a game a size.

A base GAN draws 7x7 pixels; each finer level is told the enlarged image u of the level below and
adds what u is short of. Levels are trained side by side on real u, and drawn one upon the other
(networks/pyramid.py). Terms see the levels of an image as one, tiled.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ganmnist.duel import Sample, at_least_float32
from ganmnist.gan import GAN
from ganmnist.networks.pyramid import Generator, enlarged, levels_of, tiled
from ganmnist.passes import at_rest
from ganmnist.rng import generator_for


class LAPGAN(GAN):
    """A GAN for each level of a pyramid, in one."""

    generator: Generator

    def real(self, batch: Sample, z: Tensor) -> Sample:
        assert batch.x is not None
        parts = levels_of(batch.x, self.generator.levels)
        return Sample(tiled(parts), tiled(enlarged(parts)), z)

    def fake(self, batch: Sample, z: Tensor) -> Sample:
        assert batch.x is not None
        u = enlarged(levels_of(batch.x, self.generator.levels))
        made = [at_least_float32(part) for part in self.generator.parts(z, u)]
        return Sample(tiled(made), tiled(u), z)

    def pictures(self, real: Callable[[int], Sample]) -> dict[str, Tensor]:
        """A row a level, from the base to the image, all of them as large."""
        z = self.latent(10, "cpu", generator_for("levels", self.seed)).to(self.device)
        with at_rest(self.generator):
            made = self.generator.grow(z)[::-1]
        size = made[-1].shape[-2:]
        return {"levels": torch.stack([torch.nn.functional.interpolate(x, size) for x in made])}
