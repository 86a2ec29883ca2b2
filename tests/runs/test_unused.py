"""Typed settings that nothing reads are refused by name."""

import pytest
from helpers.config import configuration
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ganmnist.runs.config_tree import follow, interpolations
from ganmnist.runs.folders import conf_dir
from ganmnist.runs.unused import check_used
from ganmnist.utils.errors import UserError


def check(line: str) -> None:
    """Checks a command line as training does."""
    configuration("folder=here")  # registers the resolvers
    words = line.split()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", words, return_hydra_config=True)
    check_used(config, words, config.hydra.runtime.choices)


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        ("family=lapgan model=resnet", "model=resnet"),
        ("family=aae latent_dim=7", "latent_dim=7"),
        ("family=aae latent.dim=7", "latent.dim=7"),
        ("family=aae latent=uniform", "latent=uniform"),
        ("family=infogan latent=uniform", "latent=uniform"),
        ("family=superresolution model.generator.widths=[8]", "model.generator.widths"),
        ("callbacks=none sample_every=50", "sample_every=50"),
        ("callbacks=none print_every=50", "print_every=50"),
        ("callbacks=none checkpoint.every_minutes=1", "checkpoint.every_minutes=1"),
        ("callbacks=none metrics=quick", "metrics=quick"),
        ("callbacks=none metrics.n=100", "metrics.n=100"),
    ],
)
def test_setting_that_nothing_reads_is_refused(line: str, setting: str) -> None:
    with pytest.raises(UserError) as raised:
        check(line)
    assert str(raised.value).startswith(setting)


@pytest.mark.parametrize(
    "line",
    [
        "family=superresolution model=resnet",
        "family=infogan latent_dim=74",
        "family=bigan latent=uniform latent.low=0",
        "family=aae family.latent.dim=7",
        "callbacks=none metrics=none logger=none penalty=none stabilizer=none schedule=none",
        "penalty=[r1,r2] penalty.r1.gamma=2",
        "objective=rpgan_r1r2 objective.penalties.r1.gamma=2",
        "+penalty@objective.penalties=r1",
        "+optimizer.d.eps=1e-3 ~callbacks.progress trainer.gpus=0",
        "name=x seed=1 epochs=3 lr=1 batch_size=8 ema=null print_every=1 sample_every=1",
        "log_every=1 optimized_metric=fid trusted_modules=[mine] checkpoint.every_minutes=3",
        "data.root=here data.image_size=28 metrics.n=100 gan.clip=1 datamodule.chunk=4",
        "experiment=debug callbacks=none",  # of the words of an experiment none is checked
    ],
)
def test_setting_that_is_read_is_accepted(line: str) -> None:
    check(line)


def test_own_parts_may_read_any_setting() -> None:
    config = OmegaConf.create(
        {"a": 1, "b": {"c": "${.d}", "d": 2}, "callbacks": {"mine": "${plus:${a},${b.c}}"}}
    )
    check_used(config, ["a=1", "b.d=2"], {})
    with pytest.raises(UserError, match="b=3"):
        check_used(OmegaConf.create({"b": 3, "callbacks": {}}), ["b=3"], {})


def test_paths_follow_references() -> None:
    tree = {"family": {"latent": "${latent}"}, "latent": {"dim": 3}}
    assert follow(tree, "family.latent.dim") == ("latent.dim", 3)
    assert follow(tree, "family.latent.width") == ("latent.width", None)
    assert interpolations("${times:4,${lr}}", "optimizer.d.lr") == ["lr"]
    assert interpolations("${..x}", "a.b.c") == ["a.x"]
