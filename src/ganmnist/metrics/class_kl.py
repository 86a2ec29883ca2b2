"""KL divergence of the predicted classes from those of the test images

    class_kl = sum_c p(c) ln(p(c) / q(c)),   in nats

p and q are the frequencies of the classes that the classifier predicts for generated and for test
images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ganmnist.metrics.base import FeatureBatch, Metric, ReferenceSet


def frequencies(classes: Tensor, n: int) -> Tensor:
    """The shares (n,) of n classes, float64."""
    return torch.bincount(classes.flatten(), minlength=n).double() / classes.numel()


def kl_divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of two distributions (n,); infinite if p > 0 where q = 0."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().item()


class ClassKL(Metric):
    """`class_kl`: lower is better. MNIST's training images have 0.0007.

    A generator of one digit has about ln 10 = 2.3.
    """

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        p, q = (
            frequencies(batch.predicted_classes, batch.logits.shape[-1])
            for batch in (fake, real.test)
        )
        return {"class_kl": kl_divergence(p, q)}
