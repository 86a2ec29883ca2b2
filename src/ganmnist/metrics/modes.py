"""Modes of Stacked MNIST: the digit triples among generated images, and their distribution

    mode_kl = sum_m p(m) ln(p(m) / (1/1000)),   in nats

p are the frequencies among 26,000 samples. One sample makes a mode count (Metz et al., 2016, arXiv
1611.02163; Lin et al., 2018, arXiv 1712.04086). The expectation of `mode_kl` for uniform samples is
above 0: 999 / (2 * 26,000) = 0.019. Images of one digit have 10 modes.
"""

from __future__ import annotations

import torch

from ganmnist.metrics.base import FeatureBatch, Metric, ReferenceSet
from ganmnist.metrics.class_kl import frequencies, kl_divergence


class Modes(Metric):
    """`modes`: higher is better, at most 1000. `mode_kl`: lower is better.

    Real images have `real_modes` and `real_mode_kl`, those of as many test images: 1000 and 0.025
    with 26,000 samples.
    """

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        return measure(fake, "") | measure(real.test.first(len(fake.logits)), "real_")


def measure(batch: FeatureBatch, prefix: str) -> dict[str, float]:
    _, digits, classes = batch.logits.shape
    p = frequencies(batch.predicted_labels, classes**digits)
    return {
        f"{prefix}modes": float((p > 0).sum()),
        f"{prefix}mode_kl": kl_divergence(p, torch.full_like(p, 1 / len(p))),
    }
