"""DCGAN: layers, initialization and refused settings."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.models import build, layers
from torch import nn

from ganmnist.networks import dcgan
from ganmnist.utils.batch import Batch


@pytest.mark.parametrize("model", ["dcgan", "dcgan64"])
def test_convolutions_keep_the_memory_format(model: str) -> None:
    maps: list[torch.Tensor] = []
    generator, discriminator = build(model)
    for layer in [*layers(generator), *layers(discriminator)]:
        layer.register_forward_hook(lambda layer, inputs, out: maps.append(out))
    discriminator(Batch(generator(torch.randn(2, 100))))
    assert {x.stride(1) for x in maps if x.shape[1] > 1} == {1}


@pytest.mark.parametrize("model", ["dcgan", "dcgan64"])
def test_initialization_of_radford_et_al(model: str) -> None:
    """n samples of N(mu, s) have a mean within s / sqrt(n) and a deviation within s / sqrt(2 n)."""

    def assert_normal(values: torch.Tensor, mu: float) -> None:
        n = values.numel()
        assert abs(values.mean().item() - mu) < 5 * 0.02 / math.sqrt(n)
        assert abs(values.std().item() - 0.02) < 5 * 0.02 / math.sqrt(2 * n)

    for network in build(model):
        norms = [layer for layer in layers(network) if isinstance(layer, nn.BatchNorm2d)]
        for layer in layers(network):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                assert_normal(layer.weight, 0.0)
                assert layer.bias is None
        assert_normal(torch.cat([norm.weight for norm in norms]), 1.0)
        assert not any(norm.bias.any() for norm in norms)
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


def test_a_discriminator_without_norm_layers_has_biases() -> None:
    """Otherwise D(t x) = t D(x) for t > 0, and D = 0 for a gray image, whatever the weights are."""
    d = dcgan.Discriminator(norm="none")
    convolutions = [layer for layer in layers(d) if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 3
    assert not any(layer.bias.any() for layer in convolutions)
    x = torch.zeros(2, 1, 28, 28)
    before = d(Batch(x))
    for layer in convolutions:
        nn.init.constant_(layer.bias, 0.1)
    assert (before == 0).all()
    assert (d(Batch(x)) != 0).all()


def test_a_kernel_as_large_as_its_map_is_a_fully_connected_layer() -> None:
    g, d = build("dcgan_fc")
    z, x = torch.randn(4, 100), torch.rand(4, 1, 28, 28) * 2 - 1
    first, second = (layer.weight.flatten(1) for layer in (g.blocks[0], g.blocks[3]))
    rows = torch.relu(F.batch_norm(z @ first, None, None, *norm_of(g.blocks[1]), training=True))
    torch.testing.assert_close(g.blocks[:4](z[:, :, None, None]).flatten(1), rows @ second)
    assert [tuple(block.shape[1:]) for block in walk(g.blocks, z[:, :, None, None])[2::3]] == [
        *((512, 1, 1), (64, 7, 7), (32, 14, 14))
    ]
    assert g(z).shape == x.shape
    assert d.features(Batch(x)).shape == (4, 512)
    maps = d.blocks[:5](x)
    assert maps.shape == (4, 64, 7, 7)
    torch.testing.assert_close(
        d.blocks[5](maps).flatten(1), maps.flatten(1) @ d.blocks[5].weight.flatten(1).T
    )


def norm_of(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    return layer.weight, layer.bias


def walk(blocks: nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    """The output of each block."""
    return [x := block(x) for block in blocks]


@pytest.mark.parametrize("network", [dcgan.Generator, dcgan.Discriminator])
@pytest.mark.parametrize("wrong", ["widths", "kernels", "strides", "paddings"])
def test_lists_of_different_lengths_are_refused(network: type, wrong: str) -> None:
    lists = {"widths": [8, 4], "kernels": [4, 4, 4], "strides": [1, 2, 2], "paddings": [0, 1, 0]}
    network(**lists)
    lists[wrong].append(4)
    with pytest.raises(ValueError, match=rf"{wrong}=\["):
        network(**lists)


def test_padding_of_the_last_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.discriminator\.paddings=\[1, 1, 5\]"):
        dcgan.Discriminator(paddings=[1, 1, 5])
