"""A discriminator that names classes (Salimans et al., 2016, arXiv 1606.03498).

It has a logit l_k for each of K classes and, for being generated, one more that is always 0. Then
an image is real with probability Z / (Z + 1), Z = sum of exp l_k, so that the one logit that every
objective asks for is log Z.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ganmnist.networks.base import Discriminator
from ganmnist.networks.encoders import headless

if TYPE_CHECKING:
    from ganmnist.duel import Sample


class Classes(Discriminator):
    """The features of `body`, and log Z of the logits of so many classes."""

    def __init__(self, body: Discriminator, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(
                f"family.discriminator.classes={classes} leaves nothing to tell apart: choose 2 or "
                "more"
            )
        self.singly = body.singly
        self.sees = body.sees
        self.classes = classes
        self.body = headless(body)
        self.n_features = body.n_features
        self.last = body.head(classes)

    def features(self, sample: Sample) -> Tensor:
        return self.body.features(sample)

    def classify(self, features: Tensor) -> Tensor:
        """(B, K) logits of the classes, of an image that is real."""
        return self.last(features).float()

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.classify(features).logsumexp(1)
