"""Inception score, with the class probabilities p(y|x) of the MNIST classifier

    IS = exp(E_x KL(p(y|x) || p(y)))

(Salimans et al., 2016, arXiv 1606.03498). Each digit of a stacked image counts as one image.
"""

from __future__ import annotations

import warnings

import torch
from torchmetrics.image.inception import InceptionScore as TorchmetricsInceptionScore

from ganmnist.metrics.base import FeatureBatch, Metric, ReferenceSet
from ganmnist.metrics.identity import Identity
from ganmnist.utils.rng import seed_for


class InceptionScore(Metric):
    """`is`, the mean over ten subsets of the generated images: higher is better, from 1 to 10.

    MNIST's test images have 9.85. 1: all images look alike to the classifier. 10: it is certain of
    every image, and all classes are equally frequent.
    """

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        logits = fake.logits.flatten(0, 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*will save all extracted features in buffer")
            score = TorchmetricsInceptionScore(
                Identity(logits.shape[1]), splits=10, sync_on_compute=False
            )
        # A probability that underflows would be 0 ln 0 = NaN; exp(-700) = 1e-304 does not.
        score.update(logits.log_softmax(1).clamp(min=-700))
        with torch.random.fork_rng(devices=[]):  # torchmetrics uses the global generator
            torch.default_generator.manual_seed(seed_for("inception score"))
            mean, _ = score.compute()
        return {"is": mean.item()}
