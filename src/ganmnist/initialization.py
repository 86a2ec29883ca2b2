"""Parameters that the first batch sets (Salimans and Kingma, 2016, arXiv 1602.07868).

A layer takes part by a method `init_from_input(x)`, which sets its parameters by what it is given.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def init_from_data(network: nn.Module, forward: Callable[[], object]) -> None:
    """Lets one forward pass set the parameters of all layers of `network` that have them set so.

    Each such layer is set by the outputs of those before it, which are set already. Without any,
    there is no pass.
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
