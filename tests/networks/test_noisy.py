"""Perceptrons with noise and weight norm."""

import pytest
import torch
from helpers.models import build
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ganmnist.networks import noisy
from ganmnist.networks.initialization import init_from_data
from ganmnist.utils.batch import Batch


def test_data_dependent_initialization_gives_mean_0_and_variance_1() -> None:
    """Of every unit, over the batch and the noise of the initialization."""
    d = noisy.Discriminator(widths=[40, 30])
    batch = Batch(torch.rand(500, 1, 28, 28) * 2 - 1)
    units: list[Tensor] = []
    for layer in d.modules():
        if isinstance(layer, noisy.WeightNorm):
            layer.register_forward_hook(lambda layer, inputs, output: units.append(output))
    init_from_data(d, lambda: d(batch))
    assert [x.shape[1] for x in units] == [40, 30, 1]
    for x in units:
        std, mean = torch.std_mean(x, 0, unbiased=False)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
        torch.testing.assert_close(std, torch.ones_like(std))


def test_the_batch_norm_scale_of_g_is_not_trained() -> None:
    g, _ = build("noisy_mlp")
    norms = [layer for layer in g.modules() if isinstance(layer, nn.BatchNorm1d)]
    trained = [(norm.weight.requires_grad, norm.bias.requires_grad) for norm in norms]
    assert trained == [(False, True)] * 2


def test_noise_is_off_in_evaluation_mode() -> None:
    noise, x = noisy.Noise(0.5), torch.zeros(100_000)
    torch.manual_seed(0)
    assert noise(x).std().item() == pytest.approx(0.5, rel=0.01)
    assert torch.equal(noise.eval()(x), x)
    _, d = build("noisy_mlp")
    image = Batch(torch.rand(2, 1, 28, 28))
    assert not torch.equal(d(image), d(image))
    d.eval()
    assert torch.equal(d(image), d(image))
    with pytest.raises(ValueError, match=r"noise=-1"):
        noisy.Discriminator(noise=-1)


def test_weight_norm_separates_length_and_direction() -> None:
    for network in build("noisy_mlp"):
        layers = [layer for layer in network.modules() if is_parametrized(layer)]
        for layer in layers:
            length, direction = layer.parametrizations.weight.parameters()
            torch.testing.assert_close(length, layer.weight.norm(dim=1, keepdim=True))
            before = layer.weight.detach().clone()
            with torch.no_grad():
                direction.mul_(3)
            torch.testing.assert_close(layer.weight, before)
        lengths = [layer.parametrizations.weight.original0.requires_grad for layer in layers]
        assert lengths in ([True], [*[False] * 5, True])  # of G, and of D


def test_the_head_adds_noise_to_the_features() -> None:
    d = noisy.Discriminator(widths=[5], image_noise=0.0)
    image = Batch(torch.rand(2, 1, 28, 28))
    assert torch.equal(d.features(image), d.features(image))
    assert not torch.equal(d(image), d(image))
