"""Context managers that change the mode of a network, and restore it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def eval_no_grad(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norm uses the statistics of each batch. Running statistics do not change."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    before = [(m.training, m.track_running_stats) for m in norms]
    for m in norms:
        m.training, m.track_running_stats = True, False
    try:
        yield
    finally:
        for m, (training, tracked) in zip(norms, before, strict=True):
            m.training, m.track_running_stats = training, tracked


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """No gradients with respect to these parameters, which saves their computation."""
    trainable = [p for p in parameters if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)
