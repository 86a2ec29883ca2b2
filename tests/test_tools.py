"""evaluate and generate: figures and images of a run, from the command line."""

import json
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from ganmnist.data import Digits
from ganmnist.latents import interpolate


@pytest.fixture
def here(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(command: str, *arguments: object) -> int:
    """The command in this process; its exit code."""
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [command, *map(str, arguments)])
        patch.setenv("HYDRA_FULL_ERROR", "1")
        try:
            import_module(f"ganmnist.{command}").main()
        except SystemExit as leaving:
            return int(leaving.code or 0)
        finally:
            GlobalHydra.instance().clear()
    return 0


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_evaluate_repeats_the_summary(trained: Path, here: Path) -> None:
    summary = read(trained / "summary.json")["metrics"]
    for which, weights in (("best", "raw"), ("last", "ema")):
        assert start("evaluate", f"run={trained}", f"which={which}", f"weights={weights}") == 0
        found = read(trained / "metrics.json")
        expected = summary["best" if which == "best" else "final"][weights]
        assert found["metrics"] == expected
        assert (found["data"], found["n"], found["weights"]) == ("digits", 100, weights)
        assert found["classifier"] == summary["protocol"]["classifier"]
    assert list(here.iterdir()) == []  # it leaves nothing else


def test_evaluate_tells_other_data_than_mnist_by_the_key(trained: Path, here: Path) -> None:
    asked = ("metrics=default", "n=50", "out=figures.json")
    assert start("evaluate", f"run={trained}", *asked) == 0
    names = {"fid", "fid_floor", "kid", "is", "precision", "recall", "density", "coverage"}
    names |= {"class_kl", "memorization"}
    assert read(here / "figures.json")["metrics"].keys() == {f"digits_{name}" for name in names}


def test_settings_of_the_run_can_be_changed_one_by_one(
    trained: Path, here: Path, digits_root: Path, tmp_path: Path
) -> None:
    """`data.x=y` keeps the rest of what the run had; a root of another machine is replaced."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(digits_root, elsewhere)
    for asked in (f"data.root={elsewhere}", "metrics.seed=5"):
        assert start("evaluate", f"run={trained}", asked, "out=changed.json") == 0
        found = read(here / "changed.json")
        had = read(trained / "summary.json")["metrics"]
        assert found["data"] == "digits"
        assert found["metrics"].keys() == had["final"]["raw"].keys()
        assert (found["metrics"] == had["best"]["raw"]) == asked.startswith("data")
    checkpoint = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["data"]["root"] = "/of/another/machine"
    torch.save(checkpoint, "moved.ckpt")
    assert start("evaluate", "ckpt=moved.ckpt", "out=moved.json") == 0
    assert read(here / "moved.json")["data"] == "digits"
    assert read(here / "moved.json")["checkpoint"] == "moved.ckpt"


def test_the_floor_is_of_as_many_images(trained: Path, here: Path, digits_root: Path) -> None:
    real = Digits(digits_root).load()[0].x[:, 0].numpy()
    floors = []
    for n in (60, 120):
        np.savez("real.npz", images=real[:n])
        assert start("evaluate", "images=real.npz", "data=digits", "out=real.json") == 0
        found = read(here / "real.json")
        assert found["n"] == n
        floors.append(found["metrics"]["digits_fid_floor"])
    assert floors[0] > floors[1]  # fewer images are further from the test images


def test_images_of_any_program_are_measured_like_ours(trained: Path, here: Path) -> None:
    assert start("generate", f"run={trained}", "n=60", "out=x.npz") == 0
    one, other = here / "a/metrics.json", here / "b/metrics.json"
    assert start("evaluate", "images=x.npz", "data=digits", f"out={one}") == 0
    with np.load("x.npz") as file:
        assert (file["images"].dtype, file["images"].shape) == (np.uint8, (60, 28, 28))
        np.savez("y.npz", images=file["images"][..., None])
    assert start("evaluate", "images=y.npz", "data=digits", f"out={other}") == 0
    assert read(one)["metrics"] == read(other)["metrics"]
    assert read(one)["n"] == 60


def test_real_images_are_better_than_noise(here: Path, digits_root: Path) -> None:
    real = Digits(digits_root).load()[1].x[:, 0].numpy()
    noise = np.random.default_rng(0).integers(256, size=real.shape, dtype=np.uint8)
    for name, images in (("real", real), ("noise", noise)):
        np.savez(f"{name}.npz", images=images)
        assert start("evaluate", f"images={name}.npz", "data=digits", f"out={name}.json") == 0
    real, noise = (read(here / f"{name}.json")["metrics"] for name in ("real", "noise"))
    assert real["digits_fid"] == pytest.approx(0, abs=1e-6)  # against themselves
    assert (real["digits_precision"], real["digits_coverage"]) == (1, 1)
    assert real["digits_class_kl"] == 0
    assert real["digits_memorization"] == 1
    assert noise["digits_fid"] > 10 * real["digits_fid_floor"]
    assert noise["digits_coverage"] < 0.1


@pytest.mark.parametrize(
    ("command", "asked", "said"),
    [
        ("evaluate", [], "none is given"),
        ("evaluate", ["run=a", "ckpt=b"], "not run and ckpt together"),
        ("evaluate", ["run=nowhere"], "nowhere is no checkpoint and no folder"),
        ("evaluate", ["run=a", "which=newest"], "which takes best or last"),
        ("evaluate", ["run=a", "weights=all"], "weights takes raw or ema"),
        ("evaluate", ["run=a", "n=0"], "n=0 is out of range"),
        ("evaluate", ["images=none.npz", "data=digits"], "none.npz is no npz file"),
        ("evaluate", ["images=text.npz", "data=digits"], "text.npz is no npz file"),
        ("evaluate", ["images=floats.npz", "data=digits"], "they must be uint8"),
        ("evaluate", ["images=pickle.npz", "data=digits"], "pickle.npz is no npz file"),
        ("evaluate", ["images=half.npz", "data=digits"], "half.npz is no npz file"),
        ("evaluate", ["images=array.npy", "data=digits"], "array.npy is no npz file"),
        ("evaluate", ["images=first.npz", "data=digits"], "square, channels last: (N, 28, 28)"),
        ("evaluate", ["images=rgba.npz", "data=digits"], "square, channels last: (N, 28, 28)"),
        ("evaluate", ["images=wide.npz", "data=digits"], "square, channels last: (N, 28, 28)"),
        ("evaluate", ["images=shares.npz", "data=digits"], "values of 0 and 1 alone"),
        ("evaluate", ["images=grey.npz", "data=digits"], "3 generated images are too few for"),
        ("evaluate", ["images=grey.npz", "data=digits", "n=2"], "are measured all, leave n out"),
        ("evaluate", ["images=grey.npz", "data=digits", "metrics.n=ten"], "this takes a int"),
        ("evaluate", ["images=grey.npz", "data=digits", "metrics.n=-3"], "metrics.n=-3"),
        ("evaluate", ["images=grey.npz", "data=digits", "metrics=inception"], "torch-fidelity"),
        ("evaluate", ["run=a", "out=text.npz/x.json"], "out=text.npz/x.json cannot be written"),
        ("generate", ["run=a", "out=x.jpg"], "ends in .png (a picture) or .npz"),
        ("generate", ["run=a", "interpolate=8by10"], "such as interpolate=8x10"),
        ("generate", ["run=a", "interpolate=8x10", "n=9"], "so leave out n"),
        ("generate", ["run=a", "sed=1"], "Did you mean seed?"),
        ("generate", ["n=ten"], "n=ten: n takes a whole number of at least 1"),
    ],
)
def test_mistakes_are_sentences(
    command: str, asked: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.npz").write_text("no arrays")
    np.savez("floats.npz", images=np.zeros((3, 28, 28)))
    np.savez("pickle.npz", images=np.array([{}, {}], dtype=object))
    shapes = {"first": (9, 1, 28, 28), "rgba": (9, 28, 28, 4), "wide": (9, 20, 28)}
    for name, shape in {**shapes, "grey": (3, 28, 28)}.items():
        np.savez(f"{name}.npz", images=np.full(shape, 99, np.uint8))
    np.savez("shares.npz", images=np.eye(28, dtype=np.uint8)[None].repeat(9, 0))
    np.save("array.npy", np.zeros((9, 28, 28), np.uint8))
    Path("half.npz").write_bytes(Path("wide.npz").read_bytes()[:300])
    assert start(command, *asked) == 2
    answer = capsys.readouterr().err
    assert answer.startswith("ganmnist: ")
    assert answer.count("\n") == 1
    assert said in answer


def test_generate_draws_a_grid(trained: Path, here: Path) -> None:
    assert start("generate", f"run={trained}", "n=10") == 0
    with Image.open("digits.png") as picture:
        assert picture.size == (4 * 58 + 2, 3 * 58 + 2)


def test_generate_is_a_function_of_its_seed(trained: Path, here: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert start("generate", f"run={trained}", "n=20", f"seed={seed}", f"out={name}.npz") == 0
    a, b, c = (np.load(f"{name}.npz")["images"] for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_generate_walks(trained: Path, here: Path) -> None:
    assert start("generate", f"run={trained}", "interpolate=3x5", "out=walk.png") == 0
    with Image.open("walk.png") as picture:
        assert picture.size == (5 * 58 + 2, 3 * 58 + 2)


def test_walks_are_great_circles() -> None:
    start, end = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 4.0]])
    walks = interpolate(start, end, 3)
    half = 0.5**0.5
    expected = [[[1, 0], [half, half], [0, 1]], [[2, 0], [3 * half, 3 * half], [0, 4]]]
    torch.testing.assert_close(walks, torch.tensor(expected))


def test_walks_where_there_is_no_one_circle_are_straight() -> None:
    start, end = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [-2.0]])
    expected = [[[1.0], [2.0], [3.0]], [[2.0], [0.0], [-2.0]]]
    torch.testing.assert_close(interpolate(start, end, 3), torch.tensor(expected))


def test_a_device_that_is_not_there_is_a_sentence(
    trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("evaluate", "generate"):
        assert start(command, f"run={trained}", "device=warp") == 2
        assert "device=warp is not to be had here" in capsys.readouterr().err
