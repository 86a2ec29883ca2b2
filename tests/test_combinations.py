"""Every model with every objective, and every penalty and stabiliser, in both precisions."""

from typing import Any

import pytest
import torch
from conftest import RandomImages, configuration, watch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Trainer

from ganmnist.data import DataModule
from ganmnist.gan import GAN
from ganmnist.paths import conf_dir


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))


# Of each model a small one; the defaults of the rest.
NARROW = {
    "dcgan": ("model.generator.widths=[8,8,8]", "model.discriminator.widths=[8,8]"),
    "resnet": ("model.generator.widths=[8,8,8]", "model.discriminator.widths=[8,8,8]"),
    "r3gan": tuple(
        f"model.{player}.{setting}"
        for player in ("generator", "discriminator")
        for setting in ("widths=[16,16,16]", "group_size=8")
    ),
    "dcgan_fc": ("model.generator.widths=[8,8,8]", "model.discriminator.widths=[8,8,8]"),
    "dcgan64": ("model.generator.widths=[8,8,8,8]", "model.discriminator.widths=[8,8,8,8]"),
}
# Where batch norm and the objective exclude each other.
EXCLUDED = [
    (model, way) for model in ("dcgan", "dcgan64", "dcgan_fc") for way in ("wgan_gp", "dragan")
]
BATCH_NORM = {model: ("model.discriminator.norm=batch",) for model, _ in EXCLUDED}
LAYER_NORM = "model.discriminator.norm=layer"


def build(model: str, *overrides: str) -> tuple[GAN, int]:
    """A GAN, and the size of its images."""
    torch.manual_seed(0)
    small = ("latent_dim=4", "lr=1e-3", *NARROW.get(model, ()))
    config = configuration("folder=here", "data=digits", f"model={model}", *small, *overrides)
    return instantiate(config.gan), config.model.image_size


def train(gan: GAN, size: int, precision: Any = "32-true") -> None:
    """Three steps: losses are finite, and each player moves its own weights, all of them.

    What has no gradient is not moved by Adam either. Losses that only compare logits have none for
    the bias that all logits share.
    """
    moved = watch(gan)
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(accelerator="cpu", max_epochs=1, precision=precision, **quiet)
    trainer.fit(gan, datamodule=DataModule(RandomImages(12, size), 4))
    assert len(gan.history) == 3
    assert all(value.isfinite() for row in gan.history.values() for value in row.values())
    names = {id(p): name for name, p in gan.named_parameters()}
    owned = {player: {names[id(p)] for p in mine} for player, mine in gan.parameters_of.items()}
    trained = {name for name, p in gan.named_parameters() if p.requires_grad}
    assert owned["d"] | owned["g"] == trained
    for player, mine in owned.items():
        shared = (".last.bias", ".last.1.bias", "closeness.bias")
        bias = {name for name in mine if name.endswith(shared)}
        assert mine - bias <= moved[player] & trained <= mine
        assert all(p.isfinite().all() for p in gan.parameters_of[player])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("objective", choices("objective"))
@pytest.mark.parametrize("model", choices("model"))
def test_a_model_trains_with_an_objective(model: str, objective: str, precision: str) -> None:
    norm = [LAYER_NORM] if (model, objective) in EXCLUDED else []
    if (model, objective) != ("noisy_mlp", "wgan"):
        train(*build(model, f"objective={objective}", *norm), precision)


@pytest.mark.parametrize(
    ("model", "objective", "instead"),
    [
        *((*both, "choose model.discriminator.norm=layer") for both in EXCLUDED),
        ("noisy_mlp", "wgan", "leave stabilizer=spectral_norm and model=noisy_mlp out"),
    ],
)
def test_what_excludes_each_other_is_refused_in_a_sentence(
    model: str, objective: str, instead: str
) -> None:
    with pytest.raises(InstantiationException) as refused:
        build(model, f"objective={objective}", *BATCH_NORM.get(model, ()))
    assert instead in str(refused.value.__cause__)


@pytest.mark.parametrize("penalty", choices("penalty"))
def test_a_penalty_goes_with_another_objective(penalty: str) -> None:
    train(*build("dcgan", "objective=hinge", f"penalty={penalty}", LAYER_NORM))


@pytest.mark.parametrize("objective", ["bce", "hinge", "rpgan_r1r2"])
@pytest.mark.parametrize("stabilizer", choices("stabilizer"))
def test_a_stabiliser_goes_with_an_objective(stabilizer: str, objective: str) -> None:
    parts = (f"objective={objective}", f"stabilizer={stabilizer}", LAYER_NORM)
    if stabilizer == "spectral_norm":
        parts = (*parts, "model.discriminator.norm=none")
    refused = {
        ("label_smoothing", "hinge"): "smoothing",
        ("label_smoothing", "rpgan_r1r2"): "smoothing",
        ("unrolled", "rpgan_r1r2"): "cannot follow r1 and r2",
    }
    if why := refused.get((stabilizer, objective)):
        with pytest.raises(InstantiationException, match=why):
            build("dcgan", *parts)
    else:
        train(*build("dcgan", *parts))


@pytest.mark.parametrize("schedule", choices("schedule"))
@pytest.mark.parametrize("optimizer", choices("optimizer"))
def test_a_schedule_goes_with_an_optimiser(optimizer: str, schedule: str) -> None:
    gan, size = build("mlp", f"optimizer={optimizer}", f"schedule={schedule}", "epochs=20")
    adam = optimizer in ("adam", "ttur")
    refused = {"r3gan": not adam and "Adam's beta2", "goodfellow": adam and "SGD's momentum"}
    if why := refused.get(schedule):
        with pytest.raises(ValueError, match=why):
            gan.configure_optimizers()
    else:
        train(gan, size)


def test_several_of_a_group_are_a_list() -> None:
    several = ("penalty=[r1,r2]", "stabilizer=[spectral_norm,minibatch_std,pacgan]")
    gan, size = build("resnet", "objective=wgan_gp", *several)
    assert list(gan.terms) == ["gradient_penalty", "r1", "r2"]
    train(gan, size)


def test_two_time_scales_are_the_learning_rates_of_the_players() -> None:
    gan, _ = build("mlp", "optimizer=ttur", "lr=1e-4")
    d, g = gan.configure_optimizers()
    assert (d.defaults["lr"], g.defaults["lr"]) == pytest.approx((4e-4, 1e-4))


def test_stacked_digits_are_packed_too() -> None:
    gan, _ = build("dcgan", "data=stacked_mnist", "stabilizer=pacgan", "stabilizer.pacgan.m=4")
    assert gan.discriminator.inside.blocks[0].in_channels == 12


FAMILIES = choices("family")
SEES_MORE = {
    *("cgan", "projection", "bigan", "aae", "aae_labels"),
    *("lapgan", "inpainting", "superresolution"),
}  # in D, than the image
REFUSED = {
    **{(family, "pacgan"): "PacGAN packs images" for family in SEES_MORE},
    **{
        (family, "pacgan"): "speaks of one image"
        for family in ("acgan", "infogan", "semisupervised")
    },
    **{
        (family, stabilizer): "sees latents alone"
        for family in ("aae", "aae_labels")
        for stabilizer in ("diffaugment", "instance_noise")
    },
    **{(family, "feature_matching"): "cannot be: choose another" for family in ("bigan",)},
    **{(family, "fgan_pearson"): "cannot be: choose another" for family in ("bigan",)},
    ("semisupervised", "unrolled"): "cannot follow few_labels",
    ("lapgan", "diffaugment"): "judges 3 sizes",
    ("lapgan", "minibatch_discrimination"): "judges 3 sizes",
    ("lapgan", "minibatch_std"): "judges 3 sizes",
}
FEW = {"semisupervised": ("gan.labelled=10",)}  # of twelve images


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("model", ["mlp", "noisy_mlp", "dcgan", "resnet", "r3gan"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_with_a_model(family: str, model: str, precision: str) -> None:
    train(*build(model, f"family={family}", "latent_dim=16", *FEW.get(family, ())), precision)


@pytest.mark.parametrize(
    "way",
    [
        *("objective=hinge", "objective=lsgan", "objective=rpgan", "objective=feature_matching"),
        *("objective=fgan_pearson", "objective=fgan_kl", "penalty=r1"),
        *(f"stabilizer={choice}" for choice in choices("stabilizer")),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_with_what_else_there_is(family: str, way: str) -> None:
    parts = (f"family={family}", way, "latent_dim=16", "model.discriminator.norm=none")
    parts += FEW.get(family, ())
    if why := REFUSED.get((family, way.partition("=")[2])):
        with pytest.raises(InstantiationException, match=why):
            build("dcgan", *parts)
    else:
        train(*build("dcgan", *parts))
