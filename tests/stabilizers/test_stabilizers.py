"""Stabilizers and the discriminators that they wrap."""

import math
from functools import partial

import pytest
import torch
from helpers.data import images
from helpers.gan import changed, fit, small_gan, snapshot, watch
from torch import Tensor, nn

from ganmnist.losses.adversarial import BCE
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks import dcgan, mlp, r3gan
from ganmnist.networks.base import NORMS, Discriminator
from ganmnist.networks.initialization import init_from_data
from ganmnist.stabilizers.base import Stabilizer
from ganmnist.stabilizers.diffaugment import DiffAugment, cut_out, translate
from ganmnist.stabilizers.instance_noise import InstanceNoise, NoisyDiscriminator
from ganmnist.stabilizers.minibatch_discrimination import (
    MinibatchDiscrimination,
    SimilarityDiscriminator,
)
from ganmnist.stabilizers.minibatch_std import MinibatchStd, MinibatchStdDiscriminator
from ganmnist.stabilizers.pacgan import PacGAN, PackedDiscriminator
from ganmnist.stabilizers.spectral_norm import SpectralNorm
from ganmnist.utils.batch import Batch
from ganmnist.utils.schedules import Linear, TrainingProgress


class RecordingDiscriminator(Discriminator):
    """Features are the pixels, the logit is their mean. Keeps its last input."""

    n_features = 64

    def features(self, batch: Batch) -> Tensor:
        self.input = batch.x
        return batch.x.flatten(1)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return features.mean(1)


def two_blocks(norm: str = "none", channels: int = 1) -> dcgan.Discriminator:
    return dcgan.Discriminator(channels, widths=[4], kernels=[4, 4], strides=[2, 1], norm=norm)


# Spectral norm


def layers(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


@torch.no_grad()
def set_singular_values(network: nn.Module) -> list[Tensor]:
    """Sets the singular values of every layer to 3, 3/2, 3/4 ... Returns the matrices."""
    matrices = []
    for layer in layers(network):
        u, s, v = torch.linalg.svd(layer.weight.flatten(1), full_matrices=False)
        matrices.append(u @ (3 * 0.5 ** torch.arange(len(s))).diag() @ v)
        layer.weight.copy_(matrices[-1].view_as(layer.weight))
    return matrices


@pytest.mark.parametrize(
    "inner", [two_blocks(), mlp.Discriminator(image_size=8, widths=[16, 8])], ids=["conv", "mlp"]
)
def test_every_layer_has_a_spectral_norm_of_one(inner: Discriminator) -> None:
    """The largest singular value is 3, so the weights become a third."""
    matrices = set_singular_values(inner)
    discriminator = SpectralNorm().wrap_discriminator(inner)
    for _ in range(20):
        discriminator(images())
    discriminator.eval()
    for layer, matrix in zip(layers(inner), matrices, strict=True):
        weight = layer.weight.detach().flatten(1)
        torch.testing.assert_close(torch.linalg.svdvals(weight)[0].item(), 1.0, rtol=0, atol=1e-5)
        torch.testing.assert_close(weight, matrix / 3)


def test_spectral_norm_divides_the_weight_and_keeps_its_direction() -> None:
    inner = mlp.Discriminator(image_size=8, widths=[16])
    original = inner.last.weight.detach().clone()
    SpectralNorm().wrap_discriminator(inner)
    weight = inner.last.weight.detach()
    torch.testing.assert_close(weight * original.norm(), original)  # the matrix is one row


def test_discriminator_with_spectral_norm_is_lipschitz() -> None:
    """Linear layers of norm 1 and LeakyReLU: |D(x) - D(y)| <= |x - y|."""
    inner = mlp.Discriminator(image_size=8, widths=[32, 16], dropout=0.0)
    set_singular_values(inner)
    discriminator = SpectralNorm().wrap_discriminator(inner)
    for _ in range(20):
        discriminator(images())
    discriminator.eval()
    x, y = images(200), images(200)
    difference = (discriminator(x) - discriminator(y)).abs()
    assert (difference <= (x.x - y.x).flatten(1).norm(dim=1) * (1 + 1e-4)).all()
    assert difference.max() > 0


@pytest.mark.parametrize("norm", sorted({*NORMS} - {"none"}))
def test_spectral_norm_refuses_norm_layers(norm: str) -> None:
    with pytest.raises(ValueError, match="stabilizer=spectral_norm"):
        SpectralNorm().wrap_discriminator(two_blocks(norm))


def test_spectral_norm_refuses_weights_of_zero() -> None:
    with pytest.raises(ValueError, match="stabilizer=spectral_norm"):
        SpectralNorm().wrap_discriminator(r3gan.Discriminator())


@pytest.mark.parametrize(
    ("stabilizer", "setting"),
    [
        (PacGAN(0), "pacgan.m=0"),
        (InstanceNoise(-0.1), "instance_noise.sigma=-0.1"),
        (InstanceNoise(Linear(0.1, "ten")), "instance_noise.sigma=ten"),
        (DiffAugment(translation=1.0), "diffaugment.translation=1.0"),
        (DiffAugment(cutout=-0.5), "diffaugment.cutout=-0.5"),
        (MinibatchStd(1), "minibatch_std.group_size=1"),
        (MinibatchDiscrimination(kernels=0), "minibatch_discrimination.kernels=0"),
        (MinibatchDiscrimination(dims=0), "minibatch_discrimination.dims=0"),
    ],
)
def test_settings_out_of_range_are_refused(stabilizer: Stabilizer, setting: str) -> None:
    with pytest.raises(ValueError, match=f"stabilizer.{setting}"):
        stabilizer.wrap_discriminator(two_blocks())


@pytest.mark.parametrize(
    ("stabilizer", "attribute", "value"),
    [
        (InstanceNoise(0.1), "input_fields", frozenset("z")),
        (DiffAugment(), "input_fields", frozenset("z")),
        (PacGAN(), "input_fields", frozenset("xy")),
        (DiffAugment(), "n_scales", 3),
        (MinibatchStd(), "n_scales", 3),
        (MinibatchDiscrimination(), "n_scales", 3),
    ],
)
def test_unsuitable_discriminators_are_refused(
    stabilizer: Stabilizer, attribute: str, value: object
) -> None:
    inner = RecordingDiscriminator()
    setattr(inner, attribute, value)
    with pytest.raises(ValueError, match="stabilizer="):
        stabilizer.wrap_discriminator(inner)


def test_minibatch_std_of_equal_features_has_a_finite_gradient_in_half_precision() -> None:
    d = MinibatchStdDiscriminator(two_blocks()).half()
    features = torch.zeros(4, d.n_features, dtype=torch.half, requires_grad=True)
    with torch.autocast("cpu", torch.half):
        (grad,) = torch.autograd.grad(d.logits(features, images(4)).sum(), features)
    assert grad.isfinite().all()


# Changes of D's inputs


def test_instance_noise_has_standard_deviation_sigma() -> None:
    inner = RecordingDiscriminator()
    noisy = NoisyDiscriminator(inner, sigma=Linear(start=0.4, end=0.0))
    batch = images(500)
    for fraction, sigma in ((0.0, 0.4), (0.5, 0.2)):
        noisy.before_d_step(TrainingProgress(1, fraction))
        noisy(batch)
        noise = inner.input - batch.x
        n = noise.numel()
        # Five standard errors of a mean and of a standard deviation.
        assert abs(noise.mean()) < 5 * sigma / math.sqrt(n)
        assert abs(noise.std() - sigma) < 5 * sigma / math.sqrt(2 * n)
    noisy.before_d_step(TrainingProgress(1, 1.0))
    noisy(batch)
    assert torch.equal(inner.input, batch.x)


@pytest.mark.parametrize("stabilizer", [InstanceNoise(0.5), DiffAugment()])
def test_inputs_are_unchanged_in_evaluation_mode(stabilizer: Stabilizer) -> None:
    inner = RecordingDiscriminator()
    wrapped = stabilizer.wrap_discriminator(inner)
    batch = images()
    wrapped(batch)
    assert not torch.equal(inner.input, batch.x)
    wrapped.eval()(batch)
    assert torch.equal(inner.input, batch.x)


def test_translation_shifts_images_and_fills_with_black() -> None:
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


def test_cutout_blackens_the_same_square_in_all_channels() -> None:
    x = torch.rand(400, 2, 8, 8)
    cut = cut_out(x, 0.25)
    black = cut == -1
    assert torch.equal(black[:, 0], black[:, 1])
    assert torch.equal(cut[~black], x[~black])
    assert black.any(0).all()  # every pixel is in some square
    assert torch.equal(cut_out(x, 0.0), x)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_center_of_the_square_is_in_the_image(size: int) -> None:
    """At least half of an even side is inside the image, and the larger half of an odd side."""
    black = cut_out(torch.rand(2000, 1, 8, 8), size / 8)[:, 0] == -1
    for sides in (black.any(1).sum(1), black.any(2).sum(1)):
        assert set(sides.tolist()) == {*range((size + 1) // 2, size + 1)}


def test_gradients_flow_through_augmentations() -> None:
    x = torch.rand(16, 1, 8, 8, requires_grad=True)
    y = cut_out(translate(x, 0.125), 0.25)
    (grad,) = torch.autograd.grad(y.sum(), x)
    visible = (y != -1).flatten(1).sum(1)
    torch.testing.assert_close(grad.flatten(1).sum(1), visible.float())
    assert set(grad.unique().tolist()) <= {0.0, 1.0}


def test_pack_has_its_images_as_channels() -> None:
    inner = RecordingDiscriminator()
    x = torch.rand(6, 2, 8, 8)
    logits = PackedDiscriminator(inner, m=3)(Batch(x))
    assert logits.shape == (2,)
    for i in range(2):
        assert torch.equal(inner.input[i], torch.cat([*x[3 * i : 3 * i + 3]]))
    with pytest.raises(ValueError, match=r"stabilizer\.pacgan\.m=3"):
        PackedDiscriminator(inner, m=3)(Batch(torch.rand(7, 2, 8, 8)))


# Statistics of the batch


def test_minibatch_std_is_an_additional_feature_of_the_last_linear_layer() -> None:
    wrapped = MinibatchStdDiscriminator(RecordingDiscriminator(), group_size=8)
    batch = images()
    h = batch.x.flatten(1)
    std = h.std(0, unbiased=False).mean()
    concatenated = torch.cat([h, std.expand(len(h), 1)], 1)
    weights = torch.cat([torch.full((64,), 1 / 64), wrapped.weight.weight.flatten()])
    torch.testing.assert_close(wrapped(batch), concatenated @ weights)


def test_minibatch_std_uses_groups_of_four() -> None:
    """Of 8 images, a group has every second (Karras et al.)."""
    h = images().x.flatten(1)
    found = MinibatchStdDiscriminator(RecordingDiscriminator()).std(h).flatten()
    for start in (0, 1):
        group = [start, start + 2, start + 4, start + 6]
        expected = h[group].std(0, unbiased=False).mean()
        torch.testing.assert_close(found[group], expected.expand(4))


def test_group_size_must_divide_the_batch() -> None:
    wrapped = MinibatchStdDiscriminator(RecordingDiscriminator())
    with pytest.raises(ValueError, match=r"stabilizer\.minibatch_std\.group_size=4"):
        wrapped(images(6))
    assert wrapped(images(3)).shape == (3,)  # a batch smaller than a group is one group


def test_minibatch_discrimination_is_the_formula_of_the_paper() -> None:
    wrapped = SimilarityDiscriminator(RecordingDiscriminator(), kernels=3, dims=2)
    nn.init.normal_(wrapped.weight.weight)
    nn.init.normal_(wrapped.similarity.bias)
    batch = images(5)
    h = batch.x.flatten(1)
    m = (h @ wrapped.similarity.project.weight.T).reshape(5, 3, 2)
    o = torch.zeros(5, 3) + wrapped.similarity.bias
    for i in range(5):
        for j in range(5):
            if i != j:
                o[i] += torch.exp(-(m[i] - m[j]).abs().sum(1))
    torch.testing.assert_close(wrapped.similarity(h), o)
    concatenated = torch.cat([h, o], 1)
    weights = torch.cat([torch.full((64,), 1 / 64), wrapped.weight.weight.flatten()])
    torch.testing.assert_close(wrapped(batch), concatenated @ weights)


def test_similarity_of_equal_images_is_their_number() -> None:
    similarity = SimilarityDiscriminator(RecordingDiscriminator(), kernels=3, dims=2).similarity
    torch.testing.assert_close(similarity(torch.rand(1, 64).expand(5, 64)), torch.full((5, 3), 4.0))


def test_initialization_sets_the_mean_similarity_to_zero() -> None:
    wrapped = SimilarityDiscriminator(RecordingDiscriminator(), kernels=3, dims=2)
    batch = images(16)
    init_from_data(wrapped, lambda: wrapped(batch))
    statistics = wrapped.similarity(wrapped.features(batch))
    torch.testing.assert_close(statistics.mean(0), torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_minibatch_discrimination_does_not_change_the_first_logits(norm: str) -> None:
    """With random weights of 50 similarities, D is certain of every image before training."""
    for seed in range(16):
        torch.manual_seed(seed)
        inner = dcgan.Discriminator(norm=norm)
        wrapped = SimilarityDiscriminator(inner)
        real, fake = Batch(torch.rand(64, 1, 28, 28) * 2 - 1), Batch(torch.zeros(64, 1, 28, 28))
        init_from_data(wrapped, lambda w=wrapped, x=real: w(x))
        out = DiscriminatorOutputs(wrapped, real, fake)
        logits = torch.cat([out.real_logits, out.fake_logits])
        assert torch.equal(logits, torch.cat([inner(real), inner(fake)]))
        if norm == "none":
            assert logits.std() < 1
        BCE(stable=False).d_loss(out).backward()
        assert all(p.grad.any() for p in inner.parameters())
        assert wrapped.weight.weight.grad.any()


# Training


@pytest.mark.parametrize(
    "stabilizer",
    [SpectralNorm(), InstanceNoise(0.1), DiffAugment(), MinibatchStd(), MinibatchDiscrimination()],
    ids=lambda stabilizer: type(stabilizer).__name__,
)
def test_all_parameters_of_a_wrapped_discriminator_are_trained(stabilizer: Stabilizer) -> None:
    gan = small_gan(discriminator=two_blocks(), stabilizers={"it": stabilizer})
    moved = watch(gan)
    fit(gan, batches=2)
    d = {name for name, _ in gan.discriminator.named_parameters("discriminator")}
    assert d <= moved["d"]
    assert {name for name, _ in gan.generator.named_parameters("generator")} <= moved["g"]


def test_stabilizers_wrap_in_their_order() -> None:
    gan = small_gan(
        discriminator=partial(
            dcgan.Discriminator, widths=[4], kernels=[4, 4], strides=[2, 1], norm="none"
        ),
        stabilizers={"pacgan": PacGAN(2), "minibatch_std": MinibatchStd()},
    )
    assert isinstance(gan.discriminator, MinibatchStdDiscriminator)
    assert isinstance(gan.discriminator.discriminator, PackedDiscriminator)
    network = gan.discriminator.discriminator.discriminator
    assert isinstance(network, dcgan.Discriminator)
    before = snapshot(network)
    fit(gan, batches=1)
    assert changed(before, snapshot(network))
