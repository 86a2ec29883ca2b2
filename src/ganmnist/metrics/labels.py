"""Accuracy of a conditional generator's labels (Shmelkov et al., 2018, arXiv 1807.09499)

    gan_test     accuracy, on generated images, of the classifier trained on real images
    gan_train    accuracy, on the test images, of a classifier trained on generated images

Wrong and illegible digits lower both. Little variety within a class lowers `gan_train` alone.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ganmnist.metrics.base import FeatureBatch, Metric, ReferenceSet
from ganmnist.metrics.classifier import accuracy, fit
from ganmnist.metrics.extractor import ClassifierFeatures
from ganmnist.utils.rng import generator_for


class GANTest(Metric):
    """`gan_test`: higher is better, at most 1. MNIST's test images have 0.9965.

    Without labels there is no value.
    """

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        if fake.labels is None:
            return {}
        correct = fake.predicted_labels == fake.labels.to(fake.logits.device)
        return {"gan_test": correct.double().mean().item()}


class GANTrain(Metric):
    """`gan_train`: higher is better, at most 1.

    Real images have `real_train`, the same for as many training images. It is 0.990 on MNIST with
    10,000 images. Without labels, and for stacked images, there is no value.

    Args:
        epochs: epochs of training. The classifier is that of the features, untrained.
        max_images: maximum number of training images.
    """

    def __init__(self, epochs: int = 3, max_images: int = 10_000) -> None:
        self.epochs = epochs
        self.max_images = max_images

    def __call__(self, fake: FeatureBatch, real: ReferenceSet) -> dict[str, float]:
        if fake.labels is None or fake.logits.shape[1] > 1:
            return {}
        n = min(len(fake.images), self.max_images)
        key = (n, self.epochs)
        if key not in real.accuracies:
            train = real.splits["train"]
            subset = torch.randperm(len(train.x), generator=generator_for("still"))[:n]
            x, y = real.resize(train.x[subset]), train.y[subset]
            real.accuracies[key] = self.test_accuracy(x, y, real)
        gan_train = self.test_accuracy(fake.images[:n], fake.labels[:n], real)
        return {"gan_train": gan_train, "real_train": real.accuracies[key]}

    def test_accuracy(self, x: Tensor, y: Tensor, real: ReferenceSet) -> float:
        """Accuracy on the test images after training on images (N, C, H, W) uint8 and labels."""
        to_digits = cast(ClassifierFeatures, real.extractor).to_digits
        test = real.splits["test"]
        classifier = fit(to_digits(x.cpu()), y.cpu(), self.epochs, min(128, len(x)))
        return accuracy(classifier, to_digits(real.resize(test.x).cpu()), test.y.cpu())
