"""Features, logits and reference sets with known values, for metrics."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ganmnist.metrics import FeatureBatch, ReferenceSet
from ganmnist.utils.neighbors import BLOCK

ODD = 2 * BLOCK + 7  # rows that are not a whole number of blocks


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def on_line(*values: float) -> Tensor:
    """Features (N, 1)."""
    return torch.tensor(values, dtype=torch.float64)[:, None]


def certain_logits(classes: Tensor | Sequence[Any]) -> Tensor:
    """Logits (N, K, 10) that predict classes (N, K) with certainty, or (N, 1, 10) classes (N,)."""
    classes = torch.as_tensor(classes)
    return 1e4 * F.one_hot(classes.view(len(classes), -1), 10).double()


def feature_batch(features: Tensor | None = None, logits: Tensor | None = None) -> FeatureBatch:
    """Black images with these features and logits, or random ones."""
    n = len(logits if features is None else features)
    return FeatureBatch(
        torch.zeros(n, 1, 1, 1, dtype=torch.uint8),
        normal(n, 2) if features is None else features,
        normal(n, 1, 10) if logits is None else logits,
    )


def predicting(classes: Tensor | Sequence[Any]) -> FeatureBatch:
    """Images of which the classifier is certain."""
    return feature_batch(logits=certain_logits(classes))


def reference_set(**properties: FeatureBatch) -> ReferenceSet:
    """A reference set whose test, train or validation are these."""
    reference = ReferenceSet.__new__(ReferenceSet)
    reference.__dict__.update(properties)
    return reference
