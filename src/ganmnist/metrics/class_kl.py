"""How evenly the ten digits are drawn: the divergence of predicted classes from the test images'

    class_kl = sum_c p(c) ln(p(c) / q(c)),   in nats

with p the frequencies among generated and q among test images, both as predicted. 0 at best; ln 10
or so for a generator that knows one digit only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ganmnist.metrics.base import Metric, Real, Seen


def frequencies(classes: Tensor, n: int) -> Tensor:
    """The share (n,) of each of `n` classes, float64."""
    return torch.bincount(classes.flatten(), minlength=n).double() / classes.numel()


def kl_divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of two distributions (n,); infinite where q is 0 and p is not."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().item()


class ClassKL(Metric):
    """`class_kl`."""

    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        p, q = (frequencies(seen.classes, seen.logits.shape[-1]) for seen in (fake, real.test))
        return {"class_kl": kl_divergence(p, q)}
