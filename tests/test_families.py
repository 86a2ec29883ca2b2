"""The families: what their games are worth, who is trained by what, and that labels are obeyed."""

import json
import math
import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import RandomImages, changed, configuration, fit, images, small_gan, snapshot, watch
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from launch import BRIEF, BRIEFLY_MEASURED, launch
from PIL import Image
from torch import nn

import ganmnist
from ganmnist import evaluate, generate
from ganmnist.aae import AAE, Reconstruction
from ganmnist.auxiliary import AuxiliaryClassifier
from ganmnist.bigan import BiGAN, BothWays, distances, nn_accuracy
from ganmnist.data import DataModule
from ganmnist.duel import Duel, Sample, Term
from ganmnist.errors import UserError
from ganmnist.infogan import Codes, InfoGAN, MutualInformation
from ganmnist.lapgan import LAPGAN
from ganmnist.latents import Labels, Normal
from ganmnist.loading import load
from ganmnist.metrics import GANTest, GANTrain, Seen
from ganmnist.networks import conditional, dcgan, encoders, mlp, noisy, pyramid, unet
from ganmnist.networks.base import Discriminator
from ganmnist.networks.classes import Classes
from ganmnist.networks.stabilizers import DiffAugment
from ganmnist.objectives import (
    BCE,
    KL,
    Hinge,
    LeastSquares,
    OnlyD,
    Pearson,
    ReverseKL,
    SquaredHellinger,
    Wasserstein,
)
from ganmnist.paths import conf_dir
from ganmnist.pixels import to_bytes
from ganmnist.regularizers import R1, R2, Dragan, GradientPenalty
from ganmnist.rng import generator_for
from ganmnist.semisupervised import FewLabels, SemiSupervised
from ganmnist.train import check_labels, train
from ganmnist.translation import Coarse, Pixels, Translation, UpperHalf

close = torch.testing.assert_close
FAMILIES = sorted(file.stem for file in (conf_dir() / "family").glob("*.yaml"))
CONDITIONAL = ["aae_labels", "acgan", "cgan", "projection"]
# What a family shows and measures besides what every GAN does.
PICTURES = {
    "infogan": {"categories", "number_1", "number_2"},
    "bigan": {"reconstructions"},
    "aae": {"reconstructions", "manifold", "map"},
    "aae_labels": {"reconstructions"},
    "semisupervised": {"labelled"},
    "lapgan": {"levels"},
    "inpainting": {"translations"},
    "superresolution": {"translations"},
}
FIGURES = {
    "infogan": {"code_error"},
    "bigan": {*("nn_accuracy_hidden", "nn_accuracy", "nn_accuracy_untrained", "reconstruction")},
    "aae": {"reconstruction"},
    "aae_labels": {"reconstruction"},
    "semisupervised": {"test_error", "test_error_ema"},
    "inpainting": {"l1", "l1_kept"},
    "superresolution": {"l1", "l1_kept"},
}


def d_for_8x8(channels: int = 1) -> dcgan.Discriminator:
    return dcgan.Discriminator(channels, widths=[4], kernels=[4, 4], strides=[2, 1])


def conditional_gan(**parts):
    inside = dcgan.Generator(4 + 10, widths=[8], kernels=[4, 4], strides=[1, 2])
    return small_gan(generator=conditional.Generator(inside, 10), condition=Labels(10), **parts)


# Labels


def test_labels_come_in_turn() -> None:
    assert Labels(3)(7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert Labels(10, [7, 1])(5).tolist() == [7, 1, 7, 1, 7]
    assert [Labels(3).columns, Labels(1000).columns, Labels(10, [7, 1]).columns] == [3, 10, 2]


@pytest.mark.parametrize("wrong", [(0,), (3, [3]), (3, [-1]), (3, [])])
def test_labels_that_are_none_are_refused(wrong: tuple) -> None:
    with pytest.raises(ValueError, match="choose"):
        Labels(*wrong)


def test_pictures_are_made_of_labels_in_turn() -> None:
    gan = conditional_gan()
    z, y = gan.prior(13, torch.Generator().manual_seed(1))
    assert y.tolist() == [*range(10), 0, 1, 2]
    close(gan.sample(z, y), torch.cat([gan.sample(z[:4], y[:4]), gan.sample(z[4:], y[4:])]))
    assert small_gan().prior(3)[1] is None


# Networks


def test_a_generator_is_given_the_label_beside_its_latent() -> None:
    inside = mlp.Generator(5, image_size=8).eval()
    z, y = torch.randn(3, 2), torch.tensor([2, 0, 1])
    rows = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    close(conditional.Generator(inside, 3)(z, y), inside(torch.cat([z, rows], 1)))


@pytest.mark.parametrize("form", [conditional.Joined, conditional.Projection])
def test_labels_are_asked_for(form: type) -> None:
    with pytest.raises(ValueError, match="needs labels"):
        conditional.Generator(mlp.Generator(5), 3)(torch.randn(1, 2))
    wrapped = form(d_for_8x8(2), 10, **({"image_size": 8} if form is conditional.Joined else {}))
    with pytest.raises(ValueError, match="needs labels"):
        wrapped(Sample(torch.randn(1, 2 - (form is conditional.Joined), 8, 8)))


def test_joined_is_the_discriminator_of_one_channel_more() -> None:
    inside, sample = d_for_8x8(2).eval(), images()
    joined = conditional.Joined(inside, 10, image_size=8)
    maps = joined.map.weight.T[sample.y].view(-1, 1, 8, 8)
    close(joined(sample), inside(Sample(torch.cat([sample.x, maps], 1))))
    other = sample._replace(y=(sample.y + 1) % 10)
    assert not torch.allclose(joined(sample), joined(other))


def test_projection_adds_the_label_s_view_of_the_features() -> None:
    inside, sample = d_for_8x8().eval(), images()
    projection = conditional.Projection(inside, 10)
    v = projection.vector.weight.T[sample.y]
    close(projection(sample) - inside(sample), (v * inside.features(sample)).sum(1))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_both_sides_in_one_pass_where_the_network_inside_allows_it(norm: str) -> None:
    inside = dcgan.Discriminator(2, widths=[4], kernels=[4, 4], strides=[2, 1], norm=norm)
    joined = conditional.Joined(inside, 10, image_size=8)
    one = dcgan.Discriminator(1, widths=[4], kernels=[4, 4], strides=[2, 1], norm=norm)
    projection = conditional.Projection(one, 10)
    for d in (joined, projection):
        assert d.singly == (norm == "none")
        if not d.singly:
            continue
        duels = [Duel(d, images(), images(), at_once) for at_once in (True, False)]
        duels[1].real, duels[1].fake = duels[0].real, duels[0].fake
        close(duels[0].real_logits, duels[1].real_logits)
        close(duels[0].fake_logits, duels[1].fake_logits)


# The auxiliary classifier


def head_of(term: AuxiliaryClassifier, discriminator: nn.Module) -> AuxiliaryClassifier:
    term.setup(nn.Identity(), discriminator)
    return term


def test_a_head_that_knows_nothing_is_charged_ln_10_a_side() -> None:
    d = d_for_8x8()
    term = head_of(AuxiliaryClassifier(10, weight=0.5), d)
    nn.init.zeros_(term.head.weight)
    nn.init.zeros_(term.head.bias)
    duel = Duel(d, images(), images())
    close(term.d_loss(duel).item(), math.log(10))
    close(term.g_loss(duel).item(), math.log(10) / 2)


def test_a_head_that_knows_all_is_charged_nothing() -> None:
    d = d_for_8x8()
    term = head_of(AuxiliaryClassifier(10), d)
    sample = images()._replace(y=torch.full((8,), 3))
    with torch.no_grad():
        term.head.weight.zero_()
        term.head.bias.copy_(1e3 * F.one_hot(torch.tensor(3), 10))
    duel = Duel(d, sample, sample)
    assert term.d_loss(duel).item() == term.g_loss(duel).item() == 0.0


def test_acgan_trains_its_head_with_d_alone() -> None:
    gan = conditional_gan(terms={"acgan": AuxiliaryClassifier(10)})
    moved = watch(gan)
    fit(gan, batches=2)
    trained = {name for name, _ in gan.named_parameters()}
    of_d = {name for name in trained if name.startswith(("discriminator", "terms.acgan"))}
    assert moved["d"] & trained == of_d
    assert moved["g"] & trained == {name for name in trained if name.startswith("generator")}


def test_the_fake_side_has_the_labels_of_the_real_one() -> None:
    gan, batch = conditional_gan(), images()
    fake, z = gan.make_fake(batch)
    close(fake.y, batch.y)
    close(fake.x, gan.generator(z, batch.y))


# InfoGAN


def test_codes_are_a_category_and_numbers_and_noise() -> None:
    codes = Codes(dim=20, categories=4, numbers=3)
    z = codes(50_000, generator=torch.Generator().manual_seed(0))
    assert z.shape == (50_000, 20)
    assert set(z[:, :4].unique().tolist()) == {0.0, 1.0}
    assert (z[:, :4].sum(1) == 1).all()
    category, numbers = codes.read(z)
    close(F.one_hot(category, 4).float(), z[:, :4])
    close(numbers, z[:, 4:7])
    # To five standard deviations: shares of 1/4, then mean 0 and variance 1/3.
    root = 50_000**0.5
    assert ((z[:, :4].mean(0) - 1 / 4).abs() < 5 * (3 / 16) ** 0.5 / root).all()
    others = z[:, 4:]
    assert others.abs().max() <= 1
    assert (others.mean(0).abs() < 5 * (1 / 3) ** 0.5 / root).all()
    assert ((others.square().mean(0) - 1 / 3).abs() < 5 * (4 / 45) ** 0.5 / root).all()


def test_a_code_needs_room() -> None:
    with pytest.raises(ValueError, match="latent_dim=11 has no room for 10 categories"):
        Codes(11)


def informed(categories: int = 3, numbers: int = 2, **weights: float) -> MutualInformation:
    term = MutualInformation(Codes(8, categories, numbers), hidden=5, **weights)
    term.setup(nn.Identity(), d_for_8x8())
    return term


def test_information_that_is_not_read_costs_the_code_s_entropy() -> None:
    """With Q constant: ln 3 for the category, and half of E|c|^2 = 2/3 for two numbers."""
    term = informed(weight=2.0, numbers_weight=0.1)
    nn.init.zeros_(term.q[-1].weight)
    nn.init.zeros_(term.q[-1].bias)
    z = term.codes(8)
    fake = images()._replace(z=z)
    duel = Duel(d_for_8x8(), images(), fake)
    numbers = term.codes.read(z)[1].square().sum(1).mean().item() / 2
    expected = 2 * (math.log(3) + 0.1 * numbers)
    close(term.d_loss(duel).item(), expected)
    close(term.g_loss(duel).item(), expected)


def test_information_trains_q_with_d_and_the_generator_with_g() -> None:
    gan = small_gan(InfoGAN, latent=Codes(4, 2, 1), terms={"information": informed(2, 1)})
    gan.terms["information"].codes = gan.latent
    moved = watch(gan)
    fit(gan, batches=2)
    trained = {name for name, _ in gan.named_parameters()}
    of_d = {name for name in trained if name.startswith(("discriminator", "terms.information"))}
    assert moved["d"] & trained == of_d
    assert moved["g"] & trained == {name for name in trained if name.startswith("generator")}


def test_code_pictures_change_one_part_of_the_code() -> None:
    gan = small_gan(InfoGAN, latent=Codes(4, 2, 1), terms={"information": informed(2, 1)})
    asked = []
    gan.sample = lambda z: asked.append(z) or torch.zeros(len(z), 1, 8, 8)
    grids = gan.pictures(images)
    assert {name: (*grid.shape,) for name, grid in grids.items()} == {
        "categories": (10, 2, 1, 8, 8),
        "number_1": (2, 10, 1, 8, 8),
    }
    by_category, by_number = asked[0].view(10, 2, 4), asked[1].view(2, 10, 4)
    close(by_category[:, :, :2], torch.eye(2).expand(10, 2, 2))
    close(by_category[:, 0, 2:], by_category[:, 1, 2:])
    close(by_number[..., 2], torch.linspace(-2, 2, 10).expand(2, 10))
    close(by_number[..., 3], by_number[:1, :1, 3].expand(2, 10))


def test_code_error_is_of_the_digit_that_a_category_mostly_is() -> None:
    gan = small_gan(InfoGAN, latent=Codes(4, 2, 1), terms={"information": informed(2, 1)})
    answers = {5: [0, 0, 0, 1, 1], 4: [0, 1, 1, 0]}
    gan.categories = lambda real: torch.tensor(answers[len(real.y)])
    train, test = (Sample(y=torch.tensor(y)) for y in ([7, 7, 2, 3, 3], [7, 3, 7, 2]))
    # Category 0 is mostly a 7 and 1 a 3, so of 7 3 7 2 it says 7 3 3 7.
    parts = {"train": train, "test": test}
    assert gan.figures(lambda part: [parts[part]]) == {"code_error": 0.5}


def with_batch_norm(norm: str = "batch") -> InfoGAN:
    d = dcgan.Discriminator(widths=[4], kernels=[4, 4], strides=[2, 1], norm=norm)
    term = MutualInformation(Codes(4, 2, 1), hidden=5)
    return small_gan(InfoGAN, discriminator=d, latent=term.codes, terms={"information": term})


def test_categories_are_read_by_the_statistics_of_the_batch() -> None:
    """Whatever the running ones are, which mix real and generated images; these stay."""
    gan, real = with_batch_norm(), images()
    gan.eval()
    with torch.no_grad():
        before = gan.categories(real)
        for name, buffer in gan.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand_like(buffer) + 1)
        state = snapshot(gan)
        assert torch.equal(gan.categories(real), before)
        gan.train()
        q = gan.terms["information"]
        expected = q.guess(gan.discriminator.features(real))[0].argmax(1)
    assert torch.equal(before, expected)
    gan.load_state_dict(state)
    gan.eval()
    gan.categories(real)
    assert not changed(state, gan.state_dict())
    assert not any(module.training for module in gan.modules())


def test_q_has_batch_norm_before_its_nonlinearity() -> None:
    kinds = [type(layer).__name__ for layer in informed().q]
    assert kinds == ["Linear", "BatchNorm1d", "LeakyReLU", "Linear"]


# A few labels


def naming(classes: int = 10) -> Classes:
    return Classes(d_for_8x8(), classes)


def semisupervised(**parts):
    default = {
        "discriminator": naming(),
        "terms": {"few_labels": FewLabels(batch_size=6)},
        "labelled": 10,
    }
    return small_gan(SemiSupervised, **{**default, **parts})


def test_being_generated_is_a_class_of_logit_0() -> None:
    d, sample = naming().eval(), images()
    logits = d.classify(d.features(sample))
    shares = torch.cat([logits, torch.zeros(8, 1)], 1).softmax(1)
    close(d(sample).sigmoid(), shares[:, :10].sum(1))


def test_a_d_that_knows_no_class_has_ten_for_real_and_one_for_generated() -> None:
    d = naming()
    nn.init.zeros_(d.last.weight)
    nn.init.zeros_(d.last.bias)
    few = FewLabels(batch_size=6, weight=0.5)
    few.setup(nn.Identity(), d)
    few.known = images()
    duel = Duel(d, images(), images())
    close(few.d_loss(duel).item(), math.log(10) / 2)
    close(duel.real_logits.sigmoid(), torch.full((8,), 10 / 11))


def test_a_d_that_knows_all_is_charged_nothing_for_labels() -> None:
    d = naming()
    few = FewLabels(batch_size=6)
    few.setup(nn.Identity(), d)
    few.known = images()._replace(y=torch.full((8,), 3))
    with torch.no_grad():
        d.last.weight.zero_()
        d.last.bias.copy_(1e3 * F.one_hot(torch.tensor(3), 10))
    assert few.d_loss(Duel(d, images(), images())).item() == 0.0


@pytest.mark.parametrize(("known", "batch_size"), [(6, 6), (3, 6), (6, 4), (4, 6)])
def test_an_update_sees_each_label_as_often_as_can_be(known: int, batch_size: int) -> None:
    """A batch of the size of all labels sees every one, and none twice."""
    d, seen = naming(), []
    few = FewLabels(batch_size=batch_size)
    few.setup(nn.Identity(), d)
    few.known = Sample(torch.arange(known).float().view(-1, 1, 1, 1), torch.arange(known))
    few.classify = lambda features: features
    d.features = lambda sample: seen.append(sample.x) or torch.zeros(batch_size, 10)
    few.d_loss(Duel(d, images(), images()))
    counts = torch.bincount(seen[0].flatten().long(), minlength=known)
    assert counts.sum() == batch_size
    assert counts.max() - counts.min() <= 1


def test_known_labels_train_d_alone() -> None:
    gan = semisupervised()
    moved = watch(gan)
    fit(gan, batches=2)
    trained = {name for name, p in gan.named_parameters() if p.requires_grad}
    assert moved["d"] & trained == {n for n in trained if n.startswith("discriminator")}
    assert moved["g"] & trained == {n for n in trained if n.startswith("generator")}


def test_an_average_of_d_follows_its_updates() -> None:
    gan = semisupervised()
    average = gan.few.average.network.last.weight
    before = average.clone()
    fit(gan, batches=1)
    close(average, before.lerp(gan.discriminator.last.weight.detach(), 9 / 11))


@pytest.mark.parametrize("told", [False, True])
def test_labels_that_are_not_known_change_no_bit(
    told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All labels are turned but those that D is told, or those as well."""

    class Turned(RandomImages):
        def read(self):
            train, test = super().read()
            return train._replace(y=(train.y + 1) % 10), test

    def trained() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        gan = semisupervised()
        fit(gan, batches=2)
        return gan.state_dict()

    data = DataModule(RandomImages(19), 8)
    data.prepare_data()
    data.setup()
    known = data.labelled(10, 0, torch.device("cpu"))
    if not told:
        monkeypatch.setattr(DataModule, "labelled", lambda *how: known)
    straight = trained()
    monkeypatch.setattr("conftest.RandomImages", Turned)
    turned = trained()
    same = all(torch.equal(value, turned[name]) for name, value in straight.items())
    assert same != told


def test_known_labels_are_balanced_and_a_function_of_the_seed() -> None:
    data = DataModule(RandomImages(60), 8)
    data.prepare_data()
    data.setup()
    first, again, other = (data.labelled(30, seed, torch.device("cpu")) for seed in (0, 0, 1))
    assert first.y.tolist() == [*range(10)] * 3
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)
    for x, y in zip(first.x, first.y, strict=True):
        (place,) = (data.train.x == to_bytes(x)).flatten(1).all(1).nonzero()
        assert data.train.y[place] == y


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (25, "gan.labelled=25 is not as many of each of the 10 classes of random images"),
        (0, "choose a multiple of 10"),
        (80, "random images has 6 of one: choose 60 or less"),
    ],
)
def test_labels_that_are_not_there_are_refused(n: int, said: str) -> None:
    data = DataModule(RandomImages(60), 8)
    data.prepare_data()
    data.setup()
    with pytest.raises(UserError, match=said):
        data.labelled(n, 0, torch.device("cpu"))


def test_other_classes_than_there_are_cannot_be_named() -> None:
    data = DataModule(RandomImages(60), 8)
    data.prepare_data()
    data.setup()
    with pytest.raises(UserError, match=r"discriminator\.classes=9, but random images has 10"):
        check_labels(semisupervised(discriminator=naming(9)), data)
    with pytest.raises(ValueError, match="choose family=semisupervised"):
        small_gan(terms={"few_labels": FewLabels(batch_size=6)})
    with pytest.raises(ValueError, match="choose 2 or more"):
        naming(1)


def test_test_error_is_the_share_of_wrong_names() -> None:
    gan = semisupervised()
    with torch.no_grad():
        for network, name in ((gan.discriminator, 3), (gan.few.average.network, 5)):
            network.last.weight.zero_()
            network.last.bias.copy_(F.one_hot(torch.tensor(name), 10))
    y = torch.tensor([3, 3, 4, 3, 5, 3, 3, 3])
    figures = gan.figures(lambda part: [images()._replace(y=y)])
    assert figures == {"test_error": 2 / 8, "test_error_ema": 7 / 8}
    assert gan.pictures(images) == {}


def test_known_images_are_shown_ten_times_ten_at_most() -> None:
    gan = semisupervised()
    gan.few.known = Sample(torch.arange(120.0).view(120, 1, 1, 1), torch.arange(120) % 10)
    (shown,) = gan.pictures(images).values()
    close(shown.flatten(), torch.arange(100.0))


# Images of what is left of them


def translation(**parts):
    default = {
        "generator": unet.Generator(4, image_size=8, widths=[4, 8]),
        "discriminator": conditional.Beside(d_for_8x8(2)),
        "keep": UpperHalf(),
        "shape": [1, 8, 8],
        "shown": 5,
        "terms": {"pixels": Pixels()},
    }
    return small_gan(Translation, **{**default, **parts})


def test_what_is_left_of_an_image() -> None:
    x = images().x
    upper = UpperHalf()(x)
    close(upper[..., :4, :], x[..., :4, :])
    assert (upper[..., 4:, :] == -1).all()
    coarse = Coarse(2)(x)
    for rows in (slice(0, 4), slice(4, 8)):
        for columns in (slice(0, 4), slice(4, 8)):
            place = x[..., rows, columns]
            means = place.mean((2, 3), keepdim=True).expand_as(place)
            close(coarse[..., rows, columns], means)
    close(Coarse(8)(x), x)
    with pytest.raises(ValueError, match=r"gan\.keep\.size=0"):
        Coarse(0)


def test_what_is_left_is_no_finer_than_the_image() -> None:
    with pytest.raises(ValueError, match=r"gan\.keep\.size=9 is finer than images of 8"):
        translation(keep=Coarse(9))


def test_white_for_black_costs_2_a_pixel() -> None:
    white, black = Sample(torch.ones(2, 1, 8, 8)), Sample(-torch.ones(2, 1, 8, 8))
    assert Pixels(3.0).g_loss(Duel(None, white, black)).item() == 6.0


def test_an_image_beside_another_is_seen_as_channels() -> None:
    inside, sample = d_for_8x8(2).eval(), images()
    beside = conditional.Beside(inside)
    other = Coarse(2)(sample.x)
    both = beside(sample._replace(y=other))
    close(both, inside(Sample(torch.cat([sample.x, other], 1))))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_and_what_is_left_of_it_are_moved_together(channels: int) -> None:
    class Same(Discriminator):
        n_features, sees = 1, frozenset({"x", "y"})

        def features(self, sample: Sample) -> torch.Tensor:
            return (sample.x - sample.y).flatten(1).abs().sum(1, keepdim=True)

    x = torch.rand(64, channels, 8, 8)
    augmented = DiffAugment(Same(), translation=0.25, cutout=0.5).train()
    assert not augmented.features(Sample(x, x)).any()
    assert augmented.features(Sample(x, x + 1)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_u_net_makes_images_of_images_and_latents(channels: int) -> None:
    g = unet.Generator(4, channels, image_size=24, widths=[4, 6, 8]).eval()
    z, y = torch.randn(2, 4), torch.rand(2, channels, 24, 24) * 2 - 1
    x = g(z, y)
    assert x.shape == y.shape
    assert x.abs().max() <= 1
    assert not torch.allclose(g(-z, y), x)
    assert not torch.allclose(g(z, -y), x)
    with pytest.raises(ValueError, match="image_size=28 cannot be halved 3 times"):
        unet.Generator(widths=[4, 6, 8])


def test_both_sides_are_told_the_same() -> None:
    gan, batch = translation(), images()
    fake, z = gan.make_fake(batch)
    assert torch.equal(fake.y, UpperHalf()(batch.x))
    assert torch.equal(gan.real(batch, z).y, fake.y)
    close(fake.x, gan.generator(z, fake.y))


def test_a_translation_trains_both_players() -> None:
    gan = translation()
    moved = watch(gan)
    fit(gan, batches=2)
    trained = {name for name, _ in gan.named_parameters()}
    assert moved["d"] & trained == {n for n in trained if n.startswith("discriminator")}
    # The first bias and the norms behind it: nothing of G is left out.
    assert moved["g"] & trained == {n for n in trained if n.startswith("generator")}


def test_what_is_drawn_is_made_of_test_images_in_turn() -> None:
    gan = translation()
    fit(gan, batches=1)
    data = DataModule(RandomImages(11), 8)
    data.prepare_data()
    data.setup()
    shown = data.some("test", 5, torch.device("cpu")).x
    _, y = gan.prior(7)
    close(y, UpperHalf()(shown[[0, 1, 2, 3, 4, 0, 1]]))
    again = translation()
    again.load_state_dict(gan.state_dict())
    close(again.prior(7)[1], y)
    with pytest.raises(ValueError, match=r"gan\.shown=0"):
        translation(shown=0)


def test_figures_and_pictures_of_translations() -> None:
    gan, white = translation(), Sample(torch.ones(30, 1, 8, 8))
    gan.made_of = lambda x: 0 * x
    assert gan.figures(lambda part: [white]) == {"l1": 0.5, "l1_kept": 0.5}
    grid = gan.pictures(lambda n: white)["translations"]
    assert grid.shape == (9, 10, 1, 8, 8)
    for row, expected in enumerate(3 * [UpperHalf()(white.x[:10]), 0 * white.x[:10], white.x[:10]]):
        close(grid[row], expected)


# A game a size


def pyramid_gan(**parts):
    default = {
        "generator": pyramid.Generator(7, image_size=8, levels=3, width=4),
        "discriminator": pyramid.Discriminator(image_size=8, levels=3, width=4),
        "latent": Normal(7),
    }
    return small_gan(LAPGAN, **{**default, **parts})


@pytest.mark.parametrize(("levels", "shape"), [(2, (8, 12)), (3, (8, 12)), (4, (8, 12))])
def test_the_levels_of_an_image_lie_in_one_picture(levels: int, shape: tuple[int, int]) -> None:
    x = torch.rand(2, 3, 8, 8)
    parts = pyramid.levels_of(x, levels)
    assert [part.shape[-1] for part in parts] == [8, 4, 2, 1][:levels]
    for part in parts:
        close(part.mean((2, 3)), x.mean((2, 3)))
    picture = pyramid.tiled(parts)
    assert picture.shape == (2, 3, *shape)
    for part, back in zip(parts, pyramid.untiled(picture, levels), strict=True):
        assert torch.equal(part, back)


def test_each_level_begins_with_the_one_below_it_enlarged() -> None:
    g, z = pyramid.Generator(7, image_size=8, levels=3, width=4).eval(), torch.randn(5, 7)
    grown = g.grow(z)
    assert [part.shape for part in grown] == [(5, 1, n, n) for n in (8, 4, 2)]
    assert torch.equal(g(z), grown[0])
    for part, again in zip(grown, g.parts(z, pyramid.enlarged(grown)), strict=True):
        close(part, again)
    for detail in g.details:
        nn.init.zeros_(detail.layers[-1].weight)
        nn.init.zeros_(detail.layers[-1].bias)
    close(g(z), pyramid.up(pyramid.up(grown[2])))


def test_each_level_draws_of_its_own_latent() -> None:
    g = pyramid.Generator(7, image_size=8, levels=3, width=4).eval()
    z, shares = torch.randn(2, 7), [slice(0, 3), slice(3, 5), slice(5, 7)]
    parts = g.grow(z)
    for level, share in enumerate(shares):
        other = z.clone()
        other[:, share] += 1
        same = [torch.equal(a, b) for a, b in zip(parts, g.grow(other), strict=True)]
        assert same == [level > place for place in (2, 1, 0)]


def test_each_level_has_a_judge_of_its_own() -> None:
    d = pyramid.Discriminator(image_size=8, levels=3, width=4)
    parts = pyramid.levels_of(images().x, 3)
    told = pyramid.tiled(pyramid.enlarged(parts))
    logits = d(Sample(pyramid.tiled(parts), told)).view(3, 8)
    for level, part in enumerate(parts):
        others = [*parts[:level], -part, *parts[level + 1 :]]
        changed = d(Sample(pyramid.tiled(others), told)).view(3, 8) != logits
        assert changed.all(1).tolist() == [level == k for k in range(3)]
        assert changed.any(1).tolist() == [level == k for k in range(3)]


def test_levels_of_nobody_who_can_tell_cost_log_2_each() -> None:
    gan, batch = pyramid_gan(), images()
    for last in gan.discriminator.last:
        nn.init.zeros_(last.weight)
    fake, z = gan.make_fake(batch)
    duel = Duel(gan.discriminator, gan.real(batch, z), fake)
    assert len(duel.real_logits) == 3 * 8
    close(gan.objective.d_loss(duel).item(), 2 * math.log(2))
    close(gan.objective.g_loss(duel).item(), math.log(2))


def test_while_training_details_are_of_real_images() -> None:
    gan, batch = pyramid_gan(), images()
    fake, z = gan.make_fake(batch)
    real = gan.real(batch, z)
    assert torch.equal(fake.y, real.y)
    parts, us = (pyramid.untiled(picture, 3) for picture in (real.x, real.y))
    for part, level in zip(parts, pyramid.levels_of(batch.x, 3), strict=True):
        assert torch.equal(part, level)
    for u, below in zip(us[:2], parts[1:], strict=True):
        close(u, pyramid.up(below))
    assert not us[2].any()


def test_slopes_of_levels_are_those_of_each_logit() -> None:
    d = pyramid.Discriminator(image_size=8, width=4)
    x, y = (torch.randn(2, 1, 8, 12) for _ in range(2))
    real = Sample(x, y).detach(grad=True)
    duel = Duel(d, real, real)
    rows = [torch.autograd.grad(logit, real.x, retain_graph=True)[0] for logit in d(real)]
    assert len(rows) == 6
    close(R1(2.0).penalty(duel), torch.stack(rows).square().sum((1, 2, 3, 4)).mean() / 2)
    with pytest.raises(ValueError, match="bounds the slope of one logit"):
        GradientPenalty().setup(nn.Identity(), d)


def test_a_pyramid_trains_both_players() -> None:
    gan = pyramid_gan()
    moved = watch(gan)
    fit(gan, batches=2)
    trained = {name for name, _ in gan.named_parameters()}
    assert moved["d"] & trained == {n for n in trained if n.startswith("discriminator")}
    assert moved["g"] & trained == {n for n in trained if n.startswith("generator")}


def test_a_pyramid_shows_its_levels_as_large_as_the_image() -> None:
    gan = pyramid_gan()
    rows = gan.pictures(images)["levels"]
    assert rows.shape == (3, 10, 1, 8, 8)
    coarse = rows[0].unfold(-2, 4, 4).unfold(-2, 4, 4)
    assert (coarse == coarse[..., :1, :1]).all()


@pytest.mark.parametrize(("levels", "size"), [(1, 28), (0, 28), (4, 28), (9, 28)])
def test_levels_that_cannot_be_are_refused(levels: int, size: int) -> None:
    for network in (pyramid.Generator, pyramid.Discriminator):
        with pytest.raises(ValueError, match=f"levels={levels} must be at least 2 and halve"):
            network(image_size=size, levels=levels)


# Figures of labels


def answering(numbers: list[list[int]], labels: list[int] | None) -> Seen:
    logits = 1e4 * F.one_hot(torch.tensor(numbers), 10).double()
    n = len(numbers)
    asked = None if labels is None else torch.tensor(labels)
    return Seen(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.zeros(n, 2), logits, asked)


def test_gan_test_is_the_share_of_labels_that_are_seen() -> None:
    real = SimpleNamespace()
    assert GANTest()(answering([[3], [4], [5], [5]], [3, 4, 5, 6]), real) == {"gan_test": 0.75}
    # A stacked image spells a number, the ones first.
    assert GANTest()(answering([[3, 2, 1], [3, 2, 1]], [123, 321]), real) == {"gan_test": 0.5}
    assert GANTest()(answering([[3]], None), real) == {}


def test_gan_train_of_the_real_images_is_real_train(data_root: Path) -> None:
    config = configuration("folder=here", "data=digits")
    data = DataModule(instantiate(config.data), 8)
    data.prepare_data()
    data.setup()
    evaluator = instantiate(config.metrics)
    evaluator.prepare(data)
    some = torch.randperm(len(data.train.x), generator=generator_for("still"))[:1024]
    x, y = data.train.x[some], data.train.y[some]
    seen = evaluator.extractor(x)._replace(labels=y)
    found = GANTrain(epochs=6)(seen, evaluator.real)
    assert found.keys() == {"gan_train", "real_train"}
    assert found["gan_train"] == found["real_train"]
    wrong = seen._replace(labels=(y + 1) % 10)
    assert GANTrain(epochs=6)(wrong, evaluator.real)["gan_train"] < 0.1 < 0.5 < found["real_train"]
    assert GANTrain()(seen._replace(labels=None), evaluator.real) == {}


def test_some_samples_are_always_the_same_and_keep_their_labels() -> None:
    data = DataModule(RandomImages(20), 4)
    data.prepare_data()
    data.setup()
    first, again = (data.some("train", 7, torch.device("cpu")) for _ in range(2))
    close(first.x, again.x)
    for x, y in zip(first.x, first.y, strict=True):
        bytes_ = ((x + 1) * 127.5).round().to(torch.uint8)
        (place,) = (data.train.x == bytes_).flatten(1).all(1).nonzero()
        assert data.train.y[place] == y
    assert len(data.some("test", 99, torch.device("cpu")).x) == 16
    batches = [*data.batches("train", torch.device("cpu"), n=7)]
    assert torch.equal(batches[0].x, first.x)
    assert sorted(int(y) for batch in batches for y in batch.y) == sorted(data.train.y.tolist())


# Whole runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """A run of two batches of every family."""
    folder = tmp_path_factory.mktemp("families")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANMNIST_DATA", str(digits_root))
        for family in FAMILIES:
            brief = (*BRIEF, f"family={family}", "metrics=default", *BRIEFLY_MEASURED)
            table = ("metrics.table.kid.subset_size=50", "metrics.n=128")
            short = ("metrics.table.gan_train.epochs=1",)
            train(configuration(f"folder={folder / family}", *brief, *table, *short))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_s_run_is_whole(runs: Path, family: str) -> None:
    run = runs / family
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    final = summary["metrics"]["final"]
    raw, ema = ({name.removeprefix("digits_") for name in final[kind]} for kind in ("raw", "ema"))
    labelled = {"gan_test", "gan_train", "real_train"}
    assert labelled & raw == labelled & ema == (labelled if family in CONDITIONAL else set())
    further = set().union(*FIGURES.values())
    assert further & raw == FIGURES.get(family, set())
    assert not further & ema
    report = (run / "report.html").read_text()
    for name in set().union(*PICTURES.values()):
        expected = name in PICTURES.get(family, ())
        assert (run / f"samples/{name}.png").exists() == expected
        assert (f'id="{name}"' in report) == expected
    # Labels have a column each.
    columns = 10 if family in CONDITIONAL else 8
    assert Image.open(run / "samples/epoch_001.png").width == columns * (28 * 2 + 2) + 2


def test_the_report_explains_every_figure() -> None:
    template = (Path(ganmnist.__file__).parent / "report.html.j2").read_text()
    explained = set(re.findall(r'^  "(\w+)": "', template, re.MULTILINE))
    assert set().union(*FIGURES.values(), {"gan_test", "gan_train", "real_train"}) <= explained


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_on_to_the_bit_in_bfloat16(
    data_root: Path, family: str, tmp_path: Path
) -> None:
    def weights(folder: Path) -> dict[str, torch.Tensor]:
        checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        return checkpoint["state_dict"]

    few = (*BRIEF, f"family={family}", "trainer.precision=bf16-mixed")
    launch(*few, "epochs=2", f"hydra.run.dir={tmp_path / 'whole'}")
    launch(*few, f"hydra.run.dir={tmp_path / 'half'}")
    launch(f"resume={tmp_path / 'half'}", "epochs=2")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "half")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_loaded_and_drawn(runs: Path, family: str) -> None:
    gan = load(runs / family, "last")
    saved = torch.load(runs / family / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert gan.state_dict().keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in gan.state_dict().items())
    assert gan.sample(3).shape == (3, 1, 28, 28)
    assert (gan.condition is not None) == (family in CONDITIONAL)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_leave_the_model_as_it_is(runs: Path, family: str) -> None:
    gan = load(runs / family, "last").train()
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    sample = Sample(torch.rand(1000, 1, 28, 28) * 2 - 1, torch.arange(1000) % 10)
    shown = gan.pictures(lambda n: Sample(sample.x[:n], sample.y[:n]))
    assert not any(x.requires_grad for x in shown.values())
    assert gan.training
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())


def test_other_classes_than_the_data_have_are_refused(data_root: Path, tmp_path: Path) -> None:
    few = (*BRIEF, "family=projection", "gan.condition.classes=9")
    with pytest.raises(UserError, match=r"classes=9, but digits has 10 classes: choose"):
        train(configuration(f"folder={tmp_path}", *few))


# Encoders


def bigan(**parts):
    body = partial(dcgan.Discriminator, widths=[4], kernels=[4, 4], strides=[2, 1])
    default = {
        "encoder": encoders.Encoder(body(), 4),
        "discriminator": encoders.Joint(body(), 4, hidden=8),
        "objective": BothWays(BCE()),
    }
    return small_gan(BiGAN, **{**default, **parts})


def aae(**parts):
    body = dcgan.Discriminator(widths=[4], kernels=[4, 4], strides=[2, 1])
    default = {
        "encoder": encoders.Encoder(body, 4),
        "discriminator": encoders.Latent(4, [8]),
        "terms": {"reconstruction": Reconstruction()},
    }
    return small_gan(AAE, **{**default, **parts})


@pytest.mark.parametrize(
    ("game", "of_e"),
    [
        (BCE(), lambda d: -(1 - d.sigmoid()).log()),
        (LeastSquares(), lambda d: d.square() / 2),  # to D's target for fakes, 0
        (KL(), lambda d: d - 2),  # -v of the ratio turned over, v = 1 + log u
        (SquaredHellinger(), lambda d: d.exp() - 1),
        (Hinge(), lambda d: d),
    ],
)
def test_an_encoder_s_loss_is_of_the_sides_swapped(game, of_e) -> None:
    gan = bigan()
    sides = (images()._replace(z=torch.randn(8, 4)) for _ in range(2))
    duel = Duel(gan.discriminator, *sides)
    BothWays(game).g_loss(duel)
    close(duel.parts["encoder"], of_e(duel.real_logits).mean())
    close(duel.parts["generator"], game.g_loss(duel))


@pytest.mark.parametrize(
    "game",
    [BCE(), BCE(smoothing=0.1), LeastSquares(), KL(), SquaredHellinger(), ReverseKL()],
)
def test_where_nobody_can_tell_both_ways_cost_the_equilibrium(game) -> None:
    gan = bigan()
    nn.init.zeros_(gan.discriminator.last.weight)
    nn.init.constant_(gan.discriminator.last.bias, game.neutral)
    duel = Duel(gan.discriminator, *(images()._replace(z=torch.randn(8, 4)) for _ in range(2)))
    of_d, of_g = BothWays(game).equilibrium
    close(BothWays(game).d_loss(duel).item(), of_d)
    close(BothWays(game).g_loss(duel).item(), of_g)


@pytest.mark.parametrize("game", [OnlyD(BCE()), Pearson()])
def test_games_whose_sides_cannot_change_places_are_refused(game) -> None:
    with pytest.raises(ValueError, match="choose another objective"):
        BothWays(game)


def test_the_game_of_pairs_both_ways_in_closed_form() -> None:
    """-log D on G's side, -log(1 - D) on E's, and at the optimum ln 2 each."""
    gan = bigan()
    sides = (images()._replace(z=torch.randn(8, 4)) for _ in range(2))
    duel = Duel(gan.discriminator, *sides)
    d_real, d_fake = duel.real_logits.sigmoid(), duel.fake_logits.sigmoid()
    close(BothWays(BCE()).g_loss(duel), -d_fake.log().mean() - (1 - d_real).log().mean())
    close(BothWays(BCE()).d_loss(duel), -d_real.log().mean() - (1 - d_fake).log().mean())
    assert BothWays(BCE()).equilibrium == pytest.approx((2 * math.log(2), 2 * math.log(2)))
    nn.init.zeros_(gan.discriminator.last.weight)
    nn.init.zeros_(gan.discriminator.last.bias)
    undecided = Duel(gan.discriminator, duel.real, duel.fake)
    close(BothWays(BCE()).g_loss(undecided).item(), 2 * math.log(2))


@pytest.mark.parametrize("fresh_fakes", [False, True])
@pytest.mark.parametrize("make", [bigan, aae])
def test_an_encoder_is_trained_with_the_generator(make, fresh_fakes: bool) -> None:
    gan = make(fresh_fakes=fresh_fakes)
    moved = watch(gan)
    fit(gan, batches=2)
    trained = {name for name, _ in gan.named_parameters()}
    assert moved["d"] & trained == {n for n in trained if n.startswith("discriminator")}
    of_g = {n for n in trained if n.startswith(("generator", "encoder"))}
    # Adam leaves alone what has no slope: nothing here.
    assert moved["g"] & trained == of_g


def test_pairs_are_told_by_both_halves() -> None:
    d = bigan().discriminator.eval()
    sample = images()._replace(z=torch.randn(8, 4))
    for other in (sample._replace(z=-sample.z), sample._replace(x=-sample.x)):
        assert not torch.allclose(d(sample), d(other))


def test_reconstruction_in_closed_form() -> None:
    """All black for all white: 64 pixels, each 1 apart, halved."""
    white, black = Sample(torch.ones(2, 1, 8, 8)), Sample(-torch.ones(2, 1, 8, 8))
    assert Reconstruction(3.0).g_loss(Duel(None, white, black)).item() == 3 * 64 / 2
    assert distances(white, black.x).tolist() == [64.0, 64.0]
    assert distances(white, white.x).tolist() == [0.0, 0.0]


def test_an_encoder_that_undoes_g_reconstructs_to_the_bit() -> None:
    gan = aae()
    z = torch.randn(30, 4)
    real = Sample(gan.sample(z))
    gan.encode = lambda sample: z[: len(sample.x)]
    close(gan.reconstruct(real), real.x)
    grid = gan.pictures(lambda n: real)["reconstructions"]
    assert grid.shape == (6, 10, 1, 8, 8)
    close(grid[0::2], grid[1::2])
    close(grid[0], real.x[:10])


def test_the_plane_is_drawn_by_quantiles_of_the_prior() -> None:
    gan = aae(
        generator=dcgan.Generator(2, widths=[8], kernels=[4, 4], strides=[1, 2]),
        encoder=encoders.Encoder(d_for_8x8(), 2),
        discriminator=encoders.Latent(2, [8]),
        latent=Normal(2),
    )
    real = Sample(torch.rand(40, 1, 8, 8) * 2 - 1)
    asked = []
    sample = gan.sample
    gan.sample = lambda z, y=None: asked.append(z) or sample(z, y)
    grids = gan.pictures(lambda n: real)
    assert {name: grid.shape[:2] for name, grid in grids.items()} == {
        "reconstructions": (8, 10),
        "manifold": (10, 10),
        "map": (10, 10),
    }
    plane = asked[-1].view(10, 10, 2)
    # Right is more of the first number, up more of the second, by equal shares of N(0, 1).
    shares = torch.special.ndtr(plane)
    close(shares[..., 0], ((torch.arange(10) + 0.5) / 10).expand(10, 10))
    close(shares[..., 1], 1 - ((torch.arange(10) + 0.5) / 10)[:, None].expand(10, 10))
    codes = gan.encode(real)
    nearest = (plane[3, 7] - codes).norm(dim=1).argmin()
    close(grids["map"][3, 7], real.x[nearest])


def test_the_nearest_row_labels_an_image() -> None:
    rows = {6: [[0.0], [0.2], [5.0], [5.2], [9.0], [9.2]], 3: [[0.1], [5.1], [6.0]]}
    labels = [torch.tensor(y) for y in ([1, 1, 2, 2, 3, 3], [1, 2, 3])]
    train, test = ([Sample(torch.zeros(len(y), 1, 8, 8), y)] for y in labels)
    parts = {"train": train, "test": test}
    view = lambda sample: torch.tensor(rows[len(sample.y)])  # noqa: E731
    assert nn_accuracy(view, parts.get) == pytest.approx(2 / 3)
    # Of the first two training images alone, all test images are named 1.
    assert nn_accuracy(view, parts.get, n=2) == pytest.approx(1 / 3)


def test_encoders_are_measured_by_hidden_layers_latents_and_before_training() -> None:
    """Three views, told apart by features that hold the label, the negative one or nothing."""
    gan = bigan()
    y = torch.arange(10).float()

    def labelled(sample: Sample) -> torch.Tensor:
        return sample.x.flatten(1)[:, :1]

    gan.encoder.features = labelled
    gan.encoder.forward = lambda sample: -labelled(sample)
    gan.untrained.features = lambda sample: 0 * labelled(sample)
    real = [Sample(y.view(-1, 1, 1, 1).expand(-1, 1, 8, 8), y.long())]
    gan.reconstruct = lambda sample: sample.x
    assert gan.figures(lambda part: real) == {
        "nn_accuracy_hidden": 1.0,
        "nn_accuracy": 1.0,
        "nn_accuracy_untrained": 0.1,
        "reconstruction": 0.0,
    }


def test_the_untrained_encoder_stays_as_it_was() -> None:
    gan = bigan()
    before = snapshot(gan.untrained)
    assert not changed(before, gan.encoder.state_dict())
    fit(gan, batches=2)
    assert not changed(before, gan.untrained.state_dict())
    assert changed(before, gan.encoder.state_dict())
    ids = {id(p) for parameters in gan.parameters_of.values() for p in parameters}
    assert not ids & {id(p) for p in gan.untrained.parameters()}


def test_encoders_are_initialised_by_data_too() -> None:
    body = partial(noisy.Discriminator, image_size=8, widths=[6], image_noise=0.0, noise=0.0)
    gan = bigan(
        encoder=encoders.Encoder(body(), 4), discriminator=encoders.Joint(body(), 4, hidden=8)
    )
    batch = images(64)
    gan.initialize(lambda n: batch, 64)
    for network in (gan.encoder, gan.discriminator):
        features = network.body.layers[:3]((batch.x + 1) / 2)  # before the rectifier
        std, mean = torch.std_mean(features, 0, unbiased=False)
        close(mean, torch.zeros(6), atol=1e-5, rtol=0)
        close(std, torch.ones(6))
    assert not changed(gan.encoder.state_dict(), gan.untrained.state_dict())


@pytest.mark.parametrize("make", [aae, translation])
def test_a_second_batch_comes_with_fakes_of_its_own(make) -> None:
    """A reconstruction is compared with the image that it was made of."""
    seen = []

    class Noted(Term):
        def g_loss(self, duel: Duel) -> torch.Tensor:
            seen.append(duel)
            return 0 * duel.fake.x.sum()

    gan = make(second_batch=True, terms={"noted": Noted()})
    data = DataModule(RandomImages(20), 4, second_batch=True)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(gan, datamodule=data)
    assert len(seen) == 5
    for duel in seen:
        assert torch.equal(duel.fake.y, duel.real.y)
        assert len(duel.real.x) == len(duel.fake.x) == 4


def test_a_bounded_encoder_is_a_scaled_sigmoid() -> None:
    encoder = encoders.Encoder(d_for_8x8(), 4, bounded=True).eval()
    sample = images()
    close(encoder(sample), (encoder.last(encoder.features(sample)) / 2).tanh())


def test_the_latent_joins_the_second_hidden_layer_of_d() -> None:
    body = mlp.Discriminator(image_size=8, widths=[6], slope=0.2, dropout=0.0)
    d = encoders.Joint(body, 4, hidden=5, norm="batch")
    assert not d.singly
    sample = images()._replace(z=torch.randn(8, 4))
    linear = nn.functional.linear
    first = body.layers[1]
    h = F.leaky_relu(linear(sample.x.flatten(1), first.weight, first.bias), 0.2)
    h = linear(torch.cat([h, sample.z], 1), d.join[0].weight, d.join[0].bias)
    h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()
    close(d(sample), linear(F.leaky_relu(h, 0.2), d.last.weight, d.last.bias).flatten())
    with pytest.raises(ValueError, match=r"discriminator\.norm=layer"):
        encoders.Joint(body, 4, norm="layer")


@pytest.mark.parametrize("penalty", [R1(1.0), R2(1.0), GradientPenalty(10.0), Dragan(10.0)])
def test_penalties_of_a_bigan_hold_the_gradient_of_the_pair(penalty) -> None:
    """With W-GAN's loss, |grad z| grew without a bound where the penalty was on x alone."""
    body = partial(dcgan.Discriminator, widths=[4], kernels=[4, 4], strides=[2, 1], norm="none")
    gan = bigan(
        encoder=encoders.Encoder(body(), 4),
        discriminator=encoders.Joint(body(), 4, hidden=8),
        objective=BothWays(Wasserstein(clip=None)),
        terms={"it": penalty},
    )
    gan.discriminator.train()
    sides = (images()._replace(z=torch.randn(8, 4)).detach(grad=True) for _ in range(2))
    duel = Duel(gan.discriminator, *sides)
    (slope,) = torch.autograd.grad(penalty.d_loss(duel), gan.discriminator.join[0].weight)
    assert slope[:, -4:].any()  # the weights on the latent


@pytest.mark.parametrize("penalty", ["r1", "r2", "gradient_penalty", "dragan"])
def test_penalties_of_an_autoencoder_are_on_latents(
    penalty: str, data_root: Path, tmp_path: Path
) -> None:
    train(configuration(f"folder={tmp_path}", *BRIEF, "family=aae", f"penalty={penalty}"))
    row = json.loads((tmp_path / "summary.json").read_text())["scalars"]
    assert row[f"epoch/d/{penalty}"] > 0


# The tools


def test_generate_draws_the_labels_it_is_asked_for(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(*words: str) -> dict[str, np.ndarray]:
        out = tmp_path / "out.npz"
        argv = ["generate", f"run={runs / 'projection'}", "which=last", f"out={out}", *words]
        monkeypatch.setattr(sys, "argv", argv)
        GlobalHydra.instance().clear()
        generate.main()
        with np.load(out) as file:
            return dict(file)

    some = drawn("labels=7,1", "n=5")
    assert some["labels"].tolist() == [7, 1, 7, 1, 7]
    gan = load(runs / "projection", "last")
    rng = generator_for("generate", 0)
    expected = to_bytes(gan.sample(gan.latent(5, "cpu", rng), torch.tensor([7, 1, 7, 1, 7])))
    assert np.array_equal(some["images"], expected[:, 0].numpy())
    assert drawn()["labels"].tolist() == [*range(10)] * 10
    assert len(drawn("labels=3")["images"]) == 10


@pytest.mark.parametrize(
    ("family", "words", "said"),
    [
        ("gan", "labels=1", "is told no labels; leave them out"),
        ("projection", "labels=10", "labels=[10]: choose some of 0 to 9"),
        ("projection", "labels=[-1]", "labels=[-1] is out of range: labels takes whole numbers"),
        ("projection", "labels=[one]", "labels takes whole numbers of at least 0"),
    ],
)
def test_labels_that_cannot_be_drawn_are_refused(
    runs: Path,
    family: str,
    words: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["generate", f"run={runs / family}", "which=last", words])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as ended:
        generate.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def evaluated(*words: str, out: Path) -> dict[str, float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evaluate", *words, f"out={out}"])
        GlobalHydra.instance().clear()
        evaluate.main()
    return json.loads(out.read_text())["metrics"]


def test_evaluate_says_what_training_said_of_a_family(
    runs: Path, data_root: Path, tmp_path: Path
) -> None:
    for family in ("infogan", "projection"):
        found = evaluated(f"run={runs / family}", "which=last", out=tmp_path / "found.json")
        summary = json.loads((runs / family / "summary.json").read_text())
        assert found == pytest.approx(summary["metrics"]["final"]["raw"])


def test_a_file_s_labels_are_measured(runs: Path, data_root: Path, tmp_path: Path) -> None:
    data = DataModule(instantiate(configuration("folder=here", "data=digits").data), 8)
    data.prepare_data()
    data.setup()
    x, y = data.test.x[:128, 0].numpy(), data.test.y[:128].numpy()
    how = ("data=digits", "metrics=brief")
    for labels, share in ((y, None), ((y + 1) % 10, 0.1)):
        np.savez(tmp_path / "digits.npz", images=x, labels=labels)
        file = f"images={tmp_path / 'digits.npz'}"
        seen = evaluated(file, *how, out=tmp_path / "found.json")["digits_gan_test"]
        assert seen < share if share else seen > 0.8
    np.savez(tmp_path / "digits.npz", images=x, labels=y + 10)
    with pytest.raises(SystemExit):
        evaluated(file, *how, out=tmp_path / "found.json")


def test_a_run_from_before_families_goes_on(data_root: Path, tmp_path: Path) -> None:
    launch(*BRIEF, f"hydra.run.dir={tmp_path}")
    path = tmp_path / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["hyper_parameters"].pop("family")
    assert checkpoint["hyper_parameters"]["gan"].pop("condition") is None
    torch.save(checkpoint, path)
    launch(f"resume={tmp_path}", "epochs=2")
    assert json.loads((tmp_path / "summary.json").read_text())["epochs"] == 2
    assert load(tmp_path, "last").sample(2).shape == (2, 1, 28, 28)
