"""Points in the plane: toy data whose modes can be counted and plotted.

A point (a, b) is an image of two channels and one pixel, scale * (a, b). It passes through the same
module, networks and losses as a digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ganmnist.data.datasets import DataSet, Images
from ganmnist.utils.batch import Split
from ganmnist.utils.errors import UserError
from ganmnist.utils.rng import generator_for

N_TEST = 10_000  # test points


class Mixture(DataSet):
    """Isotropic Gaussians of equal weight. A point's label is the number of its Gaussian.

    The points are sampled in memory, always the same; nothing is kept on disk.

    Args:
        centers: (M, 2), the means of the Gaussians.
        std: their standard deviation along either axis.
        scale: factor that brings the points into [-1, 1], the range of a generator's tanh.
        channels: 2, the coordinates of a point.
        image_size: 1.
        n: training points.

    Raises:
        UserError: an argument is out of range.
    """

    kind = "mixture"
    modes_setting = "data.centers"

    def __init__(
        self,
        centers: Sequence[Sequence[float]],
        std: float,
        scale: float,
        channels: int = 2,
        image_size: int = 1,
        n: int = 50_000,
    ) -> None:
        if channels != 2:
            raise UserError(f"data.channels={channels}: points have data.channels=2.")
        if image_size != 1:
            raise UserError(f"data.image_size={image_size}: points have data.image_size=1.")
        if not len(centers):
            raise UserError(f"{self.modes_setting}=0: choose 1 or more.")
        for name, value in (("n", n), ("std", std), ("scale", scale)):
            if not value > 0:
                raise UserError(f"data.{name}={value}: choose a value above 0.")
        super().__init__(".", channels, image_size)
        self.centers = torch.tensor(centers)
        self.std = std
        self.scale = scale
        self.n = n

    @property
    def name(self) -> str:
        return f"{self.kind}{len(self.centers)}"

    def prepare(self) -> None:
        """Nothing to do."""

    def read(self) -> tuple[Images, Images]:
        return self.sample("train", self.n), self.sample("test", N_TEST)

    def sample(self, split: Split, n: int) -> Images:
        """n points (n, 2, 1, 1) float32 in [-1, 1], and the numbers (n,) of their Gaussians.

        Raises:
            UserError: a point is outside [-1, 1].
        """
        rng = generator_for(self.name, split)
        y = torch.randint(len(self.centers), (n,), generator=rng)
        x = self.scale * (self.centers[y] + self.std * torch.randn(n, 2, generator=rng))
        if x.abs().max() > 1:
            raise UserError(
                f"data.scale={self.scale}: points of {self.name} are outside [-1, 1], the range of "
                "a generator. Choose a smaller scale."
            )
        return Images(x[..., None, None], y)


class Ring(Mixture):
    """Gaussians on a circle around 0 (Metz et al., 2016, arXiv 1611.02163); the first at angle 0.

    The defaults are the ring of VEEGAN (Srivastava et al., 2017, arXiv 1705.07761), with the radius
    and the standard deviation of the paper.
    """

    kind = "ring"
    modes_setting = "data.modes"

    def __init__(
        self,
        modes: int = 8,
        radius: float = 2.0,
        std: float = 0.02,
        scale: float = 0.4,
        channels: int = 2,
        image_size: int = 1,
        n: int = 50_000,
    ) -> None:
        angles = [2 * math.pi * i / modes for i in range(modes)]
        centers = [(radius * math.cos(a), radius * math.sin(a)) for a in angles]
        super().__init__(centers, std, scale, channels, image_size, n)


class Grid(Mixture):
    """Gaussians on a square grid around 0, row by row (VEEGAN; PacGAN, arXiv 1712.04086)."""

    kind = "grid"
    modes_setting = "data.side"

    def __init__(
        self,
        side: int = 5,
        step: float = 2.0,
        std: float = 0.05,
        scale: float = 0.2,
        channels: int = 2,
        image_size: int = 1,
        n: int = 50_000,
    ) -> None:
        coordinates = [step * (i - (side - 1) / 2) for i in range(side)]
        super().__init__(
            [(a, b) for b in coordinates for a in coordinates],
            *(std, scale, channels, image_size, n),
        )
