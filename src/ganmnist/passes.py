"""Passes through networks that leave them as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """In evaluation mode and without gradients."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norm by the statistics of each batch, all else as it is; the running ones stay."""
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
    """Takes no gradient with respect to these parameters, and so saves computing it."""
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
