"""Conditional networks, as wrappers around unconditional ones.

With y one-hot, e(y) a learned channel as large as the image, v(y) a learned vector and h D's
features:

    generator       G([z, y])
    label channel   D([x, e(y)])             Mirza and Osindero (2014, arXiv 1411.1784)
    projection      D(x) + <v(y), h(x)>      Miyato and Koyama (2018, arXiv 1802.05637)
    image concat    D([x, y]), y an image    Isola et al. (2016, arXiv 1611.07004)

Each works with every architecture. There are two differences from the papers. Mirza and Osindero's
MLPs have separate hidden layers for x and for y. Miyato and Koyama's generator has conditional
batch norm.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.networks.base import DiscriminatorFactory, DiscriminatorWrapper
from ganmnist.utils.batch import Batch


def one_hot(y: Tensor, n_classes: int) -> Tensor:
    """Labels (B,) to one-hot rows (B, n_classes), float32."""
    return F.one_hot(y, n_classes).float()


class Generator(nn.Module):
    """Latents (B, Z) and labels (B,) to images, by a generator with Z + n_classes inputs."""

    def __init__(
        self,
        generator: Callable[..., nn.Module],
        n_classes: int,
        latent_dim: int = 100,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.generator = generator(latent_dim=latent_dim + n_classes, channels=channels)
        self.n_classes = n_classes

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            raise ValueError("This generator needs labels: pass y (B,) with the latents")
        images: Tensor = self.generator(torch.cat([z, one_hot(y, self.n_classes)], 1))
        return images


class LabelChannel(DiscriminatorWrapper):
    """Adds the embedded label to the image as a channel."""

    def __init__(
        self,
        discriminator: DiscriminatorFactory,
        n_classes: int,
        image_size: int = 28,
        channels: int = 1,
    ) -> None:
        super().__init__(discriminator(channels=channels + 1))
        self.per_sample = self.discriminator.per_sample
        self.input_fields |= {"y"}
        self.embedding = nn.Linear(n_classes, image_size**2, bias=False)

    def features(self, batch: Batch) -> Tensor:
        embedded = self.embedding(one_hot(batch.condition, self.embedding.in_features))
        x = torch.cat([batch.x, embedded.view_as(batch.x[:, :1])], 1)
        return super().features(batch._replace(x=x))


class ConcatImage(DiscriminatorWrapper):
    """Concatenates the condition, an image, and x along the channels."""

    def __init__(self, discriminator: DiscriminatorFactory, channels: int = 1) -> None:
        super().__init__(discriminator(channels=2 * channels))
        self.per_sample = self.discriminator.per_sample
        self.input_fields |= {"y"}

    def features(self, batch: Batch) -> Tensor:
        x = torch.cat([batch.x, batch.condition], 1)
        return super().features(batch._replace(x=x))


class Projection(DiscriminatorWrapper):
    """Adds the inner product of the features and the label's vector to the logit."""

    def __init__(
        self, discriminator: DiscriminatorFactory, n_classes: int, channels: int = 1
    ) -> None:
        super().__init__(discriminator(channels=channels))
        self.per_sample = self.discriminator.per_sample
        self.input_fields |= {"y"}
        self.embedding = nn.Linear(n_classes, self.n_features, bias=False)
        # The default initialization is too large for dcgan's thousands of features.
        nn.init.normal_(self.embedding.weight, 0.0, 0.02)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        v: Tensor = self.embedding(one_hot(batch.condition, self.embedding.in_features))
        return super().logits(features, batch) + (v * features).sum(1)
