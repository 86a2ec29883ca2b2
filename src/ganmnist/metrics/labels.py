"""Whether a conditional generator draws what it is asked for (Shmelkov et al., arXiv 1807.09499)

    gan_test     accuracy, on generated images, of the classifier that was trained on real ones
    gan_train    accuracy, on the test images, of a classifier trained on generated ones

`gan_test` falls with wrong and unreadable digits; `gan_train` falls also where a generator draws
each class in one way only. Beside it is `real_train`, of as many training images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ganmnist.metrics.base import Metric, Real, Seen
from ganmnist.metrics.classifier import accuracy, fit
from ganmnist.rng import generator_for

if TYPE_CHECKING:
    from ganmnist.metrics.extractor import Extractor


class GANTest(Metric):
    """`gan_test`, of images with labels."""

    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        if fake.labels is None:
            return {}
        hits = fake.numbers == fake.labels.to(fake.logits.device)
        return {"gan_test": hits.double().mean().item()}


class GANTrain(Metric):
    """`gan_train` and `real_train`, of images with labels that show one digit each.

    Args:
        epochs: of either classifier, the one whose features the metrics compare, from scratch.
        most: images that either is trained on.
    """

    def __init__(self, epochs: int = 3, most: int = 10_000) -> None:
        self.epochs = epochs
        self.most = most

    def __call__(self, fake: Seen, real: Real) -> dict[str, float]:
        if fake.labels is None or fake.logits.shape[1] > 1:
            return {}
        n = min(len(fake.images), self.most)
        key = (n, self.epochs)
        if key not in real.accuracies:
            part = real.parts["train"]
            some = torch.randperm(len(part.x), generator=generator_for("still"))[:n]
            real.accuracies[key] = self.accuracy_after(
                real.resized(part.x[some]), part.y[some], real
            )
        gan_train = self.accuracy_after(fake.images[:n], fake.labels[:n], real)
        return {"gan_train": gan_train, "real_train": real.accuracies[key]}

    def accuracy_after(self, x: Tensor, y: Tensor, real: Real) -> float:
        """Accuracy on the test images after training on images (N, C, H, W) uint8 and labels."""
        digits, test = cast("Extractor", real.extractor).glyphs_of, real.parts["test"]
        classifier = fit(digits(x.cpu()), y.cpu(), self.epochs, min(128, len(x)))
        return accuracy(classifier, digits(real.resized(test.x).cpu()), test.y.cpu())
