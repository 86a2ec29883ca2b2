"""What every discriminator is, what is put around one, and the norms that networks choose from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from ganmnist.duel import Sample


class Discriminator(nn.Module):
    """Features of a sample, then one logit: sigmoid(logit) is the probability of being real.

    The split lets a term put a head of its own on the features (ACGAN, InfoGAN), match them, or
    score them together with a label (projection). A network reads the slots that it needs. The
    layer that scores is called `last`: what wants the features alone puts another in its place.
    """

    n_features: int  # F
    # What it makes of an image never depends on the others of its batch, as batch norm would.
    singly = False
    discriminator_norm: str | None = None  # what model.discriminator.norm=auto has to be
    sees = frozenset("x")  # the slots of a sample that its answer depends on
    pack = 1  # images behind one row of features
    levels = 1  # sizes of an image in one x, with a logit for each: (levels B,)

    def head(self, n: int) -> nn.Module:
        """A layer that makes n numbers of features (B, F), as `last` makes one."""
        layer = nn.Linear(self.n_features, n)
        # Small, or the sums of many features are far from 0, resnet's most of all.
        nn.init.normal_(layer.weight, 0.0, 0.02)
        return layer

    def features(self, sample: Sample) -> Tensor:
        """(B, F) features of the sample."""
        raise NotImplementedError

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        """(B,) logits."""
        raise NotImplementedError

    def forward(self, sample: Sample) -> Tensor:
        """(B,) logits."""
        return self.score(self.features(sample), sample)


class Wrapper(Discriminator):
    """The discriminator inside, unchanged."""

    def __init__(self, inside: Discriminator) -> None:
        super().__init__()
        self.inside = inside
        self.n_features = inside.n_features
        self.sees = inside.sees
        self.pack = inside.pack
        self.levels = inside.levels

    def features(self, sample: Sample) -> Tensor:
        return self.inside.features(sample)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.inside.score(features, sample)


def channels_last(x: Tensor) -> Tensor:
    """The same (B, C, H, W); on a CPU, the channels of a pixel lie side by side in memory.

    Convolutions and norms hand that order on. In it a step is faster by a tenth (dcgan, float32)
    to a half (r3gan, bfloat16).
    """
    if x.device.type != "cpu":
        return x
    c, h, w = x.shape[1:]
    # Flattened in between, since a single channel would count as being in any order.
    return x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (h, w, c)).permute(0, 3, 1, 2)


# Layers for (B, C, H, W), made for a number of channels.
NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "layer": partial(nn.GroupNorm, 1),  # arXiv 1607.06450, over channels and places
    "instance": partial(nn.InstanceNorm2d, affine=True),
    "none": lambda channels: nn.Identity(),
}


def norm_layer(norm: str, channels: int) -> nn.Module:
    """The normalisation of that name.

    Raises:
        ValueError: there is none.
    """
    if norm not in NORMS:
        raise ValueError(f"norm={norm} is unknown: choose {', '.join(NORMS)}")
    return NORMS[norm](channels)
