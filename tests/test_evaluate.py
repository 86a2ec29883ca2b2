"""ganmnist evaluate and ganmnist generate: metrics and images of a run."""

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
from ganmnist.networks.latents import interpolate


@pytest.fixture
def here(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(command: str, *arguments: object) -> int:
    """Runs the command in this process and returns its exit code."""
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
    assert list(here.iterdir()) == []  # no other files


def test_keys_name_other_data_than_mnist(trained: Path, here: Path) -> None:
    words = ("metrics=default", "n=50", "out=metrics.json")
    assert start("evaluate", f"run={trained}", *words) == 0
    names = {"fid", "fid_floor", "kid", "is", "precision", "recall", "density", "coverage"}
    names |= {"class_kl", "memorization"}
    assert read(here / "metrics.json")["metrics"].keys() == {f"digits_{name}" for name in names}


def test_single_settings_of_the_run_can_be_changed(
    trained: Path, here: Path, digits_root: Path, tmp_path: Path
) -> None:
    """`data.x=y` keeps the other settings of the run. A missing data.root is replaced."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(digits_root, elsewhere)
    for word in (f"data.root={elsewhere}", "metrics.seed=5"):
        assert start("evaluate", f"run={trained}", word, "out=changed.json") == 0
        found = read(here / "changed.json")
        saved = read(trained / "summary.json")["metrics"]
        assert found["data"] == "digits"
        assert found["metrics"].keys() == saved["final"]["raw"].keys()
        assert (found["metrics"] == saved["best"]["raw"]) == word.startswith("data")
    checkpoint = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["data"]["root"] = "/of/another/machine"
    torch.save(checkpoint, "moved.ckpt")
    assert start("evaluate", "ckpt=moved.ckpt", "out=moved.json") == 0
    assert read(here / "moved.json")["data"] == "digits"
    assert read(here / "moved.json")["checkpoint"] == "moved.ckpt"


def test_fid_floor_uses_as_many_images(trained: Path, here: Path, digits_root: Path) -> None:
    real = Digits(digits_root).load()[0].x[:, 0].numpy()
    floors = []
    for n in (60, 120):
        np.savez("real.npz", images=real[:n])
        assert start("evaluate", "images=real.npz", "data=digits", "out=real.json") == 0
        found = read(here / "real.json")
        assert found["n"] == n
        floors.append(found["metrics"]["digits_fid_floor"])
    assert floors[0] > floors[1]  # fewer images have a larger distance to the test images


def test_images_of_a_file_are_measured_like_a_run(trained: Path, here: Path) -> None:
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
    ("command", "words", "part"),
    [
        ("evaluate", [], "run=..."),
        ("evaluate", ["run=a", "ckpt=b"], "run and ckpt"),
        ("evaluate", ["run=nowhere"], "nowhere"),
        ("evaluate", ["run=a", "which=newest"], "which=newest"),
        ("evaluate", ["run=a", "weights=all"], "weights=all"),
        ("evaluate", ["run=a", "n=0"], "n=0"),
        ("evaluate", ["images=none.npz", "data=digits"], "none.npz"),
        ("evaluate", ["images=text.npz", "data=digits"], "text.npz"),
        ("evaluate", ["images=floats.npz", "data=digits"], "float64"),
        ("evaluate", ["images=pickle.npz", "data=digits"], "pickle.npz"),
        ("evaluate", ["images=half.npz", "data=digits"], "half.npz"),
        ("evaluate", ["images=array.npy", "data=digits"], "array.npy"),
        ("evaluate", ["images=first.npz", "data=digits"], "(N, 28, 28)"),
        ("evaluate", ["images=rgba.npz", "data=digits"], "(N, 28, 28)"),
        ("evaluate", ["images=wide.npz", "data=digits"], "(N, 28, 28)"),
        ("evaluate", ["images=binary.npz", "data=digits"], "0 and 1"),
        ("evaluate", ["images=gray.npz", "data=digits"], "n=3"),
        ("evaluate", ["images=gray.npz", "data=digits", "n=2"], "n=2"),
        ("evaluate", ["images=gray.npz", "data=digits", "metrics.n=ten"], "metrics.n=ten"),
        ("evaluate", ["images=gray.npz", "data=digits", "metrics.n=-3"], "metrics.n=-3"),
        ("evaluate", ["images=gray.npz", "data=digits", "metrics=inception"], "torch-fidelity"),
        ("evaluate", ["run=a", "out=text.npz/x.json"], "out=text.npz/x.json"),
        ("generate", ["run=a", "out=x.jpg"], "out=x.jpg"),
        ("generate", ["run=a", "interpolate=8by10"], "interpolate=8by10"),
        ("generate", ["run=a", "interpolate=8x10", "n=9"], "n=9"),
        ("generate", ["run=a", "sed=1"], "Did you mean seed=1?"),
        ("generate", ["n=ten"], "n=ten"),
    ],
)
def test_mistake_gives_one_sentence(
    command: str, words: list[str], part: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.npz").write_text("no arrays")
    np.savez("floats.npz", images=np.zeros((3, 28, 28)))
    np.savez("pickle.npz", images=np.array([{}, {}], dtype=object))
    shapes = {"first": (9, 1, 28, 28), "rgba": (9, 28, 28, 4), "wide": (9, 20, 28)}
    for name, shape in {**shapes, "gray": (3, 28, 28)}.items():
        np.savez(f"{name}.npz", images=np.full(shape, 99, np.uint8))
    np.savez("binary.npz", images=np.eye(28, dtype=np.uint8)[None].repeat(9, 0))
    np.save("array.npy", np.zeros((9, 28, 28), np.uint8))
    Path("half.npz").write_bytes(Path("wide.npz").read_bytes()[:300])
    assert start(command, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("ganmnist: ")
    assert error.count("\n") == 1
    assert part in error


def test_generate_writes_a_grid(trained: Path, here: Path) -> None:
    assert start("generate", f"run={trained}", "n=10") == 0
    with Image.open("digits.png") as image:
        assert image.size == (4 * 58 + 2, 3 * 58 + 2)


def test_generate_depends_on_the_seed_alone(trained: Path, here: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert start("generate", f"run={trained}", "n=20", f"seed={seed}", f"out={name}.npz") == 0
    a, b, c = (np.load(f"{name}.npz")["images"] for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_generate_interpolates(trained: Path, here: Path) -> None:
    assert start("generate", f"run={trained}", "interpolate=3x5", "out=rows.png") == 0
    with Image.open("rows.png") as image:
        assert image.size == (5 * 58 + 2, 3 * 58 + 2)


def test_interpolation_follows_great_circles() -> None:
    start, end = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 4.0]])
    latents = interpolate(start, end, 3)
    half = 0.5**0.5
    expected = [[[1, 0], [half, half], [0, 1]], [[2, 0], [3 * half, 3 * half], [0, 4]]]
    torch.testing.assert_close(latents, torch.tensor(expected))


def test_interpolation_between_collinear_latents_is_straight() -> None:
    start, end = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [-2.0]])
    expected = [[[1.0], [2.0], [3.0]], [[2.0], [0.0], [-2.0]]]
    torch.testing.assert_close(interpolate(start, end, 3), torch.tensor(expected))


def test_missing_device_is_refused(
    trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("evaluate", "generate"):
        assert start(command, f"run={trained}", "device=warp") == 2
        assert "device=warp" in capsys.readouterr().err
