"""Base class of all loss terms.

A `LossTerm` maps discriminator outputs to a scalar. Objectives, penalties and auxiliary losses are
loss terms.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks.base import Discriminator
from ganmnist.utils.schedules import TrainingProgress

NetworkName = Literal["d", "g"]


class LossTerm(nn.Module):
    """A summand of the loss of D, of G, or of both: an objective, a penalty, an auxiliary loss.

    A subclass overrides `d_loss`, `g_loss` or both. Both return a scalar. A term may have
    parameters. They are trained only in the update that `trained_with` names.
    """

    trained_with: NetworkName = "d"
    needs_real_grad = False  # d_loss needs a gradient with respect to real.x or real.z
    needs_fake_grad = False  # d_loss needs a gradient with respect to fake.x or fake.z
    constrains_lipschitz = False  # at most one term of a GAN may set this
    discriminator_norm: str | None = None  # the value that model.discriminator.norm=auto takes
    # d_loss may be evaluated on an updated copy of D and differentiated again (unrolled GANs).
    supports_unrolling = True

    def setup(self, generator: nn.Module, discriminator: Discriminator) -> None:
        """Called once with the networks.

        Raises:
            ValueError: the term does not fit them. The message says what to change.
        """

    def after_initialization(self, discriminator: Discriminator) -> None:
        """Called after the data-dependent initialization of a new training."""

    def before_d_step(self, progress: TrainingProgress) -> None:
        """Called before every discriminator step."""

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor | None:
        """The summand of D's loss. Both batches are detached. None: no summand."""
        return None

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor | None:
        """The summand of G's loss. D is frozen. None: no summand."""
        return None

    def after_d_step(self, discriminator: Discriminator) -> None:
        """Called after every discriminator step, for example to clip weights."""
