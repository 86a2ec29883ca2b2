"""Exponential moving average of a network's weights (Yazici et al., 2018, arXiv 1806.04498)

    a <- d a + (1 - d) w,    d = min(decay, (1 + n) / (10 + n))

after n batches. d is small at the start, so the average soon forgets the initial weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn


class EMA(nn.Module):
    """Averages the weights and the batch statistics of a network, in the copy `network`.

    Raises:
        ValueError: not 0 <= decay < 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"ema={decay}: choose a decay of 0 or more, and below 1")
        self.network = deepcopy(network).requires_grad_(False)
        self.decay = decay

    def reset(self, network: nn.Module) -> None:
        """Sets the average to the weights of `network`."""
        self.network.load_state_dict(network.state_dict())

    @torch.no_grad()
    def update(self, network: nn.Module, n: int) -> None:
        """Adds the weights that `network` has after n batches."""
        decay = min(self.decay, (1 + n) / (10 + n))
        # On small networks, a fifth of the time of torch.optim.swa_utils.AveragedModel.
        torch._foreach_lerp_([*floats(self.network)], [*floats(network)], 1 - decay)


def floats(network: nn.Module) -> Iterator[Tensor]:
    """All parameters and buffers of a network, without integer counters."""
    tensors = chain(network.parameters(), network.buffers())
    return (tensor for tensor in tensors if tensor.is_floating_point())
