"""Data-dependent initialisation (Salimans and Kingma, 2016, arXiv 1602.07868).

A layer takes part by a method `init_from_input(x)`, which sets its parameters by its input x.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def init_from_data(network: nn.Module, forward: Callable[[], object]) -> None:
    """Initialises all layers of `network` that have `init_from_input`, in one forward pass.

    Each is initialised by the outputs of the layers before it, which are initialised already.
    Without such a layer there is no pass.
    """
    layers = [layer for layer in network.modules() if hasattr(layer, "init_from_input")]
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: layer.init_from_input(*inputs))
        for layer in layers
    ]
    try:
        if layers:
            with torch.no_grad():
                forward()
    finally:
        for hook in hooks:
            hook.remove()
