"""Inception score: exp of the mean KL divergence of an image's class probabilities to their mean

    IS = exp(E_x KL(p(y|x) || p(y)))

(Salimans et al., 2016, arXiv 1606.03498): 1 for images that all look alike to the classifier, 10
for ten classes that are all certain and equally frequent. Of images that show several digits each
digit counts as one.
"""

from __future__ import annotations

import warnings

import torch
from torchmetrics.image.inception import InceptionScore as Base

from ganmnist.metrics.base import Metric, Real, Seen
from ganmnist.metrics.identity import Identity
from ganmnist.rng import seed_for


class InceptionScore(Metric):
    """`is`, the mean over ten parts of the generated images."""

    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        logits = fake.logits.flatten(0, 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*will save all extracted features in buffer")
            score = Base(Identity(logits.shape[1]), splits=10, sync_on_compute=False)
        # A probability that underflows would be 0 ln 0 = NaN; exp(-700) = 1e-304 does not.
        score.update(logits.log_softmax(1).clamp(min=-700))
        with torch.random.fork_rng(devices=[]):  # the parts come from the global generator
            torch.default_generator.manual_seed(seed_for("inception score"))
            mean, _ = score.compute()
        return {"is": mean.item()}
