"""A discriminator that classifies (Salimans et al., 2016, arXiv 1606.03498).

It has a logit l_k for each of K classes, and an implicit logit 0 for generated images. With
Z = sum_k exp(l_k), P(real) = Z / (Z + 1). The logit of real against generated is therefore log Z.
"""

from __future__ import annotations

from torch import Tensor

from ganmnist.networks.base import Discriminator, DiscriminatorFactory, drop_head_
from ganmnist.utils.batch import Batch


class ClassifierDiscriminator(Discriminator):
    """Adds logits of `n_classes` classes to the features of `body`; the logit of real is log Z."""

    def __init__(self, body: DiscriminatorFactory, n_classes: int, channels: int = 1) -> None:
        super().__init__()
        if n_classes < 2:
            raise ValueError(f"family.discriminator.n_classes={n_classes}: choose 2 or more")
        network = body(channels=channels)
        self.per_sample = network.per_sample
        self.input_fields = network.input_fields
        self.n_classes = n_classes
        self.body = drop_head_(network)
        self.n_features = network.n_features
        self.last = network.make_head(n_classes)

    def features(self, batch: Batch) -> Tensor:
        return self.body.features(batch)

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, K) of the classes."""
        logits: Tensor = self.last(features)
        return logits.float()

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return self.classify(features).logsumexp(1)
