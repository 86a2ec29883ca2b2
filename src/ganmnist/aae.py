"""The adversarial autoencoder (Makhzani et al., 2015, arXiv 1511.05644).

The game is over latents: D tells draws of the prior from codes E(x), and E learns to pass. G is the
decoder, which E and G train together to give x back,

    L_D = l_D(z, E(x)),    L_E,G = l_G(E(x)) + w E |x - G(E(x))|^2 / 2

with x in [0, 1] and the square summed over its pixels, so that G draws digits of every z. Where G
is told the label, the code is left to say how the digit is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ganmnist.bigan import EncoderGAN
from ganmnist.duel import Duel, Part, Sample, Term, at_least_float32
from ganmnist.schedules import checked_number


class Reconstruction(Term):
    """w E |x - G(E(x))|^2 / 2, x in [0, 1]."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        checked_number("the weight of Reconstruction", weight)
        self.weight = weight

    def g_loss(self, duel: Duel) -> Tensor:
        assert duel.real.x is not None
        assert duel.fake.x is not None
        apart = (duel.real.x - duel.fake.x) / 2
        return self.weight * apart.square().flatten(1).sum(1).mean() / 2


class AAE(EncoderGAN):
    """A GAN over latents, with an encoder; D sees latents alone."""

    side = 10  # of the picture of the plane

    def real(self, batch: Sample, z: Tensor) -> Sample:
        return Sample(batch.x, batch.y, z)

    def fake(self, batch: Sample, z: Tensor) -> Sample:
        code = self.encoder(batch)
        x = at_least_float32(self.generator(code, batch.y))
        return Sample(x, batch.y, at_least_float32(code))

    def pictures(self, real: Callable[[int], Sample]) -> dict[str, Tensor]:
        """Reconstructions; for latents of two numbers, what G makes of each place of the plane.

        Places are quantiles of the prior, so that each picture stands for as many latents. `map`
        has the real image whose code is nearest to the same place.
        """
        grids = {"reconstructions": self.beside(real(50))}
        some = real(1000)
        codes = self.encode(some)
        if codes.shape[1] == 2 and self.condition is None:
            quantiles = (torch.arange(self.side) + 0.5) / self.side
            steps = torch.special.ndtri(quantiles).to(codes)
            plane = torch.cartesian_prod(-steps, steps).flip(1)
            nearest = torch.cdist(plane, codes).argmin(1)
            assert some.x is not None
            shape = (self.side, self.side)
            grids["manifold"] = self.sample(plane).unflatten(0, shape)
            grids["map"] = some.x[nearest].unflatten(0, shape)
        return grids

    def figures(self, real: Callable[[Part], Iterable[Sample]]) -> dict[str, float]:
        """`reconstruction`, of test images."""
        return {"reconstruction": self.reconstruction(real("test"))}
