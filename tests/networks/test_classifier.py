"""The discriminator that classifies."""

import pytest
import torch
from helpers.data import images
from helpers.networks import d_8x8

from ganmnist.networks.classifier import ClassifierDiscriminator


def test_generated_is_a_class_with_logit_0() -> None:
    d, batch = ClassifierDiscriminator(d_8x8, 10).eval(), images()
    logits = d.classify(d.features(batch))
    probabilities = torch.cat([logits, torch.zeros(8, 1)], 1).softmax(1)
    torch.testing.assert_close(d(batch).sigmoid(), probabilities[:, :10].sum(1))


def test_a_single_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"family\.discriminator\.n_classes=1"):
        ClassifierDiscriminator(d_8x8, 1)
