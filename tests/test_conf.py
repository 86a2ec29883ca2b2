"""Configuration: every choice composes and trains, and the recipes are what their sources say."""

import csv
import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import configuration
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from launch import BRIEF, BRIEFLY_MEASURED
from omegaconf import OmegaConf

from ganmnist import cli
from ganmnist.config import resolve_norm
from ganmnist.paths import conf_dir
from ganmnist.train import find_scalar, train

CONF = conf_dir()
GROUPS = {
    folder.name: {file.stem for file in folder.glob("*.yaml")}
    for folder in CONF.iterdir()
    if folder.is_dir() and folder.name != "hydra"
}
CHOICES = sorted(f"{group}={choice}" for group in GROUPS for choice in GROUPS[group])
KNOBS = ("epochs", "lr", "batch_size", "latent_dim", "every")


def plain(*overrides: str) -> dict[str, Any]:
    """A composed configuration, every interpolation resolved."""
    config = configuration("folder=here", *overrides)
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def test_the_promised_choices_are_there() -> None:
    promised = {
        "model": {"dcgan", "dcgan_fc", "dcgan64", "mlp", "noisy_mlp", "resnet", "r3gan"},
        "objective": {
            *("bce", "bce_logits", "minimax", "lsgan", "wgan", "wgan_gp", "dragan", "hinge"),
            *("ragan", "rpgan", "rpgan_r1r2", "feature_matching"),
            *("fgan_kl", "fgan_reverse_kl", "fgan_js", "fgan_pearson", "fgan_hellinger"),
        },
        "penalty": {"none", "r1", "r2", "gradient_penalty", "dragan", "feature_matching"},
        "stabilizer": {
            *("none", "spectral_norm", "instance_noise", "diffaugment", "minibatch_std"),
            *("minibatch_discrimination", "pacgan", "unrolled", "label_smoothing"),
        },
        "family": {
            *("gan", "cgan", "projection", "acgan", "infogan", "bigan", "aae", "aae_labels"),
            *("semisupervised", "lapgan", "inpainting", "superresolution"),
        },
        "schedule": {"none", "linear", "cosine", "exponential", "r3gan", "goodfellow"},
        "optimizer": {"adam", "ttur", "sgd", "rmsprop"},
        "latent": {"normal", "uniform"},
        "data": {"auto", "mnist", "stacked_mnist", "fashion_mnist", "digits", "ring8", "grid25"},
        "trainer": {"default", "cpu", "gpu", "ddp"},
        "logger": {"tensorboard", "csv", "none"},
        "callbacks": {"default", "plane", "graphs", "none"},
        "experiment": {
            *("paper_dcgan", "report_mlp", "dcgan64", "quick", "speedrun", "flagship"),
            *("comparison", "stacked", "few_labels"),
            *("paper_wgan", "paper_wgan_gp", "paper_lsgan"),
            *("paper_sngan", "paper_dragan", "paper_r3gan"),
            *("paper_gan", "paper_infogan", "paper_bigan"),
        },
    }
    missing = {group: promised[group] - GROUPS[group] for group in promised}
    assert not any(missing.values()), missing


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes(choice: str) -> None:
    config = plain(choice)
    assert config["gan"]["generator"]["_target_"].startswith("ganmnist.networks.")


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_file_is_under_30_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) < 30


NARROW = {
    "dcgan64": ["model.generator.widths=[4,4,4,4]", "model.discriminator.widths=[4,4,4,4]"],
    "paper_dcgan": ["model.generator.widths=[4,4,4]", "model.discriminator.widths=[4,4]"],
    "paper_r3gan": [
        f"model.{player}.{setting}"
        for player in ("generator", "discriminator")
        for setting in ("widths=[16,16,16]", "group_size=8")
    ],
}


@pytest.mark.parametrize("experiment", sorted(GROUPS["experiment"]))
def test_every_experiment_trains(experiment: str, tmp_path: Path, data_root: Path) -> None:
    few = ("trainer=cpu", "epochs=1", "trainer.limit_train_batches=2", "every=2")
    if not experiment.startswith("teach"):
        few = (*few, "data=digits", *BRIEFLY_MEASURED)
    narrow = NARROW.get(experiment, [])
    value = train(configuration(f"folder={tmp_path}", f"experiment={experiment}", *few, *narrow))

    promised = {
        *("env.json", "summary.json", "metrics.csv", "losses.png", "progress.gif", "epochs.png"),
        *("checkpoints/last.ckpt", "samples/real_000002.png", "samples/fake_000002.png"),
        "samples/epoch_001.png",
    }
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert promised <= files
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["task"], summary["status"]) == (experiment, "finished")
    assert (summary["epochs"], summary["batches_seen"]) == (1, 2)
    measured = find_scalar(summary["scalars"], summary["metric"], summary["data"])
    assert value == summary["value"] == measured


def test_ttur_is_of_every_experiment_whose_players_learn_alike() -> None:
    for experiment in (
        "paper_dcgan",
        "report_mlp",
        "dcgan64",
        "quick",
        "comparison",
        "paper_r3gan",
    ):
        rates = plain(f"experiment={experiment}", "optimizer=ttur", "lr=1e-3")["optimizer"]
        assert (rates["d"]["lr"], rates["g"]["lr"]) == (4e-3, 1e-3)


def test_nobody_needs_to_watch(tmp_path: Path, data_root: Path) -> None:
    silent = ("callbacks=none", "logger=none", "data=digits", "trainer=cpu", "model=mlp")
    train(configuration(f"folder={tmp_path}", *silent, "epochs=1", "trainer.limit_train_batches=2"))
    assert {path.name for path in tmp_path.iterdir()} == {"env.json", "summary.json"}
    assert json.loads((tmp_path / "summary.json").read_text())["batches_seen"] == 2


def test_a_csv_is_all_that_logger_csv_leaves(tmp_path: Path, data_root: Path) -> None:
    parts = (
        "logger=csv",
        "metrics=none",
        "data=digits",
        "trainer=cpu",
        "model=mlp",
        "objective=bce_logits",
    )
    train(configuration(f"folder={tmp_path}", *parts, "epochs=1", "trainer.limit_train_batches=3"))
    assert not (tmp_path / "tensorboard").exists()
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]


@pytest.mark.parametrize("experiment", ["paper_dcgan", "report_mlp"])
def test_recipes_train_on_mnist(experiment: str, tmp_path: Path, mnist_root: Path) -> None:
    data = ("data=mnist", f"data.root={mnist_root}", "trainer=cpu")
    few = ("epochs=1", "trainer.limit_train_batches=2", "metrics=none")
    train(configuration(f"folder={tmp_path}", f"experiment={experiment}", *data, *few))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["data"], summary["images_seen"]) == ("MNIST", 128)


def test_stacked_mnist_counts_its_modes(tmp_path: Path, mnist_root: Path) -> None:
    data = ("data=stacked_mnist", f"data.root={mnist_root}", "trainer=cpu", "batch_size=8")
    few = ("epochs=1", "trainer.limit_train_batches=2", *BRIEFLY_MEASURED, *NARROW["paper_dcgan"])
    train(configuration(f"folder={tmp_path}", *data, *few))
    summary = json.loads((tmp_path / "summary.json").read_text())
    final = summary["metrics"]["final"]["raw"]
    assert 1 <= final["stackedmnist_modes"] <= 100
    assert 90 < final["stackedmnist_real_modes"] <= 100  # of as many real triples
    assert final["stackedmnist_mode_kl"] >= 0


# The recipes, value by value.

DCGAN = {
    "gan.generator": {
        "_target_": "ganmnist.networks.dcgan.Generator",
        "latent_dim": 100,
        "channels": 1,
        "widths": [256, 128, 64],
        "kernels": [4, 3, 4, 4],
        "strides": [1, 2, 2, 2],
    },
    "gan.discriminator": {
        "_target_": "ganmnist.networks.dcgan.Discriminator",
        "channels": 1,
        "widths": [64, 128],
        "kernels": [4, 4, 7],
        "strides": [2, 2, 1],
        "norm": "batch",
        "first_norm": True,
        "slope": 0.2,
    },
    "datamodule.image_size": 28,
}
DCGAN64 = {
    "gan.generator": {
        "_target_": "ganmnist.networks.dcgan.Generator",
        "latent_dim": 100,
        "channels": 1,
        "widths": [512, 256, 128, 64],
        "kernels": [4, 4, 4, 4, 4],
        "strides": [1, 2, 2, 2, 2],
    },
    "gan.discriminator": {
        "_target_": "ganmnist.networks.dcgan.Discriminator",
        "channels": 1,
        "widths": [64, 128, 256, 512],
        "kernels": [4, 4, 4, 4, 4],
        "strides": [2, 2, 2, 2, 1],
        "norm": "batch",
        "first_norm": False,
        "slope": 0.2,
    },
    "datamodule.image_size": 64,
}
MLP = {
    "gan.generator": {
        "_target_": "ganmnist.networks.mlp.Generator",
        "latent_dim": 100,
        "channels": 1,
        "image_size": 28,
        "widths": [32, 64, 128],
        "slope": 0.2,
        "dropout": 0.3,
        "norm": "none",
        "output": "tanh",
    },
    "gan.discriminator": {
        "_target_": "ganmnist.networks.mlp.Discriminator",
        "channels": 1,
        "image_size": 28,
        "widths": [128, 64, 32],
        "slope": 0.2,
        "dropout": 0.3,
        "norm": "none",
        "pieces": 1,
        "input_dropout": 0.0,
    },
    "datamodule.image_size": 28,
}
ALIKE = {
    "batch_size": 64,
    "datamodule.batch_size": 64,
    "every": 200,
    "gan.latent": {"_target_": "ganmnist.latents.Normal", "dim": 100},
    "gan.terms": {},
    "gan.stabilizers": {},
    "gan.schedules": {},
    "gan.d_steps": 1,
    "gan.g_steps": 1,
    "gan.second_batch": False,
    "gan.accumulate": 1,
    "gan.clip": None,
}


def bce(stable: bool) -> dict[str, Any]:
    settings = {"_target_": "ganmnist.objectives.BCE", "stable": stable, "smoothing": 0.0}
    return {"gan.objective": settings}


RECIPES = {
    "paper_dcgan": ALIKE | DCGAN | bce(stable=False) | {"epochs": 20, "gan.fresh_fakes": False},
    "dcgan64": ALIKE | DCGAN64 | bce(stable=False) | {"epochs": 20, "gan.fresh_fakes": False},
    "report_mlp": ALIKE | MLP | bce(stable=True) | {"epochs": 100, "gan.fresh_fakes": True},
}
ADAM = {
    "paper_dcgan": (2e-4, (0.5, 0.999)),
    "dcgan64": (2e-4, (0.5, 0.999)),
    "report_mlp": (2e-3, (0.9, 0.999)),  # PyTorch's default betas
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_the_table(recipe: str) -> None:
    config = OmegaConf.create(plain(f"experiment={recipe}"))
    found = {key: OmegaConf.select(config, key) for key in RECIPES[recipe]}
    assert found == RECIPES[recipe]


@pytest.mark.parametrize("recipe", ADAM)
def test_recipe_trains_both_players_with_its_adam(recipe: str) -> None:
    gan = instantiate(configuration(f"experiment={recipe}").gan)
    for optimizer, player in zip(gan.configure_optimizers(), ("d", "g"), strict=True):
        assert type(optimizer) is torch.optim.Adam
        assert (optimizer.defaults["lr"], tuple(optimizer.defaults["betas"])) == ADAM[recipe]
        assert (optimizer.defaults["eps"], optimizer.defaults["weight_decay"]) == (1e-8, 0)
        [group] = optimizer.param_groups
        assert {id(p) for p in group["params"]} == {id(p) for p in gan.parameters_of[player]}


# The presets of papers: what each paper states.

PRESETS: dict[str, dict[str, Any]] = {
    "paper_wgan": {
        "gan.objective": {"_target_": "ganmnist.objectives.Wasserstein", "clip": 0.01},
        "gan.d_steps": 5,
        "batch_size": 64,
        "gan.d_optimizer._target_": "torch.optim.RMSprop",
        "gan.g_optimizer._target_": "torch.optim.RMSprop",
        "gan.d_optimizer.lr": 5e-5,
        "gan.g_optimizer.lr": 5e-5,
    },
    "paper_wgan_gp": {
        "gan.objective": {"_target_": "ganmnist.objectives.Wasserstein", "clip": None},
        "gan.terms.gradient_penalty.weight": 10.0,
        "gan.d_steps": 5,
        "batch_size": 64,
        "gan.discriminator.norm": "none",
        "gan.d_optimizer.lr": 1e-4,
        "gan.d_optimizer.betas": [0.0, 0.9],
        "gan.g_optimizer.betas": [0.0, 0.9],
    },
    "paper_lsgan": {
        "gan.objective": {
            **{"_target_": "ganmnist.objectives.LeastSquares", "a": 0.0, "b": 1.0, "c": 1.0},
        },
        "gan.d_optimizer.betas": [0.5, 0.999],
        "gan.g_optimizer.betas": [0.5, 0.999],
    },
    "paper_sngan": {
        "gan.objective": {"_target_": "ganmnist.objectives.Hinge"},
        "gan.stabilizers.spectral_norm._target_": "ganmnist.networks.stabilizers.SpectralNorm",
        "gan.d_steps": 5,
        "batch_size": 64,
        "latent_dim": 128,
        "gan.d_optimizer.lr": 2e-4,
        "gan.d_optimizer.betas": [0.0, 0.9],
        "gan.g_optimizer.betas": [0.0, 0.9],
    },
    "paper_dragan": {
        "gan.terms.dragan.weight": 10.0,
        "batch_size": 128,
        "gan.latent": {"_target_": "ganmnist.latents.Uniform", "dim": 100, "low": -1, "high": 1},
        "gan.d_optimizer.lr": 1e-4,
        "gan.d_optimizer.betas": [0.5, 0.9],
        "gan.g_optimizer.betas": [0.5, 0.9],
    },
    "paper_r3gan": {
        "gan.objective": {"_target_": "ganmnist.objectives.RelativisticPairing"},
        "gan.d_optimizer.lr": 2e-4,
        "gan.d_optimizer.betas": [0.0, 0.9],
        "gan.schedules.beta2.value.end": 0.99,
        "gan.schedules.lr.factor.end": 0.25,
        "latent_dim": 64,
    },
    "paper_gan": {
        "gan.generator.widths": [1200, 1200],
        "gan.discriminator.widths": [240, 240],
        "gan.discriminator.pieces": 5,
        "gan.d_optimizer._target_": "torch.optim.SGD",
        "gan.d_optimizer.lr": 0.05,
        "gan.g_optimizer.lr": 0.1,
        "batch_size": 100,
    },
    "paper_infogan": {
        "gan.latent.dim": 62 + 10 + 2,
        "batch_size": 128,
        "gan.d_optimizer.lr": 2e-4,
        "gan.g_optimizer.lr": 1e-3,
        "gan.terms.information.weight": 1.0,
    },
    "paper_bigan": {
        "gan.encoder.body.widths": [1024, 1024],
        "gan.encoder.bounded": True,
        "gan.discriminator.body.widths": [1024],
        "gan.discriminator.norm": "batch",
        "gan.d_optimizer.weight_decay": 2 * 2.5e-5,
        "gan.schedules.lr.factor.begin": 0.5,
        "gan.schedules.lr.factor.end": 0.01,
        "epochs": 400,
    },
    "few_labels": {
        "gan.latent": {"_target_": "ganmnist.latents.Uniform", "dim": 100, "low": 0, "high": 1},
        "gan.second_batch": True,
        "datamodule.second_batch": True,
        "gan.terms.few_labels.batch_size": 100,
        "epochs": 300,
    },
}


def test_bare_defaults_are_recipe_a() -> None:
    bare, recipe = plain(), plain("experiment=paper_dcgan")
    assert (bare.pop("task"), recipe.pop("task")) == ("train", "paper_dcgan")
    assert bare == recipe


def disturbed(value: Any, name: str = "") -> Any:
    """Another value of the same type for everything that a recipe has a say in."""
    if name in ("image_size", "channels", "seed", "chunk", "fused", "_partial_"):
        return value
    if isinstance(value, dict):
        return {key: disturbed(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [disturbed(inner) for inner in value] or ["another"]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else value


def replaced(entry: Any, other: dict[str, str]) -> Any:
    """An entry of a defaults list, with another choice for the groups of `other`."""
    if not isinstance(entry, dict):
        return entry
    return {group: other.get(group, choice) for group, choice in entry.items()}


@pytest.mark.parametrize("recipe", [*RECIPES, *PRESETS])
def test_recipe_does_not_hang_on_the_defaults(recipe: str, tmp_path: Path) -> None:
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    groups = (conf.glob(f"{group}/*.yaml") for group in ("model", "optimizer", "latent"))
    named = (conf / f"{name}.yaml" for name in ("train", "gan", "datamodule", "choices"))
    for file in (*named, *chain(*groups)):
        content = OmegaConf.to_container(OmegaConf.load(file))
        defaults = content.pop("defaults", None)
        content = disturbed(content)
        if defaults:
            theirs = plain(f"experiment={recipe}")["gan"]
            of_mlp = "mlp" in theirs["generator"]["_target_"]
            other = {"model": "dcgan" if of_mlp else "mlp"}
            other["objective"] = "bce" if theirs["objective"].get("stable") else "bce_logits"
            other |= {"penalty": "r1", "stabilizer": "minibatch_std", "schedule": "cosine"}
            content["defaults"] = [replaced(entry, other) for entry in defaults]
        OmegaConf.save(OmegaConf.create(content), file)

    def composed(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(conf), version_base="1.3"):
            config = compose("train", ["folder=here", *overrides])
        return OmegaConf.to_container(config, resolve=True)

    asked = f"experiment={recipe}"
    expected, bare, found = plain(asked), composed(), composed(asked)
    for part in (*(KNOBS if recipe in RECIPES else KNOBS[:4]), "gan"):
        assert bare[part] != expected[part]
        assert found[part] == expected[part]


@pytest.mark.parametrize("recipe", RECIPES)
def test_lr_is_both_players_and_either_may_differ(recipe: str) -> None:
    gan = plain(f"experiment={recipe}", "lr=0.5", "optimizer.d.lr=0.25")["gan"]
    assert (gan["d_optimizer"]["lr"], gan["g_optimizer"]["lr"]) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("asked", "norm"),
    [
        ("", "batch"),
        ("objective=wgan_gp", "layer"),
        ("penalty=dragan", "layer"),
        ("penalty=r1", "batch"),
        ("stabilizer=spectral_norm", "none"),
        ("stabilizer=spectral_norm penalty=gradient_penalty", "none"),
        ("objective=wgan_gp model.discriminator.norm=instance", "instance"),
        ("experiment=paper_wgan_gp", "none"),
        ("objective=wgan_gp family=bigan", "layer"),
        ("penalty=gradient_penalty family=aae", "batch"),  # of the encoder: D is a perceptron
        ("stabilizer=spectral_norm family=lapgan", "batch"),
    ],
)
def test_auto_norm_is_what_losses_and_stabilizers_need(asked: str, norm: str) -> None:
    assert plain(*asked.split())["model"]["discriminator"]["norm"] == norm


@pytest.mark.parametrize("objective", ["wgan_gp", "dragan"])
def test_the_norm_that_auto_came_to_is_saved(
    objective: str, tmp_path: Path, data_root: Path
) -> None:
    cli.setup()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [f"folder={tmp_path}", *BRIEF, f"objective={objective}"])
    assert config.model.discriminator.norm == "auto"
    train(config)
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["gan"]["discriminator"]["norm"] == "layer"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_values_of_its_paper(preset: str) -> None:
    config = OmegaConf.create(plain(f"experiment={preset}"))
    assert {key: OmegaConf.select(config, key) for key in PRESETS[preset]} == PRESETS[preset]


def test_auto_norm_is_resolved_in_a_copy_of_a_network() -> None:
    """A family's file that changes a setting of D's body makes a copy of model.discriminator."""
    cli.setup()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["folder=here", "family=bigan"])
    own = OmegaConf.to_container(config.model.discriminator, resolve=True)
    OmegaConf.update(config, "family.discriminator.body", {**own, "slope": 0.1})
    resolve_norm(config)
    body = config.gan.discriminator.body
    assert (body.norm, body.slope) == ("batch", 0.1)
