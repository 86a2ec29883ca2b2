"""The shipped networks, as conf/model/*.yaml builds them, against plain PyTorch."""

import math
from collections.abc import Iterator
from copy import deepcopy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from conftest import changed, configuration, snapshot
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ganmnist.duel import Sample
from ganmnist.initialization import init_from_data
from ganmnist.networks import dcgan, mlp, noisy
from ganmnist.networks.base import NORMS, channels_last
from ganmnist.networks.perceptron import Dropout


@cache
def built(model: str) -> tuple[nn.Module, nn.Module]:
    config = configuration(f"model={model}").model
    torch.manual_seed(0)
    return instantiate(config.generator), instantiate(config.discriminator)


def build(model: str) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of conf/model/`model`.yaml, always with the same weights."""
    return deepcopy(built(model))


def up(c_in: int, c_out: int, kernel: int, stride: int, padding: int) -> nn.Module:
    return nn.ConvTranspose2d(c_in, c_out, kernel, stride, padding, bias=False)


def down(c_in: int, c_out: int, kernel: int, stride: int, padding: int) -> nn.Module:
    return nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)


def norm_relu(c: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(c), nn.ReLU()]


def leaky_dropout() -> list[nn.Module]:
    return [nn.LeakyReLU(0.2), Dropout(0.3)]


def dcgan_by_hand() -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(
        *(up(100, 256, 4, 1, 0), *norm_relu(256)),
        *(up(256, 128, 3, 2, 1), *norm_relu(128)),
        *(up(128, 64, 4, 2, 1), *norm_relu(64)),
        *(up(64, 1, 4, 2, 1), nn.Tanh()),
    ), nn.Sequential(
        *(down(1, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.LeakyReLU(0.2)),
        *(down(64, 128, 4, 2, 1), nn.BatchNorm2d(128), nn.LeakyReLU(0.2)),
        down(128, 1, 7, 1, 0),
    )


def dcgan64_by_hand() -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(
        *(up(100, 512, 4, 1, 0), *norm_relu(512)),
        *(up(512, 256, 4, 2, 1), *norm_relu(256)),
        *(up(256, 128, 4, 2, 1), *norm_relu(128)),
        *(up(128, 64, 4, 2, 1), *norm_relu(64)),
        *(up(64, 1, 4, 2, 1), nn.Tanh()),
    ), nn.Sequential(
        *(down(1, 64, 4, 2, 1), nn.LeakyReLU(0.2)),
        *(down(64, 128, 4, 2, 1), nn.BatchNorm2d(128), nn.LeakyReLU(0.2)),
        *(down(128, 256, 4, 2, 1), nn.BatchNorm2d(256), nn.LeakyReLU(0.2)),
        *(down(256, 512, 4, 2, 1), nn.BatchNorm2d(512), nn.LeakyReLU(0.2)),
        down(512, 1, 4, 1, 0),
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


def layers(network: nn.Module) -> Iterator[nn.Module]:
    """What computes, in order, without what only reshapes."""
    for module in network.modules():
        if not (list(module.children()) or isinstance(module, nn.Flatten | nn.Unflatten)):
            yield module


def describe(network: nn.Module) -> list[str]:
    """As PyTorch prints the layers; ours that compute the same in another way go by its names."""
    text = "\n".join(map(repr, layers(network))).replace(", inplace=True", "")
    text = text.replace("inplace=True", "")
    return text.replace("Opening", "ConvTranspose2d").replace("Closing", "Conv2d").split("\n")


@every_model
def test_layers_are_those_of_the_recipe(model: str) -> None:
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
    logits = d(Sample(x))
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
    seen: list[tuple[int, ...]] = []
    for layer in [*layers(generator), *layers(discriminator)]:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda layer, given, out: seen.append(out.shape[1:]))
    x = generator(torch.randn(2, 100))
    sample = Sample(x)
    assert discriminator(sample).shape == (2,)
    assert seen == [*SHAPES[model][0], *SHAPES[model][1]]
    features = discriminator.features(sample)
    assert features.shape == (2, math.prod(SHAPES[model][1][-2]))
    assert discriminator.score(features, sample).shape == (2,)
    size = 64 if model == "dcgan64" else 28
    assert x.shape == (2, 1, size, size)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_moves_numbers_and_changes_none(channels: int) -> None:
    x = torch.randn(2, channels, 4, 5, requires_grad=True)
    moved = channels_last(x)
    assert torch.equal(moved, x)
    assert moved.stride() == (20 * channels, 1, 5 * channels, channels)
    (slope,) = torch.autograd.grad((moved * moved).sum(), x)
    assert torch.equal(slope, 2 * x)


@pytest.mark.parametrize("model", ["dcgan", "dcgan64"])
def test_convolutions_keep_the_order_in_memory(model: str) -> None:
    maps: list[torch.Tensor] = []
    generator, discriminator = build(model)
    for layer in [*layers(generator), *layers(discriminator)]:
        layer.register_forward_hook(lambda layer, given, out: maps.append(out))
    discriminator(Sample(generator(torch.randn(2, 100))))
    assert {x.stride(1) for x in maps if x.shape[1] > 1} == {1}


@every_model
def test_images_lie_in_the_range_of_tanh(model: str) -> None:
    generator, _ = build(model)
    *_, last = (layer for layer in layers(generator) if list(layer.parameters()))
    inputs = []
    last.register_forward_hook(lambda layer, given, out: inputs.append(out))
    x = generator(100 * torch.randn(8, 100))
    assert x.abs().max() <= 1
    assert torch.equal(x.flatten(), inputs[0].tanh().flatten())


@pytest.mark.parametrize("model", ["dcgan", "dcgan64"])
def test_initialisation_of_radford_et_al(model: str) -> None:
    """n draws of N(mu, s) have a mean within s / sqrt(n) and a deviation within s / sqrt(2 n)."""

    def drawn_from(values: torch.Tensor, mu: float) -> None:
        n = values.numel()
        assert abs(values.mean().item() - mu) < 5 * 0.02 / math.sqrt(n)
        assert abs(values.std().item() - 0.02) < 5 * 0.02 / math.sqrt(2 * n)

    for network in build(model):
        norms = [layer for layer in layers(network) if isinstance(layer, nn.BatchNorm2d)]
        for layer in layers(network):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                drawn_from(layer.weight, 0.0)
                assert layer.bias is None
        drawn_from(torch.cat([norm.weight for norm in norms]), 1.0)
        assert not any(norm.bias.any() for norm in norms)
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


def test_a_discriminator_without_norm_layers_has_biases() -> None:
    """Else D(t x) = t D(x) for t > 0, and a black image has D = 0 whatever it learns."""
    d = dcgan.Discriminator(norm="none")
    convolutions = [layer for layer in layers(d) if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 3
    assert not any(layer.bias.any() for layer in convolutions)
    x = torch.zeros(2, 1, 28, 28)
    before = d(Sample(x))
    for layer in convolutions:
        nn.init.constant_(layer.bias, 0.1)
    assert (before == 0).all()
    assert (d(Sample(x)) != 0).all()


def test_perceptrons_have_the_initialisation_of_pytorch() -> None:
    ours = build("mlp")
    torch.manual_seed(0)
    for network, by_hand in zip(ours, mlp_by_hand(), strict=True):
        for p, q in zip(network.parameters(), by_hand.parameters(), strict=True):
            assert torch.equal(p, q)


@pytest.mark.parametrize("model", ["dcgan", "mlp", "noisy_mlp"])
def test_channels_and_latent_dim_follow_the_configuration(model: str) -> None:
    config = configuration(f"model={model}", "data.channels=3", "latent_dim=7").model
    x = instantiate(config.generator)(torch.randn(2, 7))
    assert x.shape == (2, 3, 28, 28)
    assert instantiate(config.discriminator)(Sample(x)).shape == (2,)


def test_a_kernel_that_spans_all_there_is_is_a_fully_connected_layer() -> None:
    g, d = build("dcgan_fc")
    z, x = torch.randn(4, 100), torch.rand(4, 1, 28, 28) * 2 - 1
    first, second = (layer.weight.flatten(1) for layer in (g.blocks[0], g.blocks[3]))
    rows = torch.relu(F.batch_norm(z @ first, None, None, *norm_of(g.blocks[1]), training=True))
    torch.testing.assert_close(g.blocks[:4](z[:, :, None, None]).flatten(1), rows @ second)
    assert [tuple(block.shape[1:]) for block in walk(g.blocks, z[:, :, None, None])[2::3]] == [
        *((512, 1, 1), (64, 7, 7), (32, 14, 14))
    ]
    assert g(z).shape == x.shape
    assert d.features(Sample(x)).shape == (4, 512)
    maps = d.blocks[:5](x)
    assert maps.shape == (4, 64, 7, 7)
    torch.testing.assert_close(
        d.blocks[5](maps).flatten(1), maps.flatten(1) @ d.blocks[5].weight.flatten(1).T
    )


def norm_of(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    return layer.weight, layer.bias


def walk(blocks: nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    """What each block makes of x."""
    return [x := block(x) for block in blocks]


@pytest.mark.parametrize("network", [dcgan.Generator, dcgan.Discriminator])
@pytest.mark.parametrize("wrong", ["widths", "kernels", "strides", "paddings"])
def test_lists_that_do_not_fit_together_are_refused(network: type, wrong: str) -> None:
    lists = {"widths": [8, 4], "kernels": [4, 4, 4], "strides": [1, 2, 2], "paddings": [0, 1, 0]}
    network(**lists)
    lists[wrong].append(4)
    with pytest.raises(ValueError, match=rf"{wrong}=\[[\d, ]*, 4\]"):
        network(**lists)


def test_the_first_batch_gives_noisy_layers_mean_0_and_variance_1() -> None:
    """Of every unit, over the very batch and the very noise that set them."""
    d = noisy.Discriminator(widths=[40, 30])
    sample = Sample(torch.rand(500, 1, 28, 28) * 2 - 1)
    units: list[Tensor] = []
    for layer in d.modules():
        if isinstance(layer, noisy.WeightNorm):
            layer.register_forward_hook(lambda layer, inputs, output: units.append(output))
    init_from_data(d, lambda: d(sample))
    assert [x.shape[1] for x in units] == [40, 30, 1]
    for x in units:
        std, mean = torch.std_mean(x, 0, unbiased=False)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
        torch.testing.assert_close(std, torch.ones_like(std))


def test_data_sets_nothing_where_no_layer_asks_for_it() -> None:
    d = dcgan.Discriminator()
    before = snapshot(d)
    init_from_data(d, lambda: d(Sample(torch.rand(4, 1, 28, 28))))
    assert not changed(before, d.state_dict())  # batch norm's statistics neither


def test_batch_norm_of_the_noisy_generator_has_no_scale_to_train() -> None:
    g, _ = build("noisy_mlp")
    norms = [layer for layer in g.modules() if isinstance(layer, nn.BatchNorm1d)]
    trained = [(norm.weight.requires_grad, norm.bias.requires_grad) for norm in norms]
    assert trained == [(False, True)] * 2


def test_maxout_is_the_maximum_of_linear_functions() -> None:
    layer = mlp.Maxout(3, 4, pieces=5)
    x = torch.randn(6, 3)
    w, b = layer.linear.weight.view(4, 5, 3), layer.linear.bias.view(4, 5)
    expected = (torch.einsum("bi,opi->bop", x, w) + b).max(2).values
    torch.testing.assert_close(layer(x), expected)


def test_a_maxout_discriminator_has_no_other_nonlinearity() -> None:
    d = mlp.Discriminator(widths=[7, 5], pieces=3, dropout=0.5, input_dropout=0.2)
    kinds = [type(layer).__name__ for layer in d.layers]
    assert kinds == ["Flatten", "Maxout", "Dropout", "Maxout", "Dropout"]
    with pytest.raises(ValueError, match="pieces=0"):
        mlp.Discriminator(pieces=0)


def test_dropped_pixels_are_black() -> None:
    d = mlp.Discriminator(widths=[], input_dropout=0.25)
    x = Sample(torch.ones(4, 1, 28, 28))
    shown = d.features(x)
    torch.testing.assert_close(shown.unique(), torch.tensor([0.0, 4 / 3]))  # pixels in [0, 1]
    assert torch.equal(d.eval().features(x), torch.ones(4, 784))


@pytest.mark.parametrize("output", mlp.OUTPUTS)
def test_generators_may_begin_at_the_mean_image(output: str) -> None:
    g = mlp.Generator(3, widths=[], output=output, mean_bias=True, dropout=0.0)
    x = torch.rand(20, 1, 28, 28) * 1.8 - 0.9
    g.init_from_images(x)
    torch.testing.assert_close(g(torch.zeros(1, 3))[0], x.mean(0))


def test_perceptrons_may_begin_with_uniform_weights() -> None:
    g = mlp.Generator(100, widths=[300], init_bound=0.05)
    assert not any(p.any() for name, p in g.named_parameters() if name.endswith("bias"))
    for w in (p for name, p in g.named_parameters() if name.endswith("weight")):
        assert w.abs().max() <= 0.05
        # The variance of a uniform number is bound^2 / 3; five standard errors.
        assert w.var().item() == pytest.approx(0.05**2 / 3, rel=5 * (0.8 / w.numel()) ** 0.5)


def test_batch_norm_in_perceptrons_stands_before_the_nonlinearity() -> None:
    d = mlp.Discriminator(widths=[7, 5], norm="batch", first_norm=False, dropout=0.0)
    kinds = [type(layer).__name__ for layer in d.layers]
    first = ["Linear", "LeakyReLU", "Dropout"]
    assert kinds == ["Flatten", *first, "Linear", "BatchNorm1d", "LeakyReLU", "Dropout"]
    assert not d.singly
    with pytest.raises(ValueError, match="norm=layer"):
        mlp.Discriminator(norm="layer")


def test_noise_is_of_training_alone() -> None:
    noise, x = noisy.Noise(0.5), torch.zeros(100_000)
    torch.manual_seed(0)
    assert noise(x).std().item() == pytest.approx(0.5, rel=0.01)
    assert torch.equal(noise.eval()(x), x)
    _, d = build("noisy_mlp")
    image = Sample(torch.rand(2, 1, 28, 28))
    assert not torch.equal(d(image), d(image))
    d.eval()
    assert torch.equal(d(image), d(image))
    with pytest.raises(ValueError, match="standard deviations"):
        noisy.Discriminator(noise=-1)


def test_noisy_weights_are_a_length_and_a_direction() -> None:
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


def test_noisy_features_are_what_the_last_noise_is_added_to() -> None:
    d = noisy.Discriminator(widths=[5], image_noise=0.0)
    image = Sample(torch.rand(2, 1, 28, 28))
    assert torch.equal(d.features(image), d.features(image))
    assert not torch.equal(d(image), d(image))


@pytest.mark.parametrize("of", [dcgan, mlp])
def test_networks_of_one_layer(of) -> None:
    one = {"kernels": [28], "strides": [1]} if of is dcgan else {}
    x = of.Generator(3, widths=[], **one)(torch.randn(2, 3))
    assert x.shape == (2, 1, 28, 28)
    assert of.Discriminator(widths=[], **one)(Sample(x)).shape == (2,)


def test_the_last_kernel_spans_its_whole_map() -> None:
    with pytest.raises(ValueError, match=r"paddings=\[1, 1, 5\]: .* end with 0"):
        dcgan.Discriminator(paddings=[1, 1, 5])


def test_dropout_is_off_in_evaluation_mode() -> None:
    generator = mlp.Generator().eval()
    z = torch.randn(4, 100)
    assert torch.equal(generator(z), generator(z))
    generator.train()
    assert not torch.equal(generator(z), generator(z))


@pytest.mark.parametrize(
    ("singly", "settings"),
    [
        (True, ["model=mlp", "model.discriminator.dropout=0"]),
        (True, ["model=resnet"]),
        (
            True,
            ["model=noisy_mlp", "model.discriminator.image_noise=0", "model.discriminator.noise=0"],
        ),
        (True, ["model=r3gan"]),
        *((norm != "batch", [f"model.discriminator.norm={norm}"]) for norm in NORMS),
    ],
    ids=lambda value: "" if isinstance(value, bool) else value[-1],
)
def test_who_judges_images_singly_makes_the_same_of_them_in_any_batch(
    singly: bool, settings: list[str]
) -> None:
    discriminator = instantiate(configuration(*settings).model.discriminator).double().train()
    assert discriminator.singly is singly
    x = torch.rand(6, 1, 28, 28, dtype=torch.float64) * 2 - 1
    together = discriminator(Sample(x))
    apart = torch.cat([discriminator(Sample(x[:2])), discriminator(Sample(x[2:]))])
    assert torch.allclose(together, apart) is singly
