"""Context managers for the mode of a network."""

import pytest
import torch
from torch import nn

from ganmnist.utils.modules import frozen


def test_frozen_restores_requires_grad() -> None:
    trained, fixed = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)
    with frozen([trained, fixed]):
        assert (trained.requires_grad, fixed.requires_grad) == (False, False)
    assert (trained.requires_grad, fixed.requires_grad) == (True, False)
    with pytest.raises(KeyError), frozen([trained, fixed]):
        raise KeyError
    assert (trained.requires_grad, fixed.requires_grad) == (True, False)
