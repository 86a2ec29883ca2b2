"""Points in the plane: toy data whose modes can be counted, and whose GAN can be watched.

A point (a, b) is an image of two channels and one pixel, scale * (a, b), so it passes through the
same module, networks and losses as a digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ganmnist.data.datasets import DataSet, Images
from ganmnist.errors import UserError
from ganmnist.rng import generator_for

TEST = 10_000  # test points


class Mixture(DataSet):
    """Round Gaussians of one size, all equally likely; a point's label is its Gaussian.

    Drawn in memory, the same points every time; nothing is kept on disk.

    Args:
        centres: (M, 2) where the Gaussians are.
        std: their standard deviation along either axis.
        scale: takes points into [-1, 1], where a generator's tanh can reach them.
        channels: 2, the coordinates of a point.
        n: training points.

    Raises:
        UserError: there would be no points, or of another number of coordinates.
    """

    kind = "mixture"

    def __init__(
        self,
        centres: Sequence[Sequence[float]],
        std: float,
        scale: float,
        channels: int = 2,
        n: int = 50_000,
    ) -> None:
        if channels != 2:
            raise UserError(f"data.channels={channels}: a point has 2 coordinates.")
        if not len(centres):
            raise UserError(f"{self.kind} data without a mode leave no points: ask for 1 or more.")
        for name, value in (("n", n), ("std", std), ("scale", scale)):
            if not value > 0:
                raise UserError(f"data.{name}={value} leaves no points: choose one above 0.")
        super().__init__(".", channels)
        self.centres = torch.tensor(centres)
        self.std = std
        self.scale = scale
        self.n = n

    @property
    def name(self) -> str:
        return f"{self.kind}{len(self.centres)}"

    def prepare(self) -> None:
        """There is nothing to fetch."""

    def read(self) -> tuple[Images, Images]:
        return self.draw("train", self.n), self.draw("test", TEST)

    def draw(self, part: str, n: int) -> Images:
        """`n` points (n, 2, 1, 1) float32 in [-1, 1], and which Gaussians they are from.

        Raises:
            UserError: some are outside [-1, 1].
        """
        rng = generator_for(self.name, part)
        y = torch.randint(len(self.centres), (n,), generator=rng)
        x = self.scale * (self.centres[y] + self.std * torch.randn(n, 2, generator=rng))
        if x.abs().max() > 1:
            raise UserError(
                f"data.scale={self.scale} leaves points of {self.name} outside [-1, 1], where no "
                "generator reaches them: choose a smaller one."
            )
        return Images(x[..., None, None], y)


class Ring(Mixture):
    """Gaussians on a circle around 0 (Metz et al., 2016, arXiv 1611.02163); the first at angle 0.

    With the defaults the ring of VEEGAN (Srivastava et al., 2017, arXiv 1705.07761), of the paper's
    radius and standard deviation.
    """

    kind = "ring"

    def __init__(
        self,
        modes: int = 8,
        radius: float = 2.0,
        std: float = 0.02,
        scale: float = 0.4,
        channels: int = 2,
        n: int = 50_000,
    ) -> None:
        angles = [2 * math.pi * i / modes for i in range(modes)]
        centres = [(radius * math.cos(a), radius * math.sin(a)) for a in angles]
        super().__init__(centres, std, scale, channels, n)


class Grid(Mixture):
    """Gaussians on a square grid around 0, row by row (VEEGAN; PacGAN, arXiv 1712.04086)."""

    kind = "grid"

    def __init__(
        self,
        side: int = 5,
        step: float = 2.0,
        std: float = 0.05,
        scale: float = 0.2,
        channels: int = 2,
        n: int = 50_000,
    ) -> None:
        places = [step * (i - (side - 1) / 2) for i in range(side)]
        super().__init__([(a, b) for b in places for a in places], std, scale, channels, n)
