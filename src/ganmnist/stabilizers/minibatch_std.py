"""Minibatch standard deviation (Karras et al., 2017, arXiv 1710.10196)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator, DiscriminatorWrapper
from ganmnist.stabilizers.base import Stabilizer, require_one_scale
from ganmnist.utils.batch import Batch


class MinibatchStd(Stabilizer):
    """The standard deviation of the minibatch, for D (`MinibatchStdDiscriminator`)."""

    def __init__(self, group_size: int = 4) -> None:
        self.group_size = group_size

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        return MinibatchStdDiscriminator(discriminator, self.group_size)


class MinibatchStdDiscriminator(DiscriminatorWrapper):
    """Adds the variation within the minibatch to D's logit (Karras et al., 2017, arXiv 1710.10196).

    The statistic is the standard deviation of each feature over a group of `group_size` images,
    averaged over the features. As in the authors' code, a group takes every (B / group_size)-th
    image of the batch. A smaller batch is one group.

    Raises:
        ValueError: a batch cannot be divided into such groups.
    """

    def __init__(self, discriminator: Discriminator, group_size: int = 4) -> None:
        super().__init__(discriminator)
        if group_size < 2:
            raise ValueError(f"stabilizer.minibatch_std.group_size={group_size}: choose 2 or more")
        require_one_scale(discriminator, "minibatch_std")
        self.group_size = group_size
        self.weight = nn.Linear(1, 1, bias=False)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        logits = super().logits(features, batch)
        statistic: Tensor = self.weight(self.std(features))
        return logits + statistic.flatten()

    def std(self, features: Tensor) -> Tensor:
        """(B, 1) statistics of features (B, F)."""
        size = min(self.group_size, len(features))
        if len(features) % size:
            raise ValueError(
                f"stabilizer.minibatch_std.group_size={size}: it does not divide a batch of "
                f"{len(features)} images. Choose a divisor"
            )
        groups = torch.unflatten(features.float(), 0, (size, -1))
        # The constant keeps the gradient of the root finite if all images are equal.
        std: Tensor = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean(1)
        return std.repeat(size)[:, None]
