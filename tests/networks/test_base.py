"""Normalization layers of discriminators."""

import pytest
import torch
from helpers.data import images
from torch import nn

from ganmnist.networks import dcgan
from ganmnist.networks.base import NORMS
from ganmnist.utils.batch import Batch


def build(norm: str) -> dcgan.Discriminator:
    return dcgan.Discriminator(widths=[4], kernels=[4, 4], strides=[2, 1], norm=norm)


@pytest.mark.parametrize("norm", NORMS)
def test_only_batch_norm_couples_the_images_of_a_batch(norm: str) -> None:
    discriminator = build(norm)
    kinds = {"batch": nn.BatchNorm2d, "layer": nn.GroupNorm, "instance": nn.InstanceNorm2d}
    found = [m for m in discriminator.modules() if isinstance(m, tuple(kinds.values()))]
    assert [type(m) for m in found] == ([kinds[norm]] if norm in kinds else [])
    x = images().x
    single = torch.cat([discriminator(Batch(image[None])) for image in x])
    assert torch.allclose(single, discriminator(Batch(x)), atol=1e-5) == (norm != "batch")


def test_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="norm=bach"):
        build("bach")
