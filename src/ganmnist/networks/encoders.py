"""Encoders from images to latents, and discriminators of latents.

An encoder is the body of a discriminator with a new last layer, so every architecture has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator, DiscriminatorFactory, drop_head_
from ganmnist.networks.perceptron import Linear
from ganmnist.utils.batch import Batch


class Encoder(nn.Module):
    """Images to latents (B, latent_dim), by a linear layer on the features of `body`.

    bounded: latents are 2 sigmoid(h) - 1, for a prior that is uniform in [-1, 1].
    """

    def __init__(
        self, body: DiscriminatorFactory, latent_dim: int, bounded: bool = False, channels: int = 1
    ) -> None:
        super().__init__()
        self.body = drop_head_(body(channels=channels))
        self.last = Linear(self.body.n_features, latent_dim)
        self.bounded = bounded

    def features(self, batch: Batch) -> Tensor:
        """The last hidden layer (B, F)."""
        return self.body.features(batch)

    def forward(self, batch: Batch) -> Tensor:
        z: Tensor = self.last(self.features(batch))
        return 2 * z.sigmoid() - 1 if self.bounded else z


class JointDiscriminator(Discriminator):
    """Pairs of images and latents (B, latent_dim) to logits (B,).

    The features of `body` and the latent are the input of one hidden layer with `hidden` units.
    `norm`, none or batch, is before its LeakyReLU.
    """

    def __init__(
        self,
        body: DiscriminatorFactory,
        latent_dim: int,
        hidden: int = 1024,
        norm: str = "none",
        channels: int = 1,
    ) -> None:
        super().__init__()
        if norm not in ("none", "batch"):
            raise ValueError(f"family.discriminator.norm={norm}: choose none or batch")
        self.body = drop_head_(body(channels=channels))
        self.per_sample = self.body.per_sample and norm == "none"
        self.input_fields = self.body.input_fields | {"z"}
        layers: list[nn.Module] = [Linear(self.body.n_features + latent_dim, hidden)]
        layers += [nn.BatchNorm1d(hidden)] if norm == "batch" else []
        self.join = nn.Sequential(*layers, nn.LeakyReLU(0.2))
        self.n_features = hidden
        self.last = nn.Linear(hidden, 1)

    def features(self, batch: Batch) -> Tensor:
        joined = torch.cat([self.body.features(batch), batch.latents], 1)
        features: Tensor = self.join(joined)
        return features

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = self.last(features)
        return logits.flatten()


class LatentDiscriminator(Discriminator):
    """Latents (B, latent_dim) to logits (B,), by an MLP. It does not see images."""

    per_sample = True
    input_fields = frozenset("z")

    def __init__(self, latent_dim: int, widths: Sequence[int] = (1000, 1000)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((latent_dim, *widths)):
            layers += [Linear(n_in, n_out), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.n_features = widths[-1] if widths else latent_dim
        self.last = nn.Linear(self.n_features, 1)

    def features(self, batch: Batch) -> Tensor:
        features: Tensor = self.layers(batch.latents)
        return features

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = self.last(features)
        return logits.flatten()
