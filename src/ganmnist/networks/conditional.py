"""Networks that are told a class, or an image: what is put around those that know of none.

With y one-hot, e(y) a learned map as large as the image, v(y) a learned vector and h D's features,

    generator     G([z, y])
    joined        D([x, e(y)])             Mirza and Osindero (2014, arXiv 1411.1784)
    projection    D(x) + <v(y), h(x)>      Miyato and Koyama (2018, arXiv 1802.05637)
    beside        D([x, y]), y an image    Isola et al. (2016, arXiv 1611.07004)

so each works with every architecture. Mirza and Osindero's perceptrons have hidden layers for x and
for y before they join them; Miyato and Koyama's G takes y in its batch norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator, Wrapper

if TYPE_CHECKING:
    from ganmnist.duel import Sample


def one_hot(y: Tensor | None, classes: int) -> Tensor:
    """Labels (B,) as float32 rows (B, classes) of zeros and a one.

    Raises:
        ValueError: there are none.
    """
    if y is None:
        raise ValueError("this network is told a class, so it needs labels y (B,) with its input")
    return F.one_hot(y, classes).float()


class Generator(nn.Module):
    """Latents (B, Z) and labels (B,) to images; `inside` takes latents of Z + classes."""

    def __init__(self, inside: nn.Module, classes: int) -> None:
        super().__init__()
        self.inside = inside
        self.classes = classes

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.inside(torch.cat([z, one_hot(y, self.classes)], 1))


class Joined(Wrapper):
    """Shows D the label as one more channel; `inside` takes one more than the images have."""

    def __init__(self, inside: Discriminator, classes: int, image_size: int = 28) -> None:
        super().__init__(inside)
        self.singly = inside.singly
        self.sees = inside.sees | {"y"}
        self.map = nn.Linear(classes, image_size**2, bias=False)

    def features(self, sample: Sample) -> Tensor:
        assert sample.x is not None
        channel = self.map(one_hot(sample.y, self.map.in_features)).view_as(sample.x[:, :1])
        return super().features(sample._replace(x=torch.cat([sample.x, channel], 1)))


class Beside(Wrapper):
    """Shows D an image y beside x; `inside` takes twice the channels that the images have."""

    def __init__(self, inside: Discriminator) -> None:
        super().__init__(inside)
        self.singly = inside.singly
        self.sees = inside.sees | {"y"}

    def features(self, sample: Sample) -> Tensor:
        assert sample.x is not None
        assert sample.y is not None
        return super().features(sample._replace(x=torch.cat([sample.x, sample.y], 1)))


class Projection(Wrapper):
    """Adds the label's view of the features to D's logit."""

    def __init__(self, inside: Discriminator, classes: int) -> None:
        super().__init__(inside)
        self.singly = inside.singly
        self.sees = inside.sees | {"y"}
        self.vector = nn.Linear(classes, inside.n_features, bias=False)
        # Small beside what D itself says, of thousands of features in dcgan's case.
        nn.init.normal_(self.vector.weight, 0.0, 0.02)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        v = self.vector(one_hot(sample.y, self.vector.in_features))
        return super().score(features, sample) + (v * features).sum(1)
