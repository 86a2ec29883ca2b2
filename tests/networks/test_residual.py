"""The residual networks of SNGAN and R3GAN: layers, initialization, gradients."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.gan import changed, fit, small_gan, snapshot
from helpers.models import build
from torch import Tensor, nn
from torch.func import functional_call

from ganmnist.networks import r3gan, resnet
from ganmnist.utils.batch import Batch
from ganmnist.utils.pixels import to_bytes

every_model = pytest.mark.parametrize("model", ["resnet", "r3gan"])


def of_type(network: nn.Module, *types: type) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, types)]


def replace_zeros(network: nn.Module) -> nn.Module:
    """The network with normal weights wherever they are initialized with zeros."""
    for p in network.parameters():
        if not p.any():
            nn.init.normal_(p, 0, 0.1)
    return network


def random_images(n: int, size: int = 28, channels: int = 1, **options: Any) -> Tensor:
    return (torch.rand(n, channels, size, size) * 2 - 1).to(**options)


# Layers.


@every_model
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(model: str, channels: int) -> None:
    generator, discriminator = build(model, f"data.channels={channels}", "latent_dim=7")
    x = generator(torch.randn(3, 7))
    assert x.shape == (3, channels, 28, 28)
    features = discriminator.features(Batch(x))
    assert features.shape == (3, {"resnet": 128, "r3gan": 256}[model])
    assert discriminator.logits(features, Batch(x)).shape == (3,)


MAPS = {
    "resnet": (
        [(64, 14, 14), (32, 28, 28)],
        [(32, 14, 14), (64, 7, 7), (128, 7, 7), (128, 7, 7)],
    ),
    "r3gan": (
        [(256, 7, 7), (128, 14, 14), (32, 28, 28)],
        [(32, 28, 28), (128, 14, 14), (256, 7, 7)],
    ),
}


@every_model
def test_maps_after_every_block(model: str) -> None:
    generator, discriminator = networks = build(model)
    shapes: list[tuple[int, ...]] = []
    for network in networks:
        for block in of_type(network, resnet.UpBlock, resnet.DownBlock, r3gan.Block):
            block.register_forward_hook(lambda block, inputs, out: shapes.append(out.shape[1:]))
    discriminator(Batch(generator(torch.randn(2, 100))))
    assert shapes == [*MAPS[model][0], *MAPS[model][1]]


def up_count(c: int, d: int) -> int:
    """Two batch norms, two 3x3 convolutions of which the second has a bias, the shortcut."""
    return 2 * c + 9 * c * d + 2 * d + 9 * d * d + d + c * d


def down_count(c: int, inner: int, d: int) -> int:
    return 9 * c * inner + inner + 9 * inner * d + d + c * d


def block_count(w: int) -> int:
    """1x1, grouped 3x3 and 1x1 convolutions with twice the width, groups of 16, two biases."""
    return 2 * (w * 2 * w) + 2 * w * 16 * 9 + 2 * (2 * w)


COUNTS: dict[str, Callable[[int], tuple[int, int]]] = {
    "resnet": lambda channels: (
        101 * 128 * 49
        + (up_count(128, 64) + up_count(64, 32))
        + (2 * 32 + (9 * 32 + 1) * channels),
        (down_count(channels, 32, 32) + down_count(32, 32, 64) + down_count(64, 64, 128))
        + (down_count(128, 128, 128) - 128 * 128)  # its shortcut has no weights
        + 129,
    ),
    "r3gan": lambda channels: (
        (256 * 49 + 100 * 256)
        + (block_count(256) + 256 * 128 + block_count(128) + 128 * 32 + block_count(32))
        + 32 * channels,
        channels * 32
        + (block_count(32) + 32 * 128 + block_count(128) + 128 * 256 + block_count(256))
        + (256 * 49 + 256),
    ),
}


@every_model
@pytest.mark.parametrize("channels", [1, 3])
def test_parameter_counts(model: str, channels: int) -> None:
    networks = build(model, f"data.channels={channels}")
    counts = tuple(sum(p.numel() for p in network.parameters()) for network in networks)
    assert counts == COUNTS[model](channels)


def double_size(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def halve_size(x: Tensor) -> Tensor:
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean(dim=(3, 5))


def test_an_up_block_of_sngan() -> None:
    """Equal to the paper's, whose shortcut upsamples before its convolution."""
    block = replace_zeros(resnet.UpBlock(3, 4)).double()
    norm_1, conv_1, norm_2, conv_2, shortcut = of_type(block, nn.Conv2d, nn.BatchNorm2d)
    x = torch.randn(2, 3, 5, 5).double()
    branch = conv_2(norm_2(conv_1(double_size(norm_1(x).relu()))).relu())
    torch.testing.assert_close(block(x), branch + shortcut(double_size(x)))


@pytest.mark.parametrize("halve", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("c_out", [3, 4])
def test_a_down_block_of_sngan(halve: bool, first: bool, c_out: int) -> None:
    """Equal to the paper's, which pools last except in the first block."""
    block = replace_zeros(resnet.DownBlock(3, c_out, halve, first)).double()
    conv_1, conv_2, *shortcut = of_type(block, nn.Conv2d)
    x = torch.randn(2, 3, 6, 6).double()
    pool = halve_size if halve else nn.Identity()
    by_hand = pool(conv_2(conv_1(x if first else x.relu()).relu()))
    by_hand = by_hand + pool(shortcut[0](x) if shortcut else x)
    assert bool(shortcut) == (first or halve or c_out == 4)
    torch.testing.assert_close(block(x), by_hand)


def test_a_block_of_r3gan() -> None:
    """Each group of 4 of the 16 inner channels has its own 3x3 convolution."""
    block = replace_zeros(r3gan.Block(8, expansion=2, group_size=4, n_blocks=1)).double()
    conv_1, conv_2, conv_3 = of_type(block, nn.Conv2d)
    x = torch.randn(2, 8, 5, 5).double()
    h = F.leaky_relu(F.conv2d(x, conv_1.weight, conv_1.bias), 0.2)
    parts = zip(*(t.split(4, dim) for t, dim in ((h, 1), (conv_2.weight, 0))), strict=True)
    h = torch.cat([F.conv2d(part, weight, padding=1) for part, weight in parts], dim=1)
    h = F.leaky_relu(h + conv_2.bias[:, None, None], 0.2)
    torch.testing.assert_close(block(x), x + F.conv2d(h, conv_3.weight))


def test_features_of_sngan_are_sums_over_the_map() -> None:
    discriminator = resnet.Discriminator()
    *blocks, _ = discriminator.blocks
    x = random_images(2)
    batch = Batch(x)
    for block in blocks:
        x = block(x)
    features = discriminator.features(batch)
    torch.testing.assert_close(features, x.relu().sum(3).sum(2))
    logits = features @ discriminator.last.weight[0] + discriminator.last.bias
    torch.testing.assert_close(discriminator(batch), logits)


def test_r3gan_scales_each_channel_of_its_map_by_a_linear_function_of_z() -> None:
    generator = r3gan.Generator(latent_dim=5)
    starts = []
    generator.layers.register_forward_pre_hook(lambda layers, inputs: starts.extend(inputs))
    with torch.no_grad():
        generator.modulation.weight.zero_()
        generator.modulation.weight[3, 1] = 1
        generator.modulation.weight[4, 2] = 1
        generator(torch.tensor([[0.0, 7.0, 0.0, 0.0, 9.0], [0.0, 1.0, -3.0, 0.0, 0.0]]))
    expected = torch.zeros(2, 256, 7, 7)
    expected[0, 3] = 7 * generator.basis[3]
    expected[1, 3] = generator.basis[3]
    expected[1, 4] = -3 * generator.basis[4]
    assert torch.equal(starts[0], expected)


def test_r3gan_ends_with_a_depthwise_convolution() -> None:
    discriminator = r3gan.Discriminator(widths=[16, 32, 48])
    *before, basis, _ = discriminator.layers
    x = h = random_images(2)
    for layer in before:
        h = layer(h)
    assert h.shape == (2, 48, 7, 7)
    features = (h * basis.weight[:, 0]).sum(dim=(2, 3))
    torch.testing.assert_close(discriminator.features(Batch(x)), features)
    torch.testing.assert_close(discriminator(Batch(x)), features @ discriminator.last.weight[0])


def test_r3gan_downsamples_with_the_authors_filter() -> None:
    """[1, 3, 3, 1] / 8 at every second pixel, with zero padding."""
    _, d = build("r3gan")
    (down, *more) = of_type(d, r3gan.Downsample)
    assert len(more) == 1
    x = torch.randn(2, 3, 6, 6)
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(line, line)
    padded = F.pad(x, (1, 1, 1, 1))
    expected = torch.stack(
        [
            torch.stack(
                [(padded[..., i : i + 4, j : j + 4] * kernel).sum((2, 3)) for j in (0, 2, 4)], -1
            )
            for i in (0, 2, 4)
        ],
        -2,
    )
    torch.testing.assert_close(down(x), expected)


def test_r3gan_upsamples_with_the_authors_filter() -> None:
    """4 times the transpose of downsampling; bilinear interpolation inside the map."""
    g, _ = build("r3gan")
    (up, *more) = of_type(g, r3gan.Upsample)
    assert len(more) == 1
    x, y = torch.randn(2, 3, 6, 6), torch.randn(2, 3, 12, 12)
    torch.testing.assert_close((up(x) * y).sum(), 4 * (x * r3gan.Downsample()(y)).sum())
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(up(x)[..., 1:-1, 1:-1], bilinear[..., 1:-1, 1:-1])


def test_resampling_of_sngan() -> None:
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)
    noise = torch.randn(2, 3, 6, 6)
    g, d = build("resnet")
    for up in of_type(g, nn.Upsample):
        assert torch.equal(up(ramp), double_size(ramp))
    for down in of_type(d, nn.AvgPool2d):
        torch.testing.assert_close(down(noise), halve_size(noise))


def test_images_of_sngan_are_in_the_range_of_tanh() -> None:
    generator, _ = build("resnet")
    assert 0.9 < generator(100 * torch.randn(8, 100)).abs().max() <= 1


def test_images_of_r3gan_may_leave_the_range_and_are_clipped_as_uint8() -> None:
    generator, _ = build("r3gan")
    x = generator(100 * torch.randn(8, 100))
    assert x.max() > 1
    assert x.min() < -1
    assert torch.equal(to_bytes(x), to_bytes(x.clamp(-1, 1)))


@every_model
def test_only_the_generator_of_sngan_has_normalization(model: str) -> None:
    """Normalization layers have buffers or `norm` in their name. D has only plain layers."""
    generator, discriminator = build(model)
    for network in (discriminator, generator) if model == "r3gan" else (discriminator,):
        assert {name.rpartition(".")[2] for name, _ in network.named_buffers()} <= {"kernel"}
        assert not [m for m in network.modules() if "norm" in type(m).__name__.lower()]
    plain = {
        p for layer in of_type(discriminator, nn.Conv2d, nn.Linear) for p in layer.parameters()
    }
    assert plain == set(discriminator.parameters())
    assert len(of_type(generator, nn.BatchNorm2d)) == (5 if model == "resnet" else 0)


@every_model
def test_outputs_depend_on_their_own_input_only(model: str) -> None:
    generator, discriminator = (replace_zeros(network) for network in build(model))
    x = random_images(3).requires_grad_()
    z = torch.randn(3, 100, requires_grad=True)
    logits = discriminator(Batch(x))
    images = generator.eval()(z)
    for i in range(3):
        for out, inputs in ((logits[i], x), (images[i].sum(), z)):
            [grad] = torch.autograd.grad(out, inputs, retain_graph=True)
            assert grad.flatten(1).any(dim=1).tolist() == [j == i for j in range(3)]


# Initialization.


def r3gan_networks(**settings: Any) -> Iterator[nn.Module]:
    yield r3gan.Generator(**settings)
    yield r3gan.Discriminator(**settings)


def test_blocks_of_r3gan_start_as_the_identity() -> None:
    for network in r3gan_networks(blocks=[2, 1, 2]):
        blocks = of_type(network, r3gan.Block)
        assert len(blocks) == 5
        for block in blocks:
            *_, third = of_type(block, nn.Conv2d)
            x = torch.randn(2, third.out_channels, 4, 4)
            assert torch.equal(block(x), x)
            nn.init.normal_(third.weight, 0, 0.1)
            assert (block(x) != x).any(dim=(0, 2, 3)).all()


def test_networks_of_r3gan_start_linear() -> None:
    """Doubling is exact in floating point, so linear networks double their outputs exactly."""
    generator, discriminator = build("r3gan")
    z, x = torch.randn(2, 100), random_images(2)

    def linear() -> list[bool]:
        return [
            torch.equal(generator(2 * z), 2 * generator(z)),
            torch.equal(discriminator(Batch(2 * x)), 2 * discriminator(Batch(x))),
        ]

    assert linear() == [True, True]
    replace_zeros(generator)
    replace_zeros(discriminator)
    assert linear() == [False, False]


def test_initialization_of_r3gan() -> None:
    """n samples of N(0, s) have a mean within s / sqrt(n) and a deviation within s / sqrt(2 n)."""

    def assert_normal(values: Tensor, std: float) -> None:
        n = values.numel()
        assert abs(values.mean().item()) < 5 * std / math.sqrt(n)
        assert abs(values.std().item() - std) < 5 * std / math.sqrt(2 * n)

    for network in r3gan_networks(blocks=[2, 1, 2], channels=3):
        inside = {}
        for block in of_type(network, r3gan.Block):
            first, second, third = of_type(block, nn.Conv2d)
            inside |= {first: 5 ** (-1 / 4), second: 5 ** (-1 / 4)}
            assert not third.weight.any()
            assert third.bias is None
            assert not first.bias.any()
            assert not second.bias.any()
            inside[third] = 0
        layers = of_type(network, nn.Conv2d, nn.Linear)
        ends = 2 if isinstance(network, r3gan.Generator) else 3
        assert len(layers) == 3 * len(of_type(network, r3gan.Block)) + 2 + ends
        for layer in layers:
            gain = math.sqrt(2 / (1 + 0.2**2)) * inside[layer] if layer in inside else 1
            fan_in = math.prod(layer.weight.shape[1:])
            if gain:
                assert_normal(layer.weight, gain / math.sqrt(fan_in))
            if layer not in inside:
                assert layer.bias is None
        if isinstance(network, r3gan.Generator):
            assert_normal(network.basis, 1)


def test_initialization_of_sngan() -> None:
    """U(-a, a) has the deviation a / sqrt(3). The largest of n samples is close to a."""
    for network in (resnet.Generator(channels=3), resnet.Discriminator(channels=3)):
        branches = [
            layer
            for block in of_type(network, resnet.UpBlock, resnet.DownBlock)
            for layer in of_type(block.branch, nn.Conv2d)
        ]
        layers = of_type(network, nn.Conv2d, nn.Linear)
        assert len(branches) == 2 * len(of_type(network, resnet.UpBlock, resnet.DownBlock))
        assert len(layers) > len(branches)
        for layer in layers:
            area = math.prod(layer.weight.shape[2:])
            c_out, c_in = layer.weight.shape[:2]
            gain = math.sqrt(2) if layer in branches else 1
            a = gain * math.sqrt(6 / (area * (c_in + c_out)))
            n = layer.weight.numel()
            assert (
                a * (1 - 20 / n) < layer.weight.abs().max() < a * (1 + 1e-6)
            )  # with probability 1 - e^-20
            assert abs(layer.weight.mean().item()) < 5 * a / math.sqrt(3 * n)
            assert layer.bias is None or not layer.bias.any()
        for norm in of_type(network, nn.BatchNorm2d):
            assert (norm.weight == 1).all()
            assert not norm.bias.any()


# Gradients.


def without_gradient(network: nn.Module, loss: Tensor) -> set[str]:
    """Parameters with gradient 0. The gradients of all others are finite."""
    network.zero_grad()
    loss.backward()
    names = set()
    for name, p in network.named_parameters():
        if p.grad is None or not p.grad.any():
            names.add(name)
        else:
            assert p.grad.isfinite().all(), name
    return names


@every_model
def test_every_parameter_gets_a_gradient(model: str) -> None:
    """At first the layers before the zeros at the end of a block of R3GAN get none.

    The third convolution itself gets one. From the second step on, all layers do.
    """
    generator, discriminator = build(model)
    z, batch = torch.randn(4, 100), Batch(random_images(4))

    def zero_gradients() -> tuple[set[str], set[str]]:
        return (
            without_gradient(generator, generator(z).sum()),
            without_gradient(discriminator, discriminator(batch).sum()),
        )

    for names, network in zip(zero_gradients(), (generator, discriminator), strict=True):
        before_zeros = {
            f"{name}.branch.{i}.{kind}"
            for name, module in network.named_modules()
            if isinstance(module, r3gan.Block)
            for i in (0, 2)
            for kind in ("weight", "bias")
        }
        assert len(before_zeros) == (12 if model == "r3gan" else 0)
        assert names == before_zeros
    replace_zeros(generator)
    replace_zeros(discriminator)
    assert zero_gradients() == (set(), set())


def penalty(discriminator: nn.Module, x: Tensor) -> Tensor:
    """Squared gradients of the logits with respect to the images, summed: R1 without its weight."""
    x = x.detach().requires_grad_()
    [grad] = torch.autograd.grad(discriminator(Batch(x)).sum(), x, create_graph=True)
    return grad.square().sum()


@every_model
def test_gradients_of_gradients_reach_every_weight(model: str) -> None:
    """No bias gets one: dD/dx is piecewise constant in the biases.

    R3GAN is linear at first: the layers before the zeros of a block get none.
    """
    _, discriminator = build(model)
    x = random_images(4)

    def kinds() -> set[str]:
        names = without_gradient(discriminator, penalty(discriminator, x))
        return {name.removesuffix("weight") for name in names if name.endswith("weight")}

    biases = {name for name, _ in discriminator.named_parameters() if name.endswith("bias")}
    assert biases
    before_zeros = {f"layers.{i}.branch.{j}." for i in (1, 4, 7) for j in (0, 2)}
    assert kinds() == (before_zeros if model == "r3gan" else set())
    replace_zeros(discriminator)
    assert without_gradient(discriminator, penalty(discriminator, x)) == biases


SMALL: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    "resnet": lambda: (
        resnet.Generator(4, image_size=8, widths=[8, 6, 4]),
        resnet.Discriminator(image_size=8, widths=[4, 6, 6]),
    ),
    "r3gan": lambda: (
        r3gan.Generator(4, image_size=8, widths=[8, 8, 4], group_size=4),
        r3gan.Discriminator(image_size=8, widths=[4, 8, 8], group_size=4),
    ),
}


@every_model
def test_gradients_of_gradients_equal_finite_differences(model: str) -> None:
    _, discriminator = SMALL[model]()
    replace_zeros(discriminator).double()
    x = random_images(2, size=8, dtype=torch.float64)
    names, weights = zip(*discriminator.named_parameters(), strict=True)
    weights = tuple(w.detach().requires_grad_() for w in weights)

    def of_weights(*weights: Tensor) -> Tensor:
        def forward(batch: Batch) -> Tensor:
            values = dict(zip(names, weights, strict=True))
            return functional_call(discriminator, values, (batch,))

        return penalty(forward, x)

    assert torch.autograd.gradcheck(of_weights, weights, fast_mode=True)


@every_model
def test_three_batches_change_all_parameters_and_buffers(model: str) -> None:
    generator, discriminator = SMALL[model]()
    gan = small_gan(generator=generator, discriminator=discriminator)
    before = snapshot(gan)
    fit(gan, batches=3)
    assert changed(before, gan.state_dict()) == set(before)
    assert all(value.isfinite().all() for value in gan.state_dict().values())


# Settings.


@pytest.mark.parametrize(
    ("network", "settings", "values"),
    [
        (resnet.Generator, {"widths": []}, r"widths=\[\]"),
        (resnet.Discriminator, {"widths": [8, 0]}, r"widths=\[8, 0\]"),
        (resnet.Generator, {"widths": [8, 8, 8, 8]}, "image_size=28 .* 3 times"),
        (resnet.Generator, {"image_size": 2, "widths": [8, 8, 8]}, "image_size=2 .* 2 times"),
        (resnet.Discriminator, {"image_size": 0}, "image_size=0 "),
        (resnet.Discriminator, {"halvings": 3}, "image_size=28 .* 3 times"),
        (resnet.Discriminator, {"halvings": 2, "widths": [8]}, r"halvings=2: .*widths=\[8\]"),
        (resnet.Discriminator, {"halvings": -1}, "halvings=-1"),
        (r3gan.Generator, {"widths": []}, r"widths=\[\]"),
        (r3gan.Generator, {"widths": [32, 20, 16]}, r"widths=\[32, 20, 16\].*group_size=16"),
        (r3gan.Discriminator, {"expansion": 0}, "expansion=0"),
        (r3gan.Discriminator, {"group_size": 0}, "group_size=0"),
        (r3gan.Generator, {"blocks": [1, 1]}, r"blocks=\[1, 1\]"),
        (r3gan.Discriminator, {"blocks": [1, 1, -1]}, r"blocks=\[1, 1, -1\]"),
        (r3gan.Discriminator, {"image_size": 0}, "image_size=0 "),
        (r3gan.Generator, {"widths": [16] * 4, "blocks": [1] * 4}, "image_size=28 .* 3 times"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    network: type, settings: dict[str, Any], values: str
) -> None:
    network()
    with pytest.raises(ValueError, match=values):
        network(**settings)


def test_other_settings_than_the_defaults() -> None:
    generator = r3gan.Generator(3, 2, 32, [32, 24, 24, 8], [0, 2, 1, 1], 4, 8)
    discriminator = r3gan.Discriminator(2, 32, [8, 24, 24, 32], [1, 1, 2, 0], 4, 8)
    x = generator(torch.randn(2, 3))
    assert x.shape == (2, 2, 32, 32)
    assert discriminator(Batch(x)).shape == (2,)
    # Stages of the same width have no convolution between them.
    assert len(of_type(generator, nn.Conv2d)) == 3 * 4 + 2 + 1
    assert len(of_type(discriminator, nn.Conv2d)) == 3 * 4 + 2 + 2
    x = resnet.Generator(3, 2, 32, [16, 8, 8, 4])(torch.randn(2, 3))
    assert x.shape == (2, 2, 32, 32)
    assert resnet.Discriminator(2, 32, [4, 8, 8], 3)(Batch(x)).shape == (2,)
