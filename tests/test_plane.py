"""Points in the plane: the data, their figures, their pictures, and what data=ring8 brings."""

import csv
import json
import math
import re
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import configuration, snapshot
from hydra.utils import instantiate
from PIL import Image
from test_tools import start
from torch import Tensor

from ganmnist import images
from ganmnist.callbacks import Plane
from ganmnist.callbacks.plane import COLOURS, SIDE, paint, scatter, surface
from ganmnist.data import DataModule, Digits, Grid, Mixture, Ring
from ganmnist.data.datamodule import Loader
from ganmnist.duel import Sample
from ganmnist.errors import UserError
from ganmnist.gan import GAN
from ganmnist.metrics import PlaneEvaluator, Recovered, Seen
from ganmnist.metrics.plane import Eye, recovered
from ganmnist.pixels import to_unit_range
from ganmnist.train import train

PAIR = Mixture([[-1.0, 0.0], [1.0, 0.5]], std=0.1, scale=0.5, n=2_000)

# The data


def test_eight_centres_are_on_a_circle_of_radius_2() -> None:
    data = Ring()
    a, b = data.centres.double().T
    torch.testing.assert_close(a.hypot(b).float(), torch.full((8,), 2.0))
    torch.testing.assert_close(data.centres[0], torch.tensor([2.0, 0.0]))
    steps = torch.atan2(b, a).sort().values.diff().float()
    torch.testing.assert_close(steps, torch.full((7,), math.pi / 4))
    assert (data.name, data.std) == ("ring8", 0.02)


def test_25_centres_are_on_a_grid_from_minus_4_to_4() -> None:
    data = Grid()
    places = (-4.0, -2.0, 0.0, 2.0, 4.0)
    assert {*map(tuple, data.centres.tolist())} == {(a, b) for a in places for b in places}
    assert (data.name, len(data.centres), data.std) == ("grid25", 25, 0.05)


@pytest.mark.parametrize("data", [Ring(), Grid(), PAIR], ids=lambda data: data.name)
def test_points_are_round_gaussians_around_the_centres_of_their_labels(data: Mixture) -> None:
    for part, n in zip(data.load(), (data.n, 10_000), strict=True):
        assert (part.x.shape, part.x.dtype) == ((n, 2, 1, 1), torch.float32)
        assert part.x.abs().max() <= 1
        noise = part.x.flatten(1).double() / data.scale - data.centres[part.y]
        assert (noise.std(0) - data.std).abs().max() < 5 * data.std / math.sqrt(2 * n)  # 5 errors
        assert noise.mean(0).abs().max() < 5 * data.std / math.sqrt(n)
        assert abs(noise.T.corrcoef()[0, 1]) < 5 / math.sqrt(n)
        share = 1 / len(data.centres)
        counts = part.y.bincount(minlength=len(data.centres))
        assert (counts / n - share).abs().max() < 5 * math.sqrt(share / n)


def test_the_same_points_come_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    data, again, other = Ring(), Ring(), Ring(std=0.03)
    for each in (data, again, other):
        each.prepare()
    (train, test), (train_again, test_again) = data.load(), again.load()
    assert torch.equal(train.x, train_again.x)
    assert torch.equal(test.y, test_again.y)
    assert not torch.equal(train.x[:10_000], test.x)
    other.load()
    assert data.checksum == again.checksum != other.checksum
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []


def test_points_that_no_image_can_be_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.channels=3: a point has 2 coordinates"):
        Ring(channels=3)
    with pytest.raises(UserError, match=r"data\.scale=0\.5 leaves points of ring8 outside"):
        Ring(scale=0.5).load()


def test_points_are_served_as_they_are_and_bytes_are_scaled() -> None:
    data = DataModule(Ring(n=64), batch_size=8, image_size=1)
    data.prepare_data()
    data.setup()
    assert data.shape == (2, 1, 1)
    loader = Loader(data.train, 8, seed=0, clock=lambda: (0, 0, 0), image_size=1)
    x, y = (torch.cat(parts) for parts in zip(*((s.x, s.y) for [s] in loader), strict=True))
    pairs = [{(*a, b) for a, b in zip(points.flatten(1).tolist(), labels.tolist(), strict=True)}
             for points, labels in ((x, y), data.train)]  # fmt: skip
    assert pairs[0] == pairs[1]
    assert len(pairs[0]) == 64
    assert to_unit_range(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


# The figures


def seen(points: list[tuple[float, float]] | Tensor, data: Mixture) -> Seen:
    return Eye(data)(data.scale * torch.as_tensor(points, dtype=torch.float64)[..., None, None])


def test_points_are_seen_as_they_are() -> None:
    look = seen([(1.0, 0.5), (-1.0, 0.2)], PAIR)
    torch.testing.assert_close(look.features, torch.tensor([[1.0, 0.5], [-1.0, 0.2]]).double())
    assert look.classes.tolist() == [[1], [0]]
    assert look.logits[1, 0, 0].item() == pytest.approx(-2)  # two standard deviations
    assert look.logits[0, 0, 1].item() == pytest.approx(0)


ONE_MODE = (math.log(16 / 9) + math.log(2 / 9) / 8 + 7 * math.log(2) / 8) / 2


@pytest.mark.parametrize(
    ("points", "modes", "high_quality", "jsd"),
    [
        (Ring().centres, 8, 1, 0),
        (Ring().centres[[3]].repeat(5, 1), 1, 1, ONE_MODE),
        (torch.zeros(4, 2), 0, 0, math.log(2)),
        (torch.cat([Ring().centres[:4], torch.zeros(4, 2)]), 4, 0.5, None),
        (torch.tensor([[2 + 2.99 * 0.02, 0.0]]), 1, 1, None),
        (torch.tensor([[2 + 3.01 * 0.02, 0.0]]), 0, 0, None),
        (torch.tensor([[2.0, 0.0]]) + 2.2 * 0.02, 0, 0, None),  # a circle, not a square
    ],
)
def test_modes_and_quality_are_counted(
    points: Tensor, modes: int, high_quality: float, jsd: float | None
) -> None:
    found = recovered(seen(points, Ring()))
    assert (found["modes"], found["high_quality"]) == (modes, high_quality)
    if jsd is not None:
        assert found["jsd"] == pytest.approx(jsd, abs=1e-12)


@pytest.mark.parametrize("data", [Ring(), Grid()], ids=lambda data: data.name)
def test_real_points_have_all_modes_and_the_quality_of_gaussians(data: Mixture) -> None:
    test = data.load()[1]
    found = recovered(Eye(data)(test.x))
    share = 1 - math.exp(-(3**2) / 2)
    assert found["modes"] == len(data.centres)
    error = math.sqrt(share * (1 - share) / len(test.x))
    assert abs(found["high_quality"] - share) < 5 * error
    assert 0 < found["jsd"] < 1 - share


def test_the_table_has_real_points_beside_generated_ones() -> None:
    real = SimpleNamespace(test=seen(PAIR.centres, PAIR))
    table = Recovered()(seen(PAIR.centres[[0]], PAIR), real)
    assert (table["modes"], table["real_modes"]) == (1, 2)
    assert (table["high_quality"], table["real_high_quality"], table["real_jsd"]) == (1, 1, 0)


def test_points_are_for_data_that_are_points(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="metrics=plane counts the modes of points, and digits"):
        PlaneEvaluator({}).eye_for(Digits(tmp_path), "cpu")
    trainer = SimpleNamespace(
        datamodule=SimpleNamespace(shape=(1, 28, 28), dataset=Digits(tmp_path))
    )
    with pytest.raises(UserError, match="callbacks=plane draws points, and digits are images"):
        Plane(tmp_path, every=1).on_train_start(trainer, gan=None)
    with pytest.raises(UserError, match="2 channels are no picture"):
        images.grid(np.zeros((1, 1, 1, 2), np.uint8), 1)


# The pictures


def built(*overrides: str) -> GAN:
    torch.manual_seed(0)
    return instantiate(configuration("data=ring8", *overrides).gan)


@pytest.mark.parametrize(
    ("overrides", "pack"),
    [(["objective=bce_logits"], 1), (["objective=hinge"], 1), (["stabilizer=pacgan"], 2)],
)
def test_the_surface_is_what_d_says_of_every_place(overrides: list[str], pack: int) -> None:
    gan = built(*overrides).eval()
    values = surface(gan, cells=30)
    assert values.shape == (30, 30)
    for row, column in ((0, 0), (0, 29), (29, 0), (12, 17)):
        x = torch.tensor([(column + 0.5) / 15 - 1, 1 - (row + 0.5) / 15])  # up is positive
        logit = gan.discriminator(Sample(x.expand(pack, 2)[..., None, None])).detach()[0]
        expected = logit if "objective=hinge" in overrides else logit.sigmoid()
        torch.testing.assert_close(values[row, column], expected)
    assert values.unique().numel() > 100


def test_looking_leaves_d_as_it_was() -> None:
    gan = built("model.discriminator.dropout=0.5", "stabilizer=spectral_norm").train()
    before, state = snapshot(gan), torch.get_rng_state()
    values = surface(gan)
    assert all(module.training for module in gan.discriminator.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())
    assert torch.equal(values, surface(gan.eval()))
    assert not gan.discriminator.training
    x = torch.rand(8, 2, 1, 1)
    gan.train()  # where dropout answers otherwise every time, and power iteration moves on
    assert not torch.equal(gan.discriminator(Sample(x)), gan.discriminator(Sample(x)))


def test_a_picture_has_its_places_and_colours() -> None:
    picture = paint(torch.tensor([[0.0, 1.0]]).repeat(2, 1))
    assert picture.size == (SIDE, SIDE)
    fake, real = (tuple(int(c) for c in COLOURS[i]) for i in (0, -1))
    assert (picture.getpixel((5, 100)), picture.getpixel((SIDE - 5, 100))) == (fake, real)
    scatter(picture, torch.tensor([0.5, 0.75])[None, :, None, None], "#000000")
    dark = np.argwhere(np.asarray(picture).sum(2) == 0)
    assert np.abs(dark.mean(0) - (SIDE / 8, SIDE * 3 / 4)).max() <= 1  # row, column


# The run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of three batches, with nothing said but the data."""
    folder = tmp_path_factory.mktemp("ring8")
    few = ("epochs=2", "trainer.limit_train_batches=3", "every=2", "metrics.n=200")
    value = train(configuration(f"folder={folder}", "data=ring8", "trainer=cpu", *few))
    summary = json.loads((folder / "summary.json").read_text())
    assert value == summary["value"]
    logged = summary["scalars"]["metrics/ring8_jsd"]
    assert logged == pytest.approx(value, rel=2**-23)  # loggers take float32
    return folder


def test_ring8_brings_its_model_metrics_and_callbacks() -> None:
    config = configuration("data=ring8")
    assert config.gan.generator._target_ == "ganmnist.networks.mlp.Generator"
    assert (config.datamodule.image_size, config.metric) == (1, "jsd")
    assert config.metrics._target_ == "ganmnist.metrics.PlaneEvaluator"
    assert config.callbacks.samples._target_ == "ganmnist.callbacks.Plane"
    assert configuration("data=ring8", "metric=modes", "callbacks=none").metric == "modes"
    assert configuration().metric == "val_fid"


def test_the_run_leaves_pictures_and_figures(run: Path) -> None:
    kinds = ("real", "fake")
    pictures = {path.name for path in (run / "samples").iterdir()}
    assert pictures == {
        *("fake_000000.png", *(f"{kind}_{n:06d}.png" for kind in kinds for n in (2, 4, 6))),
        *("epoch_001.png", "epoch_002.png"),
    }
    with Image.open(run / "progress.gif") as film:
        assert (film.size, film.n_frames) == ((SIDE, SIDE + 22), 5)
    with Image.open(run / "epochs.png") as rows:
        assert rows.size == (84 + SIDE // 2, 2 * SIDE // 2 + 22)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    with (run / "metrics.csv").open(newline="") as file:
        epochs = [row for row in csv.DictReader(file) if row["metrics/ring8_modes"]]
    assert [row["epoch"] for row in epochs] == ["1", "2"]
    assert all(0 <= float(row["metrics/ring8_high_quality_ema"]) <= 1 for row in epochs)
    figures = json.loads((run / "summary.json").read_text())["metrics"]
    names = {"modes", "high_quality", "jsd"}
    names |= {f"real_{name}" for name in names}
    assert figures["final"]["raw"].keys() == {f"ring8_{name}" for name in names}
    assert figures["protocol"] == {
        **{"data": "ring8", "image_size": 1, "n": 200, "val_n": 2500, "seed": 0, "classifier": None}
    }


def test_tools_measure_a_run_of_points_and_refuse_to_draw_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert start("evaluate", f"run={run}", "which=last", "out=figures.json") == 0
    found = json.loads(Path("figures.json").read_text())["metrics"]
    assert found == json.loads((run / "summary.json").read_text())["metrics"]["final"]["raw"]
    capsys.readouterr()
    for out in ("x.png", "x.npz"):
        assert start("generate", f"run={run}", f"out={out}") == 2
        answer = capsys.readouterr().err
        assert answer.startswith("ganmnist: 2 channels are no picture")
        assert answer.count("\n") == 1
        assert not Path(out).exists()


# The games that fail, and their cures: the figures of epochs 6 to the last


def later(folder: Path, figure: str) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    [column] = [name for name in rows[0] if re.fullmatch(rf"metrics/ring\d_{figure}", name)]
    return [float(row[column]) for row in rows if row[column]][5:]


VERDICTS = {
    "teach_collapse": lambda folder: max(later(folder, "modes")) <= 2,
    "teach_collapse_cured": lambda folder: median(later(folder, "modes")) == 8,
    "teach_vanishing_gradient": lambda folder: max(later(folder, "high_quality")) == 0,
    "teach_vanishing_gradient_cured": lambda folder: min(later(folder, "high_quality")) > 0.9,
    "teach_oscillation": lambda folder: min(later(folder, "high_quality")) < 0.1,
    "teach_oscillation_cured": lambda folder: min(later(folder, "high_quality")) > 0.9,
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", VERDICTS)
def test_what_fails_on_purpose_fails_and_its_cure_does_not(experiment: str, tmp_path: Path) -> None:
    train(configuration(f"folder={tmp_path}", f"experiment={experiment}", "trainer=cpu"))
    assert VERDICTS[experiment](tmp_path)
