"""Random images, as a data set and as a batch."""

import torch

from ganmnist.data import DataSet, Images
from ganmnist.utils.batch import Batch


class RandomImages(DataSet):
    """`n` training and 16 test images of uniform noise with balanced labels, fixed by the seed."""

    name = "random images"

    def __init__(self, n: int = 27, size: int = 8, channels: int = 1, seed: int = 0) -> None:
        super().__init__(".", channels)
        self.n = n
        self.size = size
        self.seed = seed

    def prepare(self) -> None: ...

    def read(self) -> tuple[Images, Images]:
        rng = torch.Generator().manual_seed(self.seed)
        shape = (1, self.size, self.size)
        train, test = (
            Images(
                torch.randint(256, (n, *shape), generator=rng, dtype=torch.uint8),
                torch.randperm(n, generator=rng) % 10,
            )
            for n in (self.n, 16)
        )
        return train, test


def images(n: int = 8) -> Batch:
    """A batch of uniform noise in [-1, 1], (n, 1, 8, 8), with labels (n,)."""
    return Batch(torch.rand(n, 1, 8, 8) * 2 - 1, torch.randint(10, (n,)))
