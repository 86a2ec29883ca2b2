"""Data-dependent initialization."""

import torch
from helpers.gan import changed, snapshot

from ganmnist.networks import dcgan
from ganmnist.networks.initialization import init_from_data
from ganmnist.utils.batch import Batch


def test_without_data_dependent_layers_there_is_no_forward_pass() -> None:
    d = dcgan.Discriminator()
    before = snapshot(d)
    init_from_data(d, lambda: d(Batch(torch.rand(4, 1, 28, 28))))
    assert not changed(before, d.state_dict())
