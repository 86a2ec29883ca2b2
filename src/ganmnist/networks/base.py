"""What every discriminator is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from ganmnist.duel import Sample


class Discriminator(nn.Module):
    """Features of a sample, then one logit: sigmoid(logit) is the probability of being real.

    The split lets a term put a head of its own on the features (ACGAN, InfoGAN), match them, or
    score them together with a label (projection). A network reads the slots that it needs.
    """

    def features(self, sample: Sample) -> Tensor:
        """(B, F) features of the sample."""
        raise NotImplementedError

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        """(B,) logits."""
        raise NotImplementedError

    def forward(self, sample: Sample) -> Tensor:
        """(B,) logits."""
        return self.score(self.features(sample), sample)
