"""Plots of points in the plane, and whole runs with data=ring8."""

import csv
import json
import re
from importlib import import_module
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.config import configuration, settings_of
from helpers.gan import changed, snapshot
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from PIL import Image

from ganmnist.callbacks import PlaneSamples
from ganmnist.callbacks.plane import COLORS, SIDE, color_bands, scatter, surface
from ganmnist.data import Digits
from ganmnist.gan import GAN
from ganmnist.reporting import images
from ganmnist.train import train
from ganmnist.utils.batch import Batch
from ganmnist.utils.errors import UserError


def exit_code(command: str, *words: str) -> int:
    """Runs a command in this process."""
    GlobalHydra.instance().clear()
    try:
        import_module(f"ganmnist.{command}").main(words)
    except SystemExit as error:
        return int(error.code or 0)
    finally:
        GlobalHydra.instance().clear()
    return 0


# Plots


def build_gan(*overrides: str) -> GAN:
    torch.manual_seed(0)
    return instantiate(configuration("data=ring8", *overrides).family)


@pytest.mark.parametrize(
    ("overrides", "pack"),
    [(["objective=bce_logits"], 1), (["objective=hinge"], 1), (["stabilizer=pacgan"], 2)],
)
def test_surface_equals_the_output_of_d_at_each_place(overrides: list[str], pack: int) -> None:
    gan = build_gan(*overrides).eval()
    values = surface(gan, cells=30)
    assert values.shape == (30, 30)
    for row, column in ((0, 0), (0, 29), (29, 0), (12, 17)):
        x = torch.tensor([(column + 0.5) / 15 - 1, 1 - (row + 0.5) / 15])  # positive is upwards
        logit = gan.discriminator(Batch(x.expand(pack, 2)[..., None, None])).detach()[0]
        expected = logit if "objective=hinge" in overrides else logit.sigmoid()
        torch.testing.assert_close(values[row, column], expected)
    assert values.unique().numel() > 100


def test_surface_does_not_change_d() -> None:
    gan = build_gan("model.discriminator.dropout=0.5", "stabilizer=spectral_norm").train()
    before, state = snapshot(gan), torch.get_rng_state()
    values = surface(gan)
    assert all(module.training for module in gan.discriminator.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert changed(before, gan.state_dict()) == set()
    assert torch.equal(values, surface(gan.eval()))
    assert not gan.discriminator.training
    x = torch.rand(8, 2, 1, 1)
    gan.train()  # dropout and power iteration change the output from call to call
    assert not torch.equal(gan.discriminator(Batch(x)), gan.discriminator(Batch(x)))


def test_color_bands_and_dots() -> None:
    image = color_bands(torch.tensor([[0.0, 1.0]]).repeat(2, 1))
    assert image.size == (SIDE, SIDE)
    fake, real = (tuple(int(c) for c in COLORS[i]) for i in (0, -1))
    assert (image.getpixel((5, 100)), image.getpixel((SIDE - 5, 100))) == (fake, real)
    scatter(image, torch.tensor([0.5, 0.75])[None, :, None, None], "#000000")
    black = np.argwhere(np.asarray(image).sum(2) == 0)
    assert np.abs(black.mean(0) - (SIDE / 8, SIDE * 3 / 4)).max() <= 1  # row, column


def test_images_are_refused_as_points_and_points_as_images(tmp_path: Path) -> None:
    data = SimpleNamespace(shape=(1, 28, 28), dataset=Digits(tmp_path))
    with pytest.raises(UserError, match="callbacks=plane"):
        PlaneSamples(tmp_path, sample_every=1).on_train_start(
            SimpleNamespace(datamodule=data), gan=None
        )
    with pytest.raises(UserError, match="callbacks=plane"):
        images.grid(np.zeros((1, 1, 1, 2), np.uint8), 1)


# Runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs of three batches, which selects only the data."""
    folder = tmp_path_factory.mktemp("ring8")
    short = ("epochs=2", "trainer.limit_train_batches=3", "sample_every=2", "metrics.n=200")
    value = train(settings_of(f"folder={folder}", "data=ring8", "trainer=cpu", *short))
    summary = json.loads((folder / "summary.json").read_text())
    assert value == summary["value"]
    logged = summary["scalars"]["metrics/ring8_jsd"]
    assert logged == pytest.approx(value, rel=2**-23)  # loggers take float32
    return folder


def test_ring8_selects_its_model_metrics_and_callbacks() -> None:
    config = configuration("data=ring8")
    assert config.family.generator._target_ == "ganmnist.networks.mlp.Generator"
    assert (config.data.image_size, config.optimized_metric) == (1, "jsd")
    assert config.metrics._target_ == "ganmnist.metrics.PlaneEvaluator"
    assert config.callbacks.samples._target_ == "ganmnist.callbacks.PlaneSamples"
    config = configuration("data=ring8", "optimized_metric=modes", "callbacks=none")
    assert config.optimized_metric == "modes"
    assert configuration().optimized_metric == "val_fid"


def test_a_run_writes_plots_and_metrics(run: Path) -> None:
    sides = ("real", "fake")
    assert {path.name for path in (run / "samples").iterdir()} == {
        *("fake_000000.png", *(f"{side}_{n:06d}.png" for side in sides for n in (2, 4, 6))),
        *("epoch_001.png", "epoch_002.png"),
    }
    with Image.open(run / "progress.gif") as animation:
        assert (animation.size, animation.n_frames) == ((SIDE, SIDE + 22), 5)
    with Image.open(run / "epochs.png") as rows:
        assert rows.size == (84 + SIDE // 2, 2 * SIDE // 2 + 22)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    with (run / "metrics.csv").open(newline="") as file:
        epochs = [row for row in csv.DictReader(file) if row["metrics/ring8_modes"]]
    assert [row["epoch"] for row in epochs] == ["1", "2"]
    assert all(0 <= float(row["metrics/ring8_high_quality_ema"]) <= 1 for row in epochs)
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    names = {"modes", "high_quality", "jsd"}
    names |= {f"real_{name}" for name in names}
    assert metrics["final"]["raw"].keys() == {f"ring8_{name}" for name in names}
    assert metrics["protocol"] == {
        **{"data": "ring8", "image_size": 1, "n": 200, "val_n": 2500, "seed": 0, "classifier": None}
    }


def test_evaluate_measures_points_and_generate_refuses_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code("evaluate", f"run={run}", "which=last", "out=metrics.json") == 0
    metrics = json.loads(Path("metrics.json").read_text())["metrics"]
    assert metrics == json.loads((run / "summary.json").read_text())["metrics"]["final"]["raw"]
    capsys.readouterr()
    for out in ("x.png", "x.npz"):
        assert exit_code("generate", f"run={run}", f"out={out}") == 2
        message = capsys.readouterr().err
        assert "callbacks=plane" in message
        assert message.count("\n") == 1
        assert not Path(out).exists()


# Deliberate failures of training, and their cures: metrics of epochs 6 to the last


def late_values(folder: Path, metric: str) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    [column] = [name for name in rows[0] if re.fullmatch(rf"metrics/ring\d_{metric}", name)]
    return [float(row[column]) for row in rows if row[column]][5:]


OUTCOMES = {
    "teach_collapse": lambda folder: max(late_values(folder, "modes")) <= 2,
    "teach_collapse_cured": lambda folder: median(late_values(folder, "modes")) == 8,
    "teach_vanishing_gradient": lambda folder: max(late_values(folder, "high_quality")) == 0,
    "teach_vanishing_gradient_cured": lambda folder: min(late_values(folder, "high_quality")) > 0.9,
    "teach_oscillation": lambda folder: min(late_values(folder, "high_quality")) < 0.1,
    "teach_oscillation_cured": lambda folder: min(late_values(folder, "high_quality")) > 0.9,
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", OUTCOMES)
def test_a_deliberate_failure_fails_and_its_cure_works(experiment: str, tmp_path: Path) -> None:
    train(settings_of(f"folder={tmp_path}", f"experiment={experiment}", "trainer=cpu"))
    assert OUTCOMES[experiment](tmp_path)
