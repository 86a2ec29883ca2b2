"""Base class of the stabilizers.

A stabilizer changes the discriminator, the objective or the generator step, for every architecture.
A `Stabilizer` holds settings. Most of them wrap D in a `DiscriminatorWrapper`, which changes the
inputs of D or adds to its logit. Some papers concatenate statistics s to the features h before the
last, linear layer. Here the wrapper adds w_s s to the logit, because w [h, s] = w_h h + w_s s.
"""

from __future__ import annotations

from ganmnist.losses.adversarial import Objective
from ganmnist.losses.terms import LossTerms
from ganmnist.networks.base import Discriminator
from ganmnist.utils.batch import Batch


class Stabilizer:
    """A change of D, of the objective, or of the generator step. The base class changes nothing."""

    discriminator_norm: str | None = None  # the value that model.discriminator.norm=auto takes

    def input_channels(self, channels: int) -> int:
        """Channels of the wrapped discriminator's input, given those of the wrapper's input."""
        return channels

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        """The discriminator to train.

        Raises:
            ValueError: this stabilizer does not fit the discriminator.
        """
        return discriminator

    def wrap_objective(self, objective: Objective) -> Objective:
        """The objective to train with.

        Raises:
            ValueError: this stabilizer does not fit the objective.
        """
        return objective

    def check(self, loss_terms: LossTerms) -> None:
        """Raises ValueError if this stabilizer does not fit the loss terms."""

    def discriminator_for_g(
        self, discriminator: Discriminator, loss_terms: LossTerms, real: Batch, fake: Batch
    ) -> Discriminator | None:
        """The discriminator of the generator step. None: the trained one."""
        return None


def require_images(discriminator: Discriminator, stabilizer: str) -> None:
    """Raises ValueError if D sees no images."""
    if "x" not in discriminator.input_fields:
        raise ValueError(
            f"stabilizer={stabilizer}: it changes the images that D sees, and this family's D sees "
            "latents only. Use another stabilizer, or family=gan"
        )


def require_one_scale(discriminator: Discriminator, stabilizer: str) -> None:
    """Raises ValueError if D sees an image at several scales."""
    if discriminator.n_scales > 1:
        raise ValueError(
            f"stabilizer={stabilizer}: it needs one scale, and this family's D sees "
            f"{discriminator.n_scales}. Use another stabilizer, or family=gan"
        )
