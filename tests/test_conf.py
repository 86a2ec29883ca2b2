"""Every choice composes, every experiment trains, and recipes have the values of their sources."""

import csv
import json
import re
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.config import configuration, settings_of
from helpers.launch import BRIEF, BRIEFLY_MEASURED
from helpers.networks import NARROW, choices
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ganmnist.runs import composition
from ganmnist.runs.folders import conf_dir
from ganmnist.runs.norm import resolve_norm
from ganmnist.runs.summary import find_scalar
from ganmnist.runs.unused import check_used
from ganmnist.train import train

pytestmark = pytest.mark.no_cover  # compositions take twice as long with coverage

CONF = conf_dir()
GROUPS = {
    folder.name: set(choices(folder.name))
    for folder in CONF.iterdir()
    if folder.is_dir() and folder.name != "hydra"
}
CHOICES = sorted(f"{group}={choice}" for group in GROUPS for choice in GROUPS[group])
OPTIONS = ("epochs", "lr", "batch_size", "latent_dim", "sample_every")


def plain(*overrides: str) -> dict[str, Any]:
    """A composed configuration, every interpolation resolved."""
    config = configuration("folder=here", *overrides)
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def test_documented_choices_exist() -> None:
    documented = {
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
            *("paper_dcgan", "report_mlp", "dcgan64", "quick", "debug", "speedrun", "flagship"),
            *("comparison", "stacked", "few_labels"),
            *("paper_wgan", "paper_wgan_gp", "paper_lsgan"),
            *("paper_sngan", "paper_dragan", "paper_r3gan"),
            *("paper_gan", "paper_infogan", "paper_bigan"),
        },
    }
    missing = {group: documented[group] - GROUPS[group] for group in documented}
    assert not any(missing.values()), missing


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes(choice: str) -> None:
    config = plain(choice)
    assert config["family"]["generator"]["_target_"].startswith("ganmnist.networks.")


@pytest.mark.parametrize("file", sorted(CONF.rglob("*/*.yaml")), ids=lambda file: file.stem)
def test_every_file_of_a_group_is_under_30_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) < 30


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_file_begins_with_a_comment(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")


def test_every_setting_of_train_yaml_has_a_comment() -> None:
    text = (CONF / "train.yaml").read_text().partition("_self_")[2].partition("\nhydra:")[0]
    lines = [line for line in text.splitlines() if re.match(r" *\w+:", line)]
    assert len(lines) > 25
    for line in lines:
        name = line.split(":")[0].strip()
        assert "#" in line or name in ("_target_", "intervals"), line


@pytest.mark.parametrize("group", sorted(GROUPS.keys() - {"experiment"}))
def test_groups_write_under_their_own_key(group: str) -> None:
    for file in (CONF / group).glob("*.yaml"):
        assert "@package" not in file.read_text(), file


# The networks of a family and the model compose; lapgan has its own.
@pytest.mark.parametrize("family", sorted(GROUPS["family"] - {"lapgan"}))
def test_every_family_reads_every_model(family: str) -> None:
    for model in GROUPS["model"]:
        words = [f"family={family}", f"model={model}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", ["folder=here", *words], return_hydra_config=True)
        check_used(config, words, config.hydra.runtime.choices)


@pytest.mark.parametrize("experiment", sorted(GROUPS["experiment"]))
def test_every_experiment_trains(experiment: str, tmp_path: Path, data_root: Path) -> None:
    few = ("trainer=cpu", "epochs=1", "trainer.limit_train_batches=2", "sample_every=2")
    if not experiment.startswith("teach"):
        few = (*few, "data=digits", *BRIEFLY_MEASURED)
    model = {"dcgan64": "dcgan64", "paper_dcgan": "dcgan", "paper_r3gan": "r3gan"}.get(
        experiment, ""
    )
    narrow = NARROW.get(model, ())
    value = train(settings_of(f"folder={tmp_path}", f"experiment={experiment}", *few, *narrow))

    expected = {
        *(
            "env.json",
            "config.yaml",
            "summary.json",
            "metrics.csv",
            "losses.png",
            "progress.gif",
            "epochs.png",
        ),
        *("checkpoints/last.ckpt", "samples/real_000002.png", "samples/fake_000002.png"),
        "samples/epoch_001.png",
    }
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert expected <= files
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["name"], summary["status"]) == (experiment, "finished")
    assert (summary["epochs"], summary["batches_seen"]) == (1, 2)
    measured = find_scalar(summary["scalars"], summary["metric"], summary["data"])
    assert value == summary["value"] == measured


def test_ttur_works_with_experiments_with_one_learning_rate() -> None:
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


def test_training_without_callbacks_writes_a_summary(tmp_path: Path, data_root: Path) -> None:
    none = ("callbacks=none", "logger=none", "data=digits", "trainer=cpu", "model=mlp")
    train(settings_of(f"folder={tmp_path}", *none, "epochs=1", "trainer.limit_train_batches=2"))
    assert {path.name for path in tmp_path.iterdir()} == {"env.json", "config.yaml", "summary.json"}
    assert json.loads((tmp_path / "summary.json").read_text())["batches_seen"] == 2


def test_logger_csv_writes_metrics_csv_alone(tmp_path: Path, data_root: Path) -> None:
    parts = (
        "logger=csv",
        "metrics=none",
        "data=digits",
        "trainer=cpu",
        "model=mlp",
        "objective=bce_logits",
    )
    train(settings_of(f"folder={tmp_path}", *parts, "epochs=1", "trainer.limit_train_batches=3"))
    assert not (tmp_path / "tensorboard").exists()
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]


@pytest.mark.parametrize("experiment", ["paper_dcgan", "report_mlp"])
def test_recipes_train_on_mnist(experiment: str, tmp_path: Path, mnist_root: Path) -> None:
    data = ("data=mnist", f"data.root={mnist_root}", "trainer=cpu")
    few = ("epochs=1", "trainer.limit_train_batches=2", "metrics=none")
    train(settings_of(f"folder={tmp_path}", f"experiment={experiment}", *data, *few))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["data"], summary["images_seen"]) == ("MNIST", 128)


def test_stacked_mnist_counts_modes(tmp_path: Path, mnist_root: Path) -> None:
    data = ("data=stacked_mnist", f"data.root={mnist_root}", "trainer=cpu", "batch_size=8")
    few = ("epochs=1", "trainer.limit_train_batches=2", *BRIEFLY_MEASURED, *NARROW["dcgan"])
    train(settings_of(f"folder={tmp_path}", *data, *few))
    summary = json.loads((tmp_path / "summary.json").read_text())
    final = summary["metrics"]["final"]["raw"]
    assert 1 <= final["stackedmnist_modes"] <= 100
    assert 90 < final["stackedmnist_real_modes"] <= 100  # of 100 real triples
    assert final["stackedmnist_mode_kl"] >= 0


# The recipes, value by value.

DCGAN = {
    "family.generator": {
        "_partial_": True,
        "_target_": "ganmnist.networks.dcgan.Generator",
        "widths": [256, 128, 64],
        "kernels": [4, 3, 4, 4],
        "strides": [1, 2, 2, 2],
    },
    "family.discriminator": {
        "_partial_": True,
        "_target_": "ganmnist.networks.dcgan.Discriminator",
        "widths": [64, 128],
        "kernels": [4, 4, 7],
        "strides": [2, 2, 1],
        "norm": "batch",
        "first_norm": True,
        "slope": 0.2,
    },
    "data.image_size": 28,
}
DCGAN64 = {
    "family.generator": {
        "_partial_": True,
        "_target_": "ganmnist.networks.dcgan.Generator",
        "widths": [512, 256, 128, 64],
        "kernels": [4, 4, 4, 4, 4],
        "strides": [1, 2, 2, 2, 2],
    },
    "family.discriminator": {
        "_partial_": True,
        "_target_": "ganmnist.networks.dcgan.Discriminator",
        "widths": [64, 128, 256, 512],
        "kernels": [4, 4, 4, 4, 4],
        "strides": [2, 2, 2, 2, 1],
        "norm": "batch",
        "first_norm": False,
        "slope": 0.2,
    },
    "data.image_size": 64,
}
MLP = {
    "family.generator": {
        "_partial_": True,
        "_target_": "ganmnist.networks.mlp.Generator",
        "image_size": 28,
        "widths": [32, 64, 128],
        "slope": 0.2,
        "dropout": 0.3,
        "norm": "none",
        "output": "tanh",
    },
    "family.discriminator": {
        "_partial_": True,
        "_target_": "ganmnist.networks.mlp.Discriminator",
        "image_size": 28,
        "widths": [128, 64, 32],
        "slope": 0.2,
        "dropout": 0.3,
        "norm": "none",
        "pieces": 1,
        "input_dropout": 0.0,
    },
    "data.image_size": 28,
}
COMMON = {
    "batch_size": 64,
    "datamodule.batch_size": 64,
    "print_every": 200,
    "sample_every": 200,
    "family.latent": {"_target_": "ganmnist.networks.latents.Normal", "dim": 100},
    "family.penalties": {},
    "family.auxiliary": {},
    "family.stabilizers": {},
    "family.schedules": {},
    "gan.d_steps": 1,
    "gan.g_steps": 1,
    "gan.second_batch": False,
    "gan.accumulate": 1,
    "gan.clip": None,
}


def bce(stable: bool) -> dict[str, Any]:
    settings = {"_target_": "ganmnist.losses.adversarial.BCE", "stable": stable, "smoothing": 0.0}
    return {"family.objective": settings}


RECIPES = {
    "paper_dcgan": COMMON | DCGAN | bce(stable=False) | {"epochs": 20, "gan.resample_fakes": False},
    "dcgan64": COMMON | DCGAN64 | bce(stable=False) | {"epochs": 20, "gan.resample_fakes": False},
    "report_mlp": COMMON | MLP | bce(stable=True) | {"epochs": 100, "gan.resample_fakes": True},
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
def test_recipe_trains_both_networks_with_its_adam(recipe: str) -> None:
    gan = instantiate(configuration("folder=here", f"experiment={recipe}").family)
    for optimizer, network in zip(gan.configure_optimizers(), ("d", "g"), strict=True):
        assert type(optimizer) is torch.optim.Adam
        assert (optimizer.defaults["lr"], tuple(optimizer.defaults["betas"])) == ADAM[recipe]
        assert (optimizer.defaults["eps"], optimizer.defaults["weight_decay"]) == (1e-8, 0)
        [group] = optimizer.param_groups
        assert {id(p) for p in group["params"]} == {id(p) for p in gan.parameters_of[network]}


# The presets of papers: what each paper states.

PRESETS: dict[str, dict[str, Any]] = {
    "paper_wgan": {
        "family.objective": {"_target_": "ganmnist.losses.adversarial.Wasserstein", "clip": 0.01},
        "gan.d_steps": 5,
        "batch_size": 64,
        "optimizer.d._target_": "torch.optim.RMSprop",
        "optimizer.g._target_": "torch.optim.RMSprop",
        "optimizer.d.lr": 5e-5,
        "optimizer.g.lr": 5e-5,
    },
    "paper_wgan_gp": {
        "objective.clip": None,
        "objective.penalties.gradient_penalty.weight": 10.0,
        "gan.d_steps": 5,
        "batch_size": 64,
        "family.discriminator.norm": "none",
        "optimizer.d.lr": 1e-4,
        "optimizer.d.betas": [0.0, 0.9],
        "optimizer.g.betas": [0.0, 0.9],
    },
    "paper_lsgan": {
        "family.objective": {
            **{
                "_target_": "ganmnist.losses.adversarial.LeastSquares",
                "a": 0.0,
                "b": 1.0,
                "c": 1.0,
            },
        },
        "optimizer.d.betas": [0.5, 0.999],
        "optimizer.g.betas": [0.5, 0.999],
    },
    "paper_sngan": {
        "family.objective": {"_target_": "ganmnist.losses.adversarial.Hinge"},
        "family.stabilizers.spectral_norm": {
            "_target_": "ganmnist.stabilizers.spectral_norm.SpectralNorm"
        },
        "gan.d_steps": 5,
        "batch_size": 64,
        "latent_dim": 128,
        "optimizer.d.lr": 2e-4,
        "optimizer.d.betas": [0.0, 0.9],
        "optimizer.g.betas": [0.0, 0.9],
    },
    "paper_dragan": {
        "objective.penalties.dragan.weight": 10.0,
        "batch_size": 128,
        "family.latent": {
            "_target_": "ganmnist.networks.latents.Uniform",
            "dim": 100,
            "low": -1,
            "high": 1,
        },
        "optimizer.d.lr": 1e-4,
        "optimizer.d.betas": [0.5, 0.9],
        "optimizer.g.betas": [0.5, 0.9],
    },
    "paper_r3gan": {
        "objective._target_": "ganmnist.losses.adversarial.RelativisticPairing",
        "objective.penalties.r1.gamma.start": 1.0,
        "objective.penalties.r2.gamma.end": 0.1,
        "optimizer.d.lr": 2e-4,
        "optimizer.d.betas": [0.0, 0.9],
        "family.schedules.beta2.value.end": 0.99,
        "family.schedules.lr.factor.end": 0.25,
        "latent_dim": 64,
    },
    "paper_gan": {
        "family.generator.widths": [1200, 1200],
        "family.discriminator.widths": [240, 240],
        "family.discriminator.pieces": 5,
        "optimizer.d._target_": "torch.optim.SGD",
        "optimizer.d.lr": 0.05,
        "optimizer.g.lr": 0.1,
        "batch_size": 100,
    },
    "paper_infogan": {
        "family.latent.dim": 62 + 10 + 2,
        "batch_size": 128,
        "optimizer.d.lr": 2e-4,
        "optimizer.g.lr": 1e-3,
        "family.auxiliary.information.weight": 1.0,
    },
    "paper_bigan": {
        "family.encoder.body.widths": [1024, 1024],
        "family.encoder.bounded": True,
        "family.discriminator.body.widths": [1024],
        "family.discriminator.norm": "batch",
        "optimizer.d.weight_decay": 2 * 2.5e-5,
        "family.schedules.lr.factor.begin": 0.5,
        "family.schedules.lr.factor.end": 0.01,
        "epochs": 400,
    },
    "few_labels": {
        "family.latent": {
            "_target_": "ganmnist.networks.latents.Uniform",
            "dim": 100,
            "low": 0,
            "high": 1,
        },
        "gan.second_batch": True,
        "datamodule.second_batch": True,
        "family.auxiliary.supervised.batch_size": 100,
        "objective.penalties.feature_matching.weight": 0.004,
        "epochs": 300,
    },
}


def test_bare_defaults_are_recipe_a() -> None:
    bare, recipe = plain(), plain("experiment=paper_dcgan")
    assert (bare.pop("name"), recipe.pop("name")) == ("train", "paper_dcgan")
    assert bare == recipe


def changed(value: Any, name: str = "") -> Any:
    """Another value of the same type for every setting that a recipe pins."""
    if name in ("image_size", "channels", "seed", "chunk", "fused", "_partial_"):
        return value
    if isinstance(value, dict):
        return {key: changed(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [changed(inner) for inner in value] or ["another"]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else value


def with_choices(entry: Any, other: dict[str, str]) -> Any:
    """An entry of a defaults list, with another choice for the groups of `other`."""
    if not isinstance(entry, dict):
        return entry
    return {group: other.get(group, choice) for group, choice in entry.items()}


@pytest.mark.parametrize("recipe", [*RECIPES, *PRESETS])
def test_recipe_does_not_depend_on_the_defaults(recipe: str, tmp_path: Path) -> None:
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    groups = (conf.glob(f"{group}/*.yaml") for group in ("model", "optimizer", "latent"))
    for file in (conf / "train.yaml", *chain(*groups)):
        content = OmegaConf.to_container(OmegaConf.load(file))
        defaults = content.pop("defaults", None)
        content = changed(content)
        if defaults:
            family = plain(f"experiment={recipe}")["family"]
            is_mlp = "mlp" in family["generator"]["_target_"]
            other = {"model": "dcgan" if is_mlp else "mlp"}
            other["objective"] = "bce" if family["objective"].get("stable") else "bce_logits"
            other |= {"penalty": "r1", "stabilizer": "minibatch_std", "schedule": "cosine"}
            content["defaults"] = [with_choices(entry, other) for entry in defaults]
        OmegaConf.save(OmegaConf.create(content), file)

    def composed(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(conf), version_base="1.3"):
            config = compose("train", ["folder=here", *overrides])
        return OmegaConf.to_container(config, resolve=True)

    word = f"experiment={recipe}"
    expected, bare, found = plain(word), composed(), composed(word)
    for part in (*(OPTIONS if recipe in RECIPES else OPTIONS[:4]), "gan", "family"):
        assert bare[part] != expected[part]
        assert found[part] == expected[part]


@pytest.mark.parametrize("recipe", RECIPES)
def test_lr_sets_both_networks_and_either_may_differ(recipe: str) -> None:
    optimizers = plain(f"experiment={recipe}", "lr=0.5", "optimizer.d.lr=0.25")["optimizer"]
    assert (optimizers["d"]["lr"], optimizers["g"]["lr"]) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("words", "norm"),
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
        (
            "penalty=gradient_penalty family=aae",
            "batch",
        ),  # of the encoder; D is an MLP
        ("stabilizer=spectral_norm family=lapgan", "batch"),
    ],
)
def test_auto_norm_is_the_norm_that_losses_and_stabilizers_need(words: str, norm: str) -> None:
    assert plain(*words.split())["model"]["discriminator"]["norm"] == norm


@pytest.mark.parametrize("objective", ["wgan_gp", "dragan"])
def test_resolved_norm_is_saved(objective: str, tmp_path: Path, data_root: Path) -> None:
    composition.setup()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [f"folder={tmp_path}", *BRIEF, f"objective={objective}"])
    assert config.model.discriminator.norm == "auto"
    train(composition.plain(config))
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["family"]["discriminator"]["norm"] == "layer"


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_has_the_values_of_its_paper(preset: str) -> None:
    config = OmegaConf.create(plain(f"experiment={preset}"))
    assert {key: OmegaConf.select(config, key) for key in PRESETS[preset]} == PRESETS[preset]


def test_auto_norm_is_resolved_in_a_copy_of_a_network() -> None:
    """A family that changes a setting of D's body has a copy of model.discriminator."""
    composition.setup()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["folder=here", "family=bigan"])
    own = OmegaConf.to_container(config.model.discriminator, resolve=True)
    OmegaConf.update(config, "family.discriminator.body", {**own, "slope": 0.1})
    settings = composition.plain(config)
    resolve_norm(settings)
    body = settings["family"]["discriminator"]["body"]
    assert (body["norm"], body["slope"]) == ("batch", 0.1)
