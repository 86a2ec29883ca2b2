"""Modes of Stacked MNIST: which of the 1000 digit triples a generator draws, and how evenly

    mode_kl = sum_m p(m) ln(p(m) / (1/1000)),   in nats

over the frequencies p among 26,000 samples; a mode counts with one sample (Metz et al., 2016, arXiv
1611.02163; Lin et al., 2018, arXiv 1712.04086). Uniform samples do not reach 0 either: with 26 a
mode, chance alone gives about 999 / (2 * 26,000) = 0.019. Images of one digit have 10 modes.
"""

from __future__ import annotations

import torch

from ganmnist.metrics.base import Metric, Real, Seen
from ganmnist.metrics.class_kl import frequencies, kl_divergence


class Modes(Metric):
    """`modes` and `mode_kl`; beside them, as `real_...`, those of as many test images."""

    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        return measure(fake, "") | measure(real.test.first(len(fake.logits)), "real_")


def measure(seen: Seen, prefix: str) -> dict[str, float]:
    _, digits, classes = seen.logits.shape
    p = frequencies(seen.numbers, classes**digits)
    return {
        f"{prefix}modes": float((p > 0).sum()),
        f"{prefix}mode_kl": kl_divergence(p, torch.full_like(p, 1 / len(p))),
    }
