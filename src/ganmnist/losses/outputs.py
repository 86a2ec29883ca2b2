"""Discriminator outputs of one update, and the loss terms that read them.

`DiscriminatorOutputs` holds a real and a fake batch for one update. It runs the discriminator when
a loss first reads an output, and caches the result. The non-saturating generator loss never runs D
on real images; a relativistic loss does; a penalty reuses the logits of the loss before it.

A `LossTerm` maps these outputs to a scalar. Objectives, penalties and auxiliary losses are loss
terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator
from ganmnist.utils.batch import Batch, at_least_float32, concat
from ganmnist.utils.schedules import TrainingProgress

NetworkName = Literal["d", "g"]


class DiscriminatorOutputs:
    """Cached discriminator outputs for one update.

    Features are (B, F), logits are (B,) and at least float32, also under autocast, because most
    objectives exponentiate them. PacGAN has fewer logits than images, so a loss averages over
    logits.

    Args:
        real, fake: the inputs of the discriminator.
        joint_forward: concatenate real and fake into one forward pass. This needs a discriminator
            without batch statistics. It is not used if a term needs dD/dx: the
            backward pass would cover both halves, at twice the cost.
    """

    def __init__(
        self, discriminator: Discriminator, real: Batch, fake: Batch, joint_forward: bool = False
    ) -> None:
        self.discriminator = discriminator
        self.real = real
        self.fake = fake
        self.joint_forward = joint_forward
        self.tracked: dict[str, Tensor] = {}

    @cached_property
    def real_features(self) -> Tensor:
        if self.joint_forward:
            return self.joint_features[0]
        return self.discriminator.features(self.real)

    @cached_property
    def fake_features(self) -> Tensor:
        if self.joint_forward:
            return self.joint_features[1]
        return self.discriminator.features(self.fake)

    @cached_property
    def joint_features(self) -> tuple[Tensor, ...]:
        """Features of the real and of the fake batch, from one forward pass."""
        return torch.chunk(self.discriminator.features(concat(self.real, self.fake)), 2)

    @cached_property
    def real_logits(self) -> Tensor:
        return at_least_float32(self.discriminator.score(self.real_features, self.real))

    @cached_property
    def fake_logits(self) -> Tensor:
        return at_least_float32(self.discriminator.score(self.fake_features, self.fake))

    def track(self, name: str, value: Tensor) -> Tensor:
        """Logs a summand of a loss under `name`, and returns it."""
        self.tracked[name] = value
        return value

    def means(self, probability: bool) -> dict[str, Tensor]:
        """Means over the batch of those logits that a loss has used.

        With `probability`, sigmoid(logit) as `real_prob` and `fake_prob`; otherwise the logits as
        `real_logit` and `fake_logit`.
        """
        cached = {side: vars(self).get(f"{side}_logits") for side in ("real", "fake")}
        logits = {side: value.detach() for side, value in cached.items() if value is not None}
        if probability:
            return {f"{side}_prob": value.sigmoid().mean() for side, value in logits.items()}
        return {f"{side}_logit": value.mean() for side, value in logits.items()}


def mean_scalars(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Averages scalars over rows with the same names."""
    if len(rows) == 1:
        return rows[0]
    return {name: torch.stack([row[name].detach() for row in rows]).mean() for name in rows[0]}


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
