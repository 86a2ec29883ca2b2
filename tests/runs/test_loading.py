"""Loading a trained GAN runs no code that its files name."""

import importlib.metadata
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.gan import changed, snapshot

import ganmnist
from ganmnist.gan import GAN
from ganmnist.networks import mlp
from ganmnist.runs.instantiate import TRUSTED, find_target, instantiate
from ganmnist.runs.loading import load
from ganmnist.utils.errors import UserError


def content(trained: Path) -> dict[str, Any]:
    return torch.load(trained / "checkpoints/last.ckpt", weights_only=True)


def test_load_returns_the_trained_gan(trained: Path) -> None:
    gan = ganmnist.load(trained, which="last")
    assert isinstance(gan, GAN)
    assert not gan.training
    assert gan.state.batches_seen == 2
    assert changed(content(trained)["state_dict"], snapshot(gan)) == set()
    for ema in (False, True):
        x = gan.sample(64, ema=ema)
        assert x.shape == (64, 1, 28, 28)
        assert x.abs().max() <= 1


def test_load_takes_a_folder_or_a_file(trained: Path) -> None:
    by_file = load(trained / "checkpoints/best.ckpt")
    assert changed(snapshot(load(trained)), snapshot(by_file)) == set()


def test_missing_checkpoint_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    os.link(trained / "checkpoints/last.ckpt", tmp_path / "checkpoints/last.ckpt")
    with pytest.raises(UserError, match="which=last"):
        load(tmp_path)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize(
    "name", ["truncated", "text", "empty", "pickle", "something else", "other networks"]
)
def test_damaged_checkpoint_is_refused(
    name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "some.ckpt"
    good = (trained / "checkpoints/last.ckpt").read_bytes()
    if name == "truncated":
        path.write_bytes(good[: len(good) // 2])
    elif name == "text":
        path.write_text("these are no weights\n")
    elif name == "empty":
        path.touch()
    elif name == "pickle":
        path.write_bytes(pickle.dumps(Hostile()))
    elif name == "something else":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        checkpoint = content(trained)
        checkpoint["hyper_parameters"]["family"]["generator"]["widths"] = [7]
        torch.save(checkpoint, path)
    with pytest.raises(UserError, match=str(path)) as raised:
        load(path)
    assert "\n" not in str(raised.value)
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "builtins.eval",
        "subprocess.Popen",
        "ganmnist.runs.environment.subprocess.run",
        "ganmnist.train.json.dumps",
        "ganmnist.runs.folders.os.mkdir",
        "ganmnist.runs.folders.unique_dir",  # not a class
        "ganmnist.runs.folders.Path",  # a class of another package
        "torch.nn.Linear",
        "torch.load",
        "ganmnist",
        "",
    ],
)
def test_only_classes_of_ganmnist_are_called(
    target: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UserError, ImportError)):
        find_target(target, TRUSTED)
    checkpoint = content(trained)
    checkpoint["hyper_parameters"]["family"]["latent"] = {"_target_": target, "path": "pwned"}
    torch.save(checkpoint, tmp_path / "hostile.ckpt")
    with pytest.raises(UserError):
        load(tmp_path / "hostile.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.ckpt"]


def test_interpolations_stay_texts() -> None:
    """Hydra would resolve `${...}` and read the environment."""
    assert instantiate({"a": ["${oc.env:HOME}"]}) == {"a": ["${oc.env:HOME}"]}


def test_build_calls_classes_like_instantiate() -> None:
    target = "ganmnist.networks.mlp.Generator"
    generator = instantiate({"_target_": target, "latent_dim": 3, "widths": [5, 6]})
    assert isinstance(generator, mlp.Generator)
    assert [p.shape[0] for p in generator.parameters() if p.ndim == 2] == [5, 6, 784]
    partial = instantiate({"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.5})
    assert partial(generator.parameters()).defaults["lr"] == 0.5


def test_own_modules_are_trusted_by_name(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from ganmnist.networks.latents import Normal\nclass Z(Normal): ...\n"
    (tmp_path / "own_latent.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint = content(trained)
    checkpoint["hyper_parameters"]["family"]["latent"]["_target_"] = "own_latent.Z"
    torch.save(checkpoint, tmp_path / "own.ckpt")
    with pytest.raises(UserError, match=r"trusted_modules=\[own_latent\]"):
        load(tmp_path / "own.ckpt")
    for trust in (["own_latent"], None):
        assert type(load(tmp_path / "own.ckpt", trusted_modules=trust).latent).__name__ == "Z"


def test_weights_with_nan_are_refused(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    name = next(name for name in checkpoint["state_dict"] if name.startswith("generator"))
    checkpoint["state_dict"][name][0] = math.nan
    torch.save(checkpoint, tmp_path / "nan.ckpt")
    with pytest.raises(UserError, match=name):
        load(tmp_path / "nan.ckpt")


@pytest.mark.parametrize("version", ["0.1.0", "0.1.3"])
def test_checkpoint_of_version_0_1_is_refused(version: str, trained: Path, tmp_path: Path) -> None:
    checkpoint = content(trained) | {"ganmnist": version}
    checkpoint["hyper_parameters"] = {"gan": {"_target_": "ganmnist.gan.GAN"}, "task": "train"}
    torch.save(checkpoint, tmp_path / "old.ckpt")
    with pytest.raises(UserError, match=r"ganmnist 0\.1") as raised:
        load(tmp_path / "old.ckpt")
    assert str(raised.value) == (
        f"{tmp_path / 'old.ckpt'} was written by ganmnist 0.1, which this version cannot load. "
        "Train again, or install ganmnist 0.1."
    )


@pytest.mark.parametrize("version", ["99.1", "a text", None])
def test_checkpoint_of_another_version_loads_if_it_fits(
    version: str | None, trained: Path, tmp_path: Path
) -> None:
    assert content(trained)["ganmnist"] == importlib.metadata.version("ganmnist")
    torch.save(content(trained) | {"ganmnist": version}, tmp_path / "other.ckpt")
    assert load(tmp_path / "other.ckpt").state.batches_seen == 2
