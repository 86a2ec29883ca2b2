"""Data-dependent initialisation (Salimans and Kingma, 2016, arXiv 1602.07868).

A layer takes part by a method `init_from_input(x, rows)`, which sets its parameters by its input x;
`rows` is how many rows x has in a training batch. A batch may be too small to estimate variances
from, so x has `ROWS` rows or more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ganmnist.duel import Sample

ROWS = 500  # as in the program of Salimans et al. (2016)


def init_from_data(network: nn.Module, forward: Callable[[], object], batches: int = 1) -> None:
    """Initialises all layers of `network` that have `init_from_input`, in one forward pass.

    Each is initialised by the outputs of the layers before it, which are initialised already.
    Without such a layer there is no pass. `batches`: how many training batches the pass is of.
    """
    layers = [layer for layer in network.modules() if hasattr(layer, "init_from_input")]
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, inputs: layer.init_from_input(inputs[0], len(inputs[0]) // batches)
        )
        for layer in layers
    ]
    try:
        if layers:
            with torch.no_grad():
                forward()
    finally:
        for hook in hooks:
            hook.remove()


def first_batches(real: Callable[[int], Sample], batch_size: int) -> tuple[Sample, int]:
    """As many whole batches as make `ROWS` real samples, in one, and how many they are."""
    sample = real(-(-ROWS // batch_size) * batch_size)
    assert sample.x is not None
    batches = max(len(sample.x) // batch_size, 1)
    rows = slice(batches * batch_size)
    return Sample(*(slot if slot is None else slot[rows] for slot in sample)), batches
