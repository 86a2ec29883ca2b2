"""Models with objectives, penalties, stabilizers and families, in float32 and bfloat16."""

from typing import Any

import pytest
import torch
from helpers.config import configuration
from helpers.data import RandomImages
from helpers.gan import watch
from helpers.networks import IMAGES, NARROW, choices
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Trainer

from ganmnist.data import DataModule
from ganmnist.gan import GAN

pytestmark = pytest.mark.no_cover  # compositions take twice as long with coverage

# Objectives that batch norm in D excludes.
EXCLUDED = [
    (model, objective)
    for model in ("dcgan", "dcgan64", "dcgan_fc")
    for objective in ("wgan_gp", "dragan")
]
BATCH_NORM = {model: ("model.discriminator.norm=batch",) for model, _ in EXCLUDED}
LAYER_NORM = "model.discriminator.norm=layer"


def build(model: str, *overrides: str) -> tuple[GAN, DataModule]:
    """A GAN, and 12 random images of its size in batches of 4."""
    torch.manual_seed(0)
    small = ("latent_dim=4", "lr=1e-3", *NARROW.get(model, ()), *IMAGES.get(model, ()))
    config = configuration("folder=here", "data=digits", f"model={model}", *small, *overrides)
    images = RandomImages(12, config.data.image_size, config.data.channels)
    return instantiate(config.family), DataModule(images, 4)


def train(gan: GAN, data: DataModule, precision: Any = "32-true") -> None:
    """Three iterations: losses are finite, and each step changes all parameters of its network.

    Adam does not change a parameter with gradient 0. Losses that only compare logits give gradient
    0 to the bias that all logits share.
    """
    moved = watch(gan)
    losses = []
    record_scalars = gan.record_scalars

    def record(prefix: str, scalars: dict[str, torch.Tensor]) -> None:
        losses.extend(scalars.values())
        record_scalars(prefix, scalars)

    gan.record_scalars = record
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(accelerator="cpu", max_epochs=1, precision=precision, **quiet)
    trainer.fit(gan, datamodule=data)
    assert losses
    assert all(value.isfinite() for value in losses)
    assert gan.state.batches_seen == 3
    names = {id(p): name for name, p in gan.named_parameters()}
    owned = {network: {names[id(p)] for p in ps} for network, ps in gan.parameters_of.items()}
    trained = {name for name, p in gan.named_parameters() if p.requires_grad}
    assert owned["d"] | owned["g"] == trained
    for network, parameters in owned.items():
        shared = (".last.bias", ".last.1.bias", "similarity.bias")
        biases = {name for name in parameters if name.endswith(shared)}
        assert parameters - biases <= moved[network] & trained <= parameters
        assert all(p.isfinite().all() for p in gan.parameters_of[network])


def in_both_precisions(models: list[str]) -> pytest.MarkDecorator:
    """Each model in float32, and dcgan in bfloat16. The other models are slow tests in bfloat16,
    because many CPUs have no instructions for it.
    """
    both = [pytest.param(model, "32-true", id=model) for model in models]
    for model in models:
        marks = () if model == "dcgan" else pytest.mark.slow
        both.append(pytest.param(model, "bf16-mixed", id=f"{model}-bfloat16", marks=marks))
    return pytest.mark.parametrize(("model", "precision"), both)


@pytest.mark.parametrize("objective", choices("objective"))
@in_both_precisions(choices("model"))
def test_a_model_trains_with_an_objective(model: str, objective: str, precision: str) -> None:
    norm = [LAYER_NORM] if (model, objective) in EXCLUDED else []
    if (model, objective) != ("noisy_mlp", "wgan"):
        train(*build(model, f"objective={objective}", *norm), precision)


@pytest.mark.parametrize(
    ("model", "objective", "setting"),
    [
        *((model, objective, r"norm=layer") for model, objective in EXCLUDED),
        ("noisy_mlp", "wgan", "noisy_mlp"),
    ],
)
def test_a_model_and_an_objective_that_exclude_each_other_are_refused(
    model: str, objective: str, setting: str
) -> None:
    with pytest.raises(InstantiationException) as exception:
        build(model, f"objective={objective}", *BATCH_NORM.get(model, ()))
    assert setting in str(exception.value.__cause__)


@pytest.mark.parametrize("penalty", choices("penalty"))
def test_a_penalty_trains_with_another_objective(penalty: str) -> None:
    train(*build("dcgan", "objective=hinge", f"penalty={penalty}", LAYER_NORM))


@pytest.mark.parametrize("objective", ["bce", "hinge", "rpgan_r1r2"])
@pytest.mark.parametrize("stabilizer", choices("stabilizer"))
def test_a_stabilizer_trains_with_an_objective(stabilizer: str, objective: str) -> None:
    settings = (f"objective={objective}", f"stabilizer={stabilizer}", LAYER_NORM)
    if stabilizer == "spectral_norm":
        settings = (*settings, "model.discriminator.norm=none")
    refused = {
        ("label_smoothing", "hinge"),
        ("label_smoothing", "rpgan_r1r2"),
        ("unrolled", "rpgan_r1r2"),
    }
    if (stabilizer, objective) in refused:
        with pytest.raises((InstantiationException, ValueError), match=stabilizer):
            build("dcgan", *settings)
    else:
        train(*build("dcgan", *settings))


@pytest.mark.parametrize("schedule", choices("schedule"))
@pytest.mark.parametrize("optimizer", choices("optimizer"))
def test_a_schedule_trains_with_an_optimizer(optimizer: str, schedule: str) -> None:
    gan, data = build("mlp", f"optimizer={optimizer}", f"schedule={schedule}", "epochs=20")
    adam = optimizer in ("adam", "ttur")
    refused = {"r3gan": not adam and "beta", "goodfellow": adam and "momentum"}
    if setting := refused.get(schedule):
        with pytest.raises(ValueError, match=setting):
            gan.configure_optimizers()
    else:
        train(gan, data)


def test_several_options_of_a_group() -> None:
    several = ("penalty=[r1,r2]", "stabilizer=[spectral_norm,minibatch_std,pacgan]")
    gan, data = build("resnet", "objective=wgan_gp", *several)
    assert list(gan.loss_terms) == ["wasserstein", "gradient_penalty", "r1", "r2"]
    train(gan, data)


def test_ttur_has_two_learning_rates() -> None:
    gan, _ = build("mlp", "optimizer=ttur", "lr=1e-4")
    d, g = gan.configure_optimizers()
    assert (d.defaults["lr"], g.defaults["lr"]) == pytest.approx((4e-4, 1e-4))


def test_pacgan_multiplies_the_channels_of_stacked_mnist() -> None:
    gan, _ = build("dcgan", "data=stacked_mnist", "stabilizer=pacgan", "stabilizer.pacgan.m=4")
    assert gan.discriminator.discriminator.blocks[0].in_channels == 12


FAMILIES = choices("family")
# Families whose D sees more than the image.
SEES_MORE = {
    "cgan",
    "projection",
    "bigan",
    "aae",
    "aae_labels",
    "lapgan",
    "inpainting",
    "superresolution",
}
# Refused combinations, and the setting in the message.
REFUSED = {
    **{(family, "pacgan"): "pacgan" for family in SEES_MORE},
    **{(family, "pacgan"): "pacgan" for family in ("acgan", "infogan", "semisupervised")},
    **{
        (family, stabilizer): stabilizer
        for family in ("aae", "aae_labels")
        for stabilizer in ("diffaugment", "instance_noise")
    },
    ("bigan", "feature_matching"): "family=bigan",
    ("bigan", "fgan_pearson"): "family=bigan",
    ("bigan", "label_smoothing"): "family=bigan",
    ("semisupervised", "unrolled"): "unrolled",
    **{
        ("lapgan", stabilizer): stabilizer
        for stabilizer in ("diffaugment", "minibatch_discrimination", "minibatch_std")
    },
}
FEW = {"semisupervised": ("family.labeled=10",)}  # of twelve images


@in_both_precisions(["mlp", "noisy_mlp", "dcgan", "resnet", "r3gan"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_with_a_model(family: str, model: str, precision: str) -> None:
    train(*build(model, f"family={family}", "latent_dim=16", *FEW.get(family, ())), precision)


@pytest.mark.parametrize(
    "setting",
    [
        "objective=hinge",
        "objective=lsgan",
        "objective=rpgan",
        "objective=feature_matching",
        "objective=fgan_pearson",
        "objective=fgan_kl",
        "penalty=r1",
        *(f"stabilizer={choice}" for choice in choices("stabilizer")),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_with_an_objective_penalty_or_stabilizer(family: str, setting: str) -> None:
    settings = (f"family={family}", setting, "latent_dim=16", "model.discriminator.norm=none")
    settings += FEW.get(family, ())
    if name := REFUSED.get((family, setting.partition("=")[2])):
        with pytest.raises(InstantiationException, match=name):
            build("dcgan", *settings)
    else:
        train(*build("dcgan", *settings))
