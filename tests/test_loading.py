"""A trained GAN back from its files, which must not be able to run anything."""

import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import changed, snapshot

import ganmnist
from ganmnist.errors import UserError
from ganmnist.gan import GAN
from ganmnist.loading import build, find_class, load
from ganmnist.networks import mlp


def content(trained: Path) -> dict[str, Any]:
    return torch.load(trained / "checkpoints/last.ckpt", weights_only=True)


def test_load_gives_the_trained_gan(trained: Path) -> None:
    gan = ganmnist.load(trained, which="last")
    assert isinstance(gan, GAN)
    assert not gan.training
    assert gan.batches_seen == 2
    assert changed(content(trained)["state_dict"], snapshot(gan)) == set()
    for ema in (False, True):
        x = gan.sample(64, ema=ema)
        assert x.shape == (64, 1, 28, 28)
        assert x.abs().max() <= 1


def test_load_takes_a_folder_or_a_file(trained: Path) -> None:
    by_file = load(trained / "checkpoints/best.ckpt")
    assert changed(snapshot(load(trained)), snapshot(by_file)) == set()


def test_what_is_not_there_is_a_sentence(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint and no folder of a run"):
        load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    os.link(trained / "checkpoints/last.ckpt", tmp_path / "checkpoints/last.ckpt")
    with pytest.raises(UserError, match=r"has no best\.ckpt: choose one of which=last"):
        load(tmp_path)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize(
    "name", ["truncated", "text", "empty", "pickle", "something else", "other networks"]
)
def test_what_is_no_checkpoint_is_refused(
    name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "some.ckpt"
    whole = (trained / "checkpoints/last.ckpt").read_bytes()
    if name == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
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
        checkpoint["hyper_parameters"]["gan"]["generator"]["widths"] = [7]
        torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"is not a whole checkpoint|does not fit") as refusal:
        load(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "builtins.eval",
        "subprocess.Popen",
        "ganmnist.environment.subprocess.run",
        "ganmnist.train.json.dumps",
        "ganmnist.paths.os.mkdir",
        "ganmnist.paths.claim",  # ours, but no class
        "ganmnist.paths.Path",  # a class, but not ours
        "torch.nn.Linear",
        "torch.load",
        "ganmnist",
        "",
    ],
)
def test_only_classes_of_ours_are_called(
    target: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UserError, ImportError)):
        find_class(target, ("ganmnist", "torch.optim"))
    checkpoint = content(trained)
    checkpoint["hyper_parameters"]["gan"]["latent"] = {"_target_": target, "path": "pwned"}
    torch.save(checkpoint, tmp_path / "hostile.ckpt")
    with pytest.raises(UserError):
        load(tmp_path / "hostile.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.ckpt"]


def test_interpolations_are_texts() -> None:
    """Hydra would look `${...}` up, and so read the environment."""
    assert build({"a": ["${oc.env:HOME}"]}) == {"a": ["${oc.env:HOME}"]}


def test_build_is_what_instantiate_does() -> None:
    target = "ganmnist.networks.mlp.Generator"
    made = build({"_target_": target, "latent_dim": 3, "widths": [5, 6]})
    assert isinstance(made, mlp.Generator)
    assert [p.shape[0] for p in made.parameters() if p.ndim == 2] == [5, 6, 784]
    partial = build({"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.5})
    assert partial(made.parameters()).defaults["lr"] == 0.5


def test_modules_of_ones_own_are_trusted_by_name(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from ganmnist.latents import Normal\nclass Z(Normal): ...\n"
    (tmp_path / "own_latent.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint = content(trained)
    checkpoint["hyper_parameters"]["gan"]["latent"]["_target_"] = "own_latent.Z"
    torch.save(checkpoint, tmp_path / "own.ckpt")
    with pytest.raises(UserError, match=r"trust=\[own_latent\]"):
        load(tmp_path / "own.ckpt")
    for trust in (["own_latent"], None):
        assert type(load(tmp_path / "own.ckpt", trust=trust).latent).__name__ == "Z"


def test_weights_that_are_no_numbers_are_refused(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    name = next(name for name in checkpoint["state_dict"] if name.startswith("generator"))
    checkpoint["state_dict"][name][0] = math.nan
    torch.save(checkpoint, tmp_path / "nan.ckpt")
    with pytest.raises(UserError, match=f"{name} is not finite"):
        load(tmp_path / "nan.ckpt")
