"""Base classes of discriminators, and the normalization layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ganmnist.utils.batch import Batch

DiscriminatorFactory = Callable[..., "Discriminator"]  # called with channels=C


class Discriminator(nn.Module):
    """Maps inputs to features (B, F), and features to one logit D(x).

    Only some objectives train sigmoid(D(x)) as the probability of a real image
    (`Objective.probability`).

    The features serve loss terms with their own head (ACGAN, InfoGAN), feature matching, and
    projection. A subclass reads the fields of the batch that it needs. Its last layer, from
    features to the logit, is called `last`.

    Attributes:
        n_features: F.
        per_sample: the logit of an image does not depend on the other images of its batch. False
            with batch norm.
        input_fields: the fields of the batch that the logit depends on.
        pack_size: images per row of features (PacGAN).
        n_scales: scales of an image in x. There is one logit per scale: (n_scales B,).
    """

    n_features: int
    per_sample = False
    input_fields = frozenset("x")
    pack_size = 1
    n_scales = 1

    def make_head(self, n: int) -> nn.Module:
        """A new last layer with n outputs."""
        layer = nn.Linear(self.n_features, n)
        # With the default initialization, logits of many features are far from 0 at first.
        nn.init.normal_(layer.weight, 0.0, 0.02)
        return layer

    def features(self, batch: Batch) -> Tensor:
        """Features (B, F)."""
        raise NotImplementedError

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        """Logits (B,)."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        return self.logits(self.features(batch), batch)


def drop_head_(discriminator: Discriminator) -> Discriminator:
    """Removes the last layer, in place, from a discriminator that is used for its features."""
    discriminator.last = nn.Identity()
    return discriminator


class DiscriminatorWrapper(Discriminator):
    """Delegates to another discriminator. Subclasses change its inputs or its logit.

    `per_sample` is False unless a subclass sets it. One forward pass for real and fake would halve
    the steps of power iteration (spectral norm), and it would change the order of random numbers
    (instance noise).
    """

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.n_features = discriminator.n_features
        self.input_fields = discriminator.input_fields
        self.pack_size = discriminator.pack_size
        self.n_scales = discriminator.n_scales

    def features(self, batch: Batch) -> Tensor:
        return self.discriminator.features(batch)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return self.discriminator.logits(features, batch)


def channels_last(x: Tensor) -> Tensor:
    """Converts (B, C, H, W) to PyTorch's channels_last memory format on a CPU.

    Convolutions and norms keep the format. A training step is faster by a tenth (dcgan, float32) to
    a half (r3gan, bfloat16).
    """
    if x.device.type != "cpu":
        return x
    c, h, w = x.shape[1:]
    # `x.to(memory_format=...)` changes nothing for a single channel, which has both formats.
    rows = x.permute(0, 2, 3, 1).flatten(1)
    return torch.unflatten(rows, 1, (h, w, c)).permute(0, 3, 1, 2)


# Layers for (B, C, H, W), called with C.
NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "layer": partial(nn.GroupNorm, 1),  # arXiv 1607.06450, over channels and pixels
    "instance": partial(nn.InstanceNorm2d, affine=True),
    "none": lambda channels: nn.Identity(),
}


def norm_layer(norm: str, channels: int) -> nn.Module:
    """The normalization of that name.

    Raises:
        ValueError: there is none.
    """
    if norm not in NORMS:
        raise ValueError(f"model.discriminator.norm={norm}: choose {', '.join(NORMS)}")
    return NORMS[norm](channels)
