"""The networks of conf/model/, compared with plain PyTorch layers."""

import math

import pytest
import torch
from helpers.models import build, layers
from torch import nn

from ganmnist.networks import dcgan, mlp
from ganmnist.networks.base import NORMS, channels_last
from ganmnist.networks.perceptron import Dropout
from ganmnist.utils.batch import Batch


def deconv(c_in: int, c_out: int, kernel: int, stride: int, padding: int) -> nn.Module:
    return nn.ConvTranspose2d(c_in, c_out, kernel, stride, padding, bias=False)


def conv(c_in: int, c_out: int, kernel: int, stride: int, padding: int) -> nn.Module:
    return nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)


def norm_relu(c: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(c), nn.ReLU()]


def leaky_dropout() -> list[nn.Module]:
    return [nn.LeakyReLU(0.2), Dropout(0.3)]


def dcgan_by_hand() -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(
        *(deconv(100, 256, 4, 1, 0), *norm_relu(256)),
        *(deconv(256, 128, 3, 2, 1), *norm_relu(128)),
        *(deconv(128, 64, 4, 2, 1), *norm_relu(64)),
        *(deconv(64, 1, 4, 2, 1), nn.Tanh()),
    ), nn.Sequential(
        *(conv(1, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.LeakyReLU(0.2)),
        *(conv(64, 128, 4, 2, 1), nn.BatchNorm2d(128), nn.LeakyReLU(0.2)),
        conv(128, 1, 7, 1, 0),
    )


def dcgan64_by_hand() -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(
        *(deconv(100, 512, 4, 1, 0), *norm_relu(512)),
        *(deconv(512, 256, 4, 2, 1), *norm_relu(256)),
        *(deconv(256, 128, 4, 2, 1), *norm_relu(128)),
        *(deconv(128, 64, 4, 2, 1), *norm_relu(64)),
        *(deconv(64, 1, 4, 2, 1), nn.Tanh()),
    ), nn.Sequential(
        *(conv(1, 64, 4, 2, 1), nn.LeakyReLU(0.2)),
        *(conv(64, 128, 4, 2, 1), nn.BatchNorm2d(128), nn.LeakyReLU(0.2)),
        *(conv(128, 256, 4, 2, 1), nn.BatchNorm2d(256), nn.LeakyReLU(0.2)),
        *(conv(256, 512, 4, 2, 1), nn.BatchNorm2d(512), nn.LeakyReLU(0.2)),
        conv(512, 1, 4, 1, 0),
    )


def mlp_by_hand() -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(
        *(nn.Linear(100, 32), *leaky_dropout()),
        *(nn.Linear(32, 64), *leaky_dropout()),
        *(nn.Linear(64, 128), *leaky_dropout()),
        *(nn.Linear(128, 784), nn.Tanh()),
    ), nn.Sequential(
        *(nn.Linear(784, 128), *leaky_dropout()),
        *(nn.Linear(128, 64), *leaky_dropout()),
        *(nn.Linear(64, 32), *leaky_dropout()),
        nn.Linear(32, 1),
    )


BY_HAND = {"dcgan": dcgan_by_hand, "dcgan64": dcgan64_by_hand, "mlp": mlp_by_hand}


every_model = pytest.mark.parametrize("model", BY_HAND)


def describe(network: nn.Module) -> list[str]:
    """The layers as PyTorch prints them. Faster versions have the names of PyTorch's layers."""
    text = "\n".join(map(repr, layers(network))).replace(", inplace=True", "")
    text = text.replace("inplace=True", "")
    return (
        text.replace("ConvTransposeFrom1x1", "ConvTranspose2d")
        .replace("FinalConv", "Conv2d")
        .split("\n")
    )


@every_model
def test_models_have_the_layers_of_the_recipe(model: str) -> None:
    for ours, by_hand in zip(build(model), BY_HAND[model](), strict=True):
        assert describe(ours) == describe(by_hand)


@every_model
@pytest.mark.parametrize("training", [True, False])
def test_networks_compute_what_the_layers_compute(model: str, training: bool) -> None:
    (g, d), (g_by_hand, d_by_hand) = build(model), BY_HAND[model]()
    for ours, by_hand in ((g.double(), g_by_hand.double()), (d.double(), d_by_hand.double())):
        values = ours.state_dict().values()
        by_hand.load_state_dict(dict(zip(by_hand.state_dict(), values, strict=True)))
        ours.train(training)
        by_hand.train(training)
    z = torch.randn(3, 100, dtype=torch.float64)
    z_by_hand = z if model == "mlp" else z[:, :, None, None]
    torch.manual_seed(1)  # dropout
    x = g(z)
    logits = d(Batch(x))
    torch.manual_seed(1)
    x_by_hand = g_by_hand(z_by_hand)
    logits_by_hand = d_by_hand(x_by_hand).flatten()
    torch.testing.assert_close(x.flatten(), x_by_hand.flatten())
    torch.testing.assert_close(logits, logits_by_hand)


@pytest.mark.parametrize(
    ("model", "g_count", "d_count"),
    [
        (
            "dcgan",
            100 * 256 * 16 + 256 * 128 * 9 + 128 * 64 * 16 + 64 * 16 + 2 * (256 + 128 + 64),
            64 * 16 + 64 * 128 * 16 + 128 * 49 + 2 * (64 + 128),
        ),
        ("dcgan64", 3_574_656, 2_763_520),
        (
            "mlp",
            101 * 32 + 33 * 64 + 65 * 128 + 129 * 784,
            785 * 128 + 129 * 64 + 65 * 32 + 33,
        ),
    ],
)
def test_parameter_counts(model: str, g_count: int, d_count: int) -> None:
    counts = [sum(p.numel() for p in network.parameters()) for network in build(model)]
    assert counts == [g_count, d_count]


SHAPES = {
    "dcgan": (
        [(256, 4, 4), (128, 7, 7), (64, 14, 14), (1, 28, 28)],
        [(64, 14, 14), (128, 7, 7), (1,)],
    ),
    "dcgan64": (
        [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32), (1, 64, 64)],
        [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (1,)],
    ),
    "mlp": ([(32,), (64,), (128,), (784,)], [(128,), (64,), (32,), (1,)]),
}


@every_model
def test_shapes_of_every_block(model: str) -> None:
    generator, discriminator = build(model)
    shapes: list[tuple[int, ...]] = []
    for layer in [*layers(generator), *layers(discriminator)]:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda layer, inputs, out: shapes.append(out.shape[1:]))
    x = generator(torch.randn(2, 100))
    batch = Batch(x)
    assert discriminator(batch).shape == (2,)
    assert shapes == [*SHAPES[model][0], *SHAPES[model][1]]
    features = discriminator.features(batch)
    assert features.shape == (2, math.prod(SHAPES[model][1][-2]))
    assert discriminator.logits(features, batch).shape == (2,)
    size = 64 if model == "dcgan64" else 28
    assert x.shape == (2, 1, size, size)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_changes_strides_only(channels: int) -> None:
    x = torch.randn(2, channels, 4, 5, requires_grad=True)
    y = channels_last(x)
    assert torch.equal(y, x)
    assert y.stride() == (20 * channels, 1, 5 * channels, channels)
    (grad,) = torch.autograd.grad((y * y).sum(), x)
    assert torch.equal(grad, 2 * x)


@every_model
def test_the_output_function_is_tanh(model: str) -> None:
    generator, _ = build(model)
    *_, last = (layer for layer in layers(generator) if list(layer.parameters()))
    outputs = []
    last.register_forward_hook(lambda layer, inputs, out: outputs.append(out))
    x = generator(100 * torch.randn(8, 100))
    assert x.abs().max() <= 1
    assert torch.equal(x.flatten(), outputs[0].tanh().flatten())


@pytest.mark.parametrize("model", ["dcgan", "mlp", "noisy_mlp"])
def test_factories_take_channels_and_latent_dim(model: str) -> None:
    generator, discriminator = build(model, "data.channels=3", "latent_dim=7")
    x = generator(torch.randn(2, 7))
    assert x.shape == (2, 3, 28, 28)
    assert discriminator(Batch(x)).shape == (2,)


@pytest.mark.parametrize("of", [dcgan, mlp])
def test_networks_of_one_layer(of) -> None:
    one = {"kernels": [28], "strides": [1]} if of is dcgan else {}
    x = of.Generator(3, widths=[], **one)(torch.randn(2, 3))
    assert x.shape == (2, 1, 28, 28)
    assert of.Discriminator(widths=[], **one)(Batch(x)).shape == (2,)


@pytest.mark.parametrize(
    ("per_sample", "settings"),
    [
        (True, ["mlp", "model.discriminator.dropout=0"]),
        (True, ["resnet"]),
        (
            True,
            ["noisy_mlp", "model.discriminator.image_noise=0", "model.discriminator.noise=0"],
        ),
        (True, ["r3gan"]),
        *((norm != "batch", ["dcgan", f"model.discriminator.norm={norm}"]) for norm in NORMS),
    ],
    ids=lambda value: "" if isinstance(value, bool) else value[-1],
)
def test_per_sample_logits_do_not_depend_on_the_batch(
    per_sample: bool, settings: list[str]
) -> None:
    model, *overrides = settings
    _, discriminator = build(model, *overrides)
    discriminator = discriminator.double().train()
    assert discriminator.per_sample is per_sample
    x = torch.rand(6, 1, 28, 28, dtype=torch.float64) * 2 - 1
    whole = discriminator(Batch(x))
    parts = torch.cat([discriminator(Batch(x[:2])), discriminator(Batch(x[2:]))])
    assert torch.allclose(whole, parts) is per_sample
