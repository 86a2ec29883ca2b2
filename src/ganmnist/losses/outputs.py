"""Discriminator outputs of one update.

`DiscriminatorOutputs` holds a real and a fake batch for one update. It runs the discriminator when
a loss first reads an output, and caches the result. The non-saturating generator loss never runs D
on real images; a relativistic loss does; R1 and R2 reuse the logits of the objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ganmnist.networks.base import Discriminator
from ganmnist.utils.batch import Batch, at_least_float32, concat


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
        return at_least_float32(self.discriminator.logits(self.real_features, self.real))

    @cached_property
    def fake_logits(self) -> Tensor:
        return at_least_float32(self.discriminator.logits(self.fake_features, self.fake))

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
