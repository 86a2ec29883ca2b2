"""What is put around a discriminator, against what it promises."""

import math
from collections.abc import Callable

import pytest
import torch
from conftest import changed, fit, images, small_gan, snapshot, watch
from torch import Tensor, nn

from ganmnist.duel import Clock, Duel, Sample
from ganmnist.initialization import init_from_data
from ganmnist.networks import dcgan, mlp, r3gan
from ganmnist.networks.base import NORMS, Discriminator
from ganmnist.networks.stabilizers import (
    DiffAugment,
    InstanceNoise,
    MinibatchDiscrimination,
    MinibatchStd,
    Packed,
    SpectralNorm,
    cut_out,
    translate,
)
from ganmnist.objectives import BCE, Wasserstein
from ganmnist.schedules import Linear


class Seeing(Discriminator):
    """Keeps what it was shown; the features are the images, the logit their mean."""

    n_features = 64

    def features(self, sample: Sample) -> Tensor:
        self.seen = sample.x
        return sample.x.flatten(1)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return features.mean(1)


def two_blocks(norm: str = "none", channels: int = 1) -> dcgan.Discriminator:
    return dcgan.Discriminator(channels, widths=[4], kernels=[4, 4], strides=[2, 1], norm=norm)


# Spectral norm


def layers(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


@torch.no_grad()
def spread(network: nn.Module) -> list[Tensor]:
    """Gives every layer's matrix the singular values 3, 3/2, 3/4 ..., far apart."""
    matrices = []
    for layer in layers(network):
        u, s, v = torch.linalg.svd(layer.weight.flatten(1), full_matrices=False)
        matrices.append(u @ (3 * 0.5 ** torch.arange(len(s))).diag() @ v)
        layer.weight.copy_(matrices[-1].view_as(layer.weight))
    return matrices


@pytest.mark.parametrize(
    "inside", [two_blocks(), mlp.Discriminator(image_size=8, widths=[16, 8])], ids=["conv", "mlp"]
)
def test_every_layer_has_a_spectral_norm_of_one(inside: Discriminator) -> None:
    """By the SVD of the same matrices: what is left is a third of them."""
    matrices = spread(inside)
    discriminator = SpectralNorm(inside)
    for _ in range(20):
        discriminator(images())
    discriminator.eval()
    for layer, matrix in zip(layers(inside), matrices, strict=True):
        weight = layer.weight.detach().flatten(1)
        torch.testing.assert_close(torch.linalg.svdvals(weight)[0].item(), 1.0, rtol=0, atol=1e-5)
        torch.testing.assert_close(weight, matrix / 3)


def test_spectral_norm_divides_the_weight_and_keeps_its_direction() -> None:
    inside = mlp.Discriminator(image_size=8, widths=[16])
    original = inside.last.weight.detach().clone()
    SpectralNorm(inside)
    weight = inside.last.weight.detach()
    torch.testing.assert_close(weight * original.norm(), original)  # a row's norm is its spectral


def test_a_discriminator_under_spectral_norm_is_lipschitz() -> None:
    """Linear layers of norm 1 and LeakyReLU: |D(x) - D(y)| <= |x - y|."""
    inside = mlp.Discriminator(image_size=8, widths=[32, 16], dropout=0.0)
    spread(inside)
    discriminator = SpectralNorm(inside)
    for _ in range(20):
        discriminator(images())
    discriminator.eval()
    x, y = images(200), images(200)
    rise = (discriminator(x) - discriminator(y)).abs()
    assert (rise <= (x.x - y.x).flatten(1).norm(dim=1) * (1 + 1e-4)).all()
    assert rise.max() > 0


def test_clipped_weights_and_spectral_norm_exclude_each_other() -> None:
    normed = {"it": SpectralNorm}
    with pytest.raises(ValueError, match=r"clip=0\.01 .* objective\.clip=null"):
        small_gan(discriminator=two_blocks(), objective=Wasserstein(clip=0.01), stabilizers=normed)
    small_gan(discriminator=two_blocks(), objective=Wasserstein(clip=None), stabilizers=normed)


@pytest.mark.parametrize("norm", sorted({*NORMS} - {"none"}))
def test_spectral_norm_is_refused_where_a_norm_layer_takes_it_back(norm: str) -> None:
    with pytest.raises(ValueError, match=r"choose model\.discriminator\.norm=none"):
        SpectralNorm(two_blocks(norm))


def test_spectral_norm_is_refused_where_there_is_nothing_to_divide() -> None:
    with pytest.raises(ValueError, match="a layer that starts at 0, as r3gan's do"):
        SpectralNorm(r3gan.Discriminator())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda d: Packed(d, 0), "m=0 makes no packs"),
        (lambda d: InstanceNoise(d, -0.1), "the sigma of InstanceNoise is -0.1"),
        (lambda d: InstanceNoise(d, Linear(0.1, "ten")), "the sigma of InstanceNoise is ten"),
        (lambda d: MinibatchDiscrimination(d, kernels=0), "kernels=0 and dims=5"),
        (lambda d: MinibatchDiscrimination(d, dims=0), "kernels=50 and dims=0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    make: Callable[[Discriminator], Discriminator], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        make(two_blocks())


def test_the_spread_of_a_batch_has_a_slope_in_half_precision() -> None:
    """A feature that is the same in all images, such as a ReLU that is never on, gives 0."""
    d = MinibatchStd(two_blocks()).half()
    features = torch.zeros(4, d.n_features, dtype=torch.half, requires_grad=True)
    with torch.autocast("cpu", torch.half):
        (slope,) = torch.autograd.grad(d.score(features, Sample(None)).sum(), features)
    assert slope.isfinite().all()


# What D sees


def test_instance_noise_has_its_deviation_and_fades() -> None:
    inside = Seeing()
    noisy = InstanceNoise(inside, sigma=Linear(start=0.4, end=0.0))
    sample = images(500)
    for progress, sigma in ((0.0, 0.4), (0.5, 0.2)):
        noisy.tick(Clock(1, progress))
        noisy(sample)
        noise = inside.seen - sample.x
        n = noise.numel()
        # Five standard errors of a mean and of a standard deviation.
        assert abs(noise.mean()) < 5 * sigma / math.sqrt(n)
        assert abs(noise.std() - sigma) < 5 * sigma / math.sqrt(2 * n)
    noisy.tick(Clock(1, 1.0))
    noisy(sample)
    assert torch.equal(inside.seen, sample.x)


@pytest.mark.parametrize("wrap", [lambda d: InstanceNoise(d, 0.5), DiffAugment])
def test_in_evaluation_mode_d_sees_what_is_there(wrap: type) -> None:
    inside = Seeing()
    wrapped = wrap(inside)
    sample = images()
    wrapped(sample)
    assert not torch.equal(inside.seen, sample.x)
    wrapped.eval()(sample)
    assert torch.equal(inside.seen, sample.x)


def test_translation_shifts_whole_images_over_black_paper() -> None:
    x = torch.rand(400, 1, 8, 8)  # brighter than the black of -1
    moved = translate(x, 0.25)
    shifts = set()
    for image, shifted in zip(x[:, 0], moved[:, 0], strict=True):
        rows = (shifted != -1).any(1).nonzero().flatten()
        columns = (shifted != -1).any(0).nonzero().flatten()
        dy = 8 - len(rows) if rows[0] > 0 else len(rows) - 8
        dx = 8 - len(columns) if columns[0] > 0 else len(columns) - 8
        padded = torch.full((12, 12), -1.0)
        padded[2 + dy : 10 + dy, 2 + dx : 10 + dx] = image
        assert torch.equal(shifted, padded[2:10, 2:10])
        shifts.add((dy, dx))
    assert shifts == {(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}
    assert torch.equal(translate(x, 0.0), x)


def test_cutout_leaves_a_square_hole_somewhere() -> None:
    x = torch.rand(400, 2, 8, 8)
    cut = cut_out(x, 0.25)
    holes = cut == -1
    assert torch.equal(holes[:, 0], holes[:, 1])  # all channels
    assert torch.equal(cut[~holes], x[~holes])
    assert holes.any(0).all()  # anywhere
    assert torch.equal(cut_out(x, 0.0), x)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_centre_of_a_hole_is_in_the_image(size: int) -> None:
    """So at least half of an even side lies inside, and the larger half of an odd one."""
    holes = cut_out(torch.rand(2000, 1, 8, 8), size / 8)[:, 0] == -1
    for sides in (holes.any(1).sum(1), holes.any(2).sum(1)):
        assert set(sides.tolist()) == {*range((size + 1) // 2, size + 1)}


def test_augmentations_pass_gradients_back() -> None:
    x = torch.rand(16, 1, 8, 8, requires_grad=True)
    y = cut_out(translate(x, 0.125), 0.25)
    (grad,) = torch.autograd.grad(y.sum(), x)
    visible = (y != -1).flatten(1).sum(1)
    torch.testing.assert_close(grad.flatten(1).sum(1), visible.float())
    assert set(grad.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("settings", [{"translation": 1.0}, {"cutout": -0.5}])
def test_shares_of_an_image_are_below_one(settings: dict[str, float]) -> None:
    [(name, value)] = settings.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        DiffAugment(Seeing(), **settings)


def test_a_pack_shows_its_images_as_channels() -> None:
    inside = Seeing()
    x = torch.rand(6, 2, 8, 8)
    logits = Packed(inside, m=3)(Sample(x))
    assert logits.shape == (2,)
    for i in range(2):
        assert torch.equal(inside.seen[i], torch.cat([*x[3 * i : 3 * i + 3]]))
    with pytest.raises(ValueError, match="batch of 7 images makes no packs of 3"):
        Packed(inside, m=3)(Sample(torch.rand(7, 2, 8, 8)))


# What D is told about the batch


def test_minibatch_std_adds_its_share_of_a_last_linear_layer() -> None:
    wrapped = MinibatchStd(Seeing(), group_size=8)
    sample = images()
    h = sample.x.flatten(1)
    std = h.std(0, unbiased=False).mean()
    joined = torch.cat([h, std.expand(len(h), 1)], 1)
    weights = torch.cat([torch.full((64,), 1 / 64), wrapped.weight.weight.flatten()])
    torch.testing.assert_close(wrapped(sample), joined @ weights)


def test_minibatch_std_is_of_groups_of_four() -> None:
    """Karras et al.'s groups: of 8 images, every second."""
    h = images().x.flatten(1)
    found = MinibatchStd(Seeing()).std(h).flatten()
    for start in (0, 1):
        group = [start, start + 2, start + 4, start + 6]
        expected = h[group].std(0, unbiased=False).mean()
        torch.testing.assert_close(found[group], expected.expand(4))


def test_a_batch_is_divided_into_groups_evenly() -> None:
    with pytest.raises(ValueError, match=r"group_size=4 does not divide a batch of 6"):
        MinibatchStd(Seeing())(images(6))
    assert MinibatchStd(Seeing())(images(3)).shape == (3,)  # a batch smaller than a group is one


def test_minibatch_std_is_finite_where_all_images_are_the_same() -> None:
    x = torch.ones(4, 1, 8, 8, requires_grad=True)
    wrapped = MinibatchStd(Seeing())
    wrapped(Sample(x)).sum().backward()
    assert x.grad.isfinite().all()


def test_minibatch_discrimination_is_the_sum_of_the_paper() -> None:
    wrapped = MinibatchDiscrimination(Seeing(), kernels=3, dims=2)
    nn.init.normal_(wrapped.weight.weight)
    nn.init.normal_(wrapped.closeness.bias)
    sample = images(5)
    h = sample.x.flatten(1)
    m = (h @ wrapped.closeness.project.weight.T).reshape(5, 3, 2)
    o = torch.zeros(5, 3) + wrapped.closeness.bias
    for i in range(5):
        for j in range(5):
            if i != j:
                o[i] += torch.exp(-(m[i] - m[j]).abs().sum(1))
    torch.testing.assert_close(wrapped.closeness(h), o)
    joined = torch.cat([h, o], 1)
    weights = torch.cat([torch.full((64,), 1 / 64), wrapped.weight.weight.flatten()])
    torch.testing.assert_close(wrapped(sample), joined @ weights)


def test_identical_images_are_as_close_as_can_be() -> None:
    closeness = MinibatchDiscrimination(Seeing(), kernels=3, dims=2).closeness
    torch.testing.assert_close(closeness(torch.rand(1, 64).expand(5, 64)), torch.full((5, 3), 4.0))


def test_the_first_batch_centres_minibatch_discrimination() -> None:
    wrapped = MinibatchDiscrimination(Seeing(), kernels=3, dims=2)
    sample = images(16)
    init_from_data(wrapped, lambda: wrapped(sample))
    statistics = wrapped.closeness(wrapped.features(sample))
    torch.testing.assert_close(statistics.mean(0), torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_minibatch_discrimination_leaves_the_first_logits_as_they_are(norm: str) -> None:
    """With untrained weights on 50 statistics, D was certain of every image before it learned."""
    for seed in range(16):
        torch.manual_seed(seed)
        inside = dcgan.Discriminator(norm=norm)
        wrapped = MinibatchDiscrimination(inside)
        real, fake = Sample(torch.rand(64, 1, 28, 28) * 2 - 1), Sample(torch.zeros(64, 1, 28, 28))
        init_from_data(wrapped, lambda w=wrapped, x=real: w(x))
        duel = Duel(wrapped, real, fake)
        logits = torch.cat([duel.real_logits, duel.fake_logits])
        assert torch.equal(logits, torch.cat([inside(real), inside(fake)]))
        if norm == "none":
            assert logits.std() < 1
        BCE(stable=False).d_loss(duel).backward()
        assert all(p.grad.any() for p in inside.parameters())
        assert wrapped.weight.weight.grad.any()


# Together


WRAPPERS = {
    "spectral norm": SpectralNorm,
    "noise": lambda d: InstanceNoise(d, 0.1),
    "augment": DiffAugment,
    "std": MinibatchStd,
    "discrimination": MinibatchDiscrimination,
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_discriminators_train_with_all_their_parameters(name: str) -> None:
    gan = small_gan(discriminator=two_blocks(), stabilizers={"it": WRAPPERS[name]})
    moved = watch(gan)
    fit(gan, batches=2)
    d = {name for name, _ in gan.discriminator.named_parameters("discriminator")}
    assert d <= moved["d"]
    assert {name for name, _ in gan.generator.named_parameters("generator")} <= moved["g"]


def test_wrappers_go_around_each_other_in_their_order() -> None:
    packed = two_blocks(channels=2)
    gan = small_gan(
        discriminator=packed,
        stabilizers={"inner": lambda d: Packed(d, 2), "outer": MinibatchStd},
    )
    assert isinstance(gan.discriminator, MinibatchStd)
    assert isinstance(gan.discriminator.inside, Packed)
    assert gan.discriminator.inside.inside is packed
    before = snapshot(packed)
    fit(gan, batches=1)
    assert changed(before, snapshot(packed))


# Normalisation by name


@pytest.mark.parametrize("norm", NORMS)
def test_norms_come_by_name(norm: str) -> None:
    discriminator = two_blocks(norm)
    kinds = {"batch": nn.BatchNorm2d, "layer": nn.GroupNorm, "instance": nn.InstanceNorm2d}
    found = [m for m in discriminator.modules() if isinstance(m, tuple(kinds.values()))]
    assert [type(m) for m in found] == ([kinds[norm]] if norm in kinds else [])
    x = images().x
    alone = torch.cat([discriminator(Sample(image[None])) for image in x])
    together = discriminator(Sample(x))
    assert torch.allclose(alone, together, atol=1e-5) == (norm != "batch")


def test_an_unknown_norm_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="norm=bach is unknown: choose batch, layer, instance"):
        two_blocks("bach")
