"""Instance noise (Sonderby et al., 2016, arXiv 1610.04490)."""

from __future__ import annotations

import torch
from torch import Tensor

from ganmnist.networks.base import Discriminator, DiscriminatorWrapper
from ganmnist.stabilizers.base import Stabilizer, require_images
from ganmnist.utils.batch import Batch
from ganmnist.utils.schedules import TrainingProgress, Value, at, check_value


class InstanceNoise(Stabilizer):
    """Gaussian noise on D's inputs (`NoisyDiscriminator`); `sigma` may be a schedule."""

    def __init__(self, sigma: Value) -> None:
        self.sigma = sigma

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        return NoisyDiscriminator(discriminator, self.sigma)


class NoisyDiscriminator(DiscriminatorWrapper):
    """Adds Gaussian noise of standard deviation `sigma` to D's images, in training mode.

    Sonderby et al. (2016, arXiv 1610.04490); Arjovsky and Bottou (2017, arXiv 1701.04862). With
    noise the distributions of real and generated images overlap.
    """

    def __init__(self, discriminator: Discriminator, sigma: Value) -> None:
        super().__init__(discriminator)
        require_images(discriminator, "instance_noise")
        self.sigma = check_value("stabilizer.instance_noise.sigma", sigma)
        self.current_sigma = at(sigma, 0.0)

    def before_d_step(self, progress: TrainingProgress) -> None:
        self.current_sigma = at(self.sigma, progress.fraction)

    def features(self, batch: Batch) -> Tensor:
        if self.training and self.current_sigma > 0:
            batch = batch._replace(x=batch.x + self.current_sigma * torch.randn_like(batch.x))
        return super().features(batch)
