"""Data-dependent initialization (Salimans and Kingma, 2016, arXiv 1602.07868).

A layer takes part by defining `init_from_input(x, rows)`, which sets its parameters from its input
x. `rows` is the number of rows in a training batch. A small batch gives poor estimates of
variances, so x has `ROWS` rows or more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ganmnist.utils.batch import Batch
from ganmnist.utils.hooks import InitFromImages, InitFromInput

ROWS = 500  # as in the code of Salimans et al. (2016)


def init_from_data(network: nn.Module, forward: Callable[[], object], batches: int = 1) -> None:
    """Initializes all layers of `network` that have `init_from_input`, in one forward pass.

    Each layer's input comes from layers that are already initialized. Without such a layer there is
    no forward pass. `batches`: number of training batches in the forward pass.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, InitFromInput)]
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


def first_batches(real_images: Callable[[int], Batch], batch_size: int) -> tuple[Batch, int]:
    """Enough batches for `ROWS` real images, concatenated, and the number of batches."""
    batch = real_images(-(-ROWS // batch_size) * batch_size)
    batches = max(len(batch.x) // batch_size, 1)
    return batch.map(lambda value: value[: batches * batch_size]), batches


def init_from_images(generator: nn.Module, real_images: Callable[[int], Batch]) -> None:
    """Initializes the modules of a generator that have `init_from_images` and `mean_bias`."""
    for module in generator.modules():
        if isinstance(module, InitFromImages) and module.mean_bias:
            module.init_from_images(real_images(10_000).x)
