"""A run from the command line to the last file of its folder, and what ends one before its time."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from conftest import configuration
from launch import BRIEF, BRIEFLY_MEASURED, launch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from ganmnist.data import Digits
from ganmnist.duel import Duel, Player
from ganmnist.environment import cpu_model, describe
from ganmnist.files import whole, write_json
from ganmnist.gan import GAN
from ganmnist.metrics import PRDC
from ganmnist.paths import claim, create, held, slug
from ganmnist.train import build, find_scalar, train

SMALL = (
    *("data=digits", "trainer=cpu", "batch_size=16"),
    *("model.generator.widths=[16,8,8]", "model.discriminator.widths=[8,8]"),
)
# Two epochs of 7 batches, pictures at 3, 6, 9 and 12, scalars to TensorBoard at every even one too.
BATCHES = range(1, 15)
FEW = (
    *SMALL,
    *BRIEFLY_MEASURED,
    "epochs=2",
    "trainer.limit_train_batches=7",
    "every=3",
    "log_every=2",
)
WINDOWS = [2, 3, 4, 6, 7, 8, 9, 10, 12, 14]
EPOCH_ENDS = [7, 14]


# 8x8 images of 28 pixels at twice their size, 2 pixels apart, under a line of text of 22.
SIDE = 8 * (2 * 28 + 2) + 2
GRID = (SIDE, SIDE + 22)
BATCH = (SIDE, 2 * (2 * 28 + 2) + 2 + 22)  # its 16 images, 8 in a row


Start = Callable[..., None]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def start(runs: Path, digits_root: Path) -> Start:
    """Runs the command in this process, into a folder of `runs`."""

    def run(name: str, *overrides: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GANMNIST_DATA", str(digits_root))
            launch(*FEW, *overrides, f"hydra.run.dir={runs / name}")

    return run


@pytest.fixture(scope="module")
def run(start: Start, runs: Path) -> Path:
    start("first")
    return runs / "first"


@pytest.fixture(scope="module")
def events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()


@pytest.fixture(scope="module")
def checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def rows(run: Path) -> list[dict[str, float]]:
    """metrics.csv, without the cells that are empty."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_the_folder_is_complete_and_holds_nothing_else(run: Path) -> None:
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    board = {name for name in files if name.startswith("tensorboard/events.out.tfevents.")}
    assert board
    assert files - board == {
        *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")),
        *("train.log", "env.json", "metrics.csv", "summary.json", "losses.png"),
        *("progress.gif", "epochs.png", "report.html", "tensorboard/hparams.yaml"),
        *("checkpoints/last.ckpt", "checkpoints/best.ckpt", "samples/neighbours.png"),
        *(f"samples/{kind}_{n:06d}.png" for kind in ("real", "fake") for n in (3, 6, 9, 12)),
        *(f"samples/epoch_{n:03d}.png" for n in (1, 2)),
        "samples/fake_000000.png",
    }


def test_metrics_have_one_row_a_batch(run: Path) -> None:
    assert [row["step"] for row in rows(run)] == [*BATCHES]
    parts = {"d/loss", "d/real", "d/fake", "d/real_prob", "d/fake_prob", "g/loss", "g/fake_prob"}
    for row in rows(run):
        ends_epoch = row["step"] in EPOCH_ENDS
        per_epoch = {f"epoch/{part}" for part in parts} | {"epoch", "epoch/d/advantage"}
        measured = {name for name in row if name.startswith(("metrics/", "final/", "best/"))}
        assert bool(measured) is ends_epoch
        found = row.keys() - {"train/images_per_s"} - measured
        assert found == {"step", *(f"train/{p}" for p in parts)} | (
            per_epoch if ends_epoch else set()
        )
        assert row["train/d/loss"] == pytest.approx(row["train/d/real"] + row["train/d/fake"])
    assert [row["step"] for row in rows(run) if "train/images_per_s" in row] == WINDOWS


def test_epochs_are_means_of_their_batches(run: Path) -> None:
    table = rows(run)
    for epoch, batches in ((1, table[:7]), (2, table[7:])):
        end = batches[-1]
        assert end["epoch"] == epoch
        for name in ("d/loss", "d/real_prob", "d/fake_prob", "g/loss"):
            assert end[f"epoch/{name}"] == pytest.approx(fmean(b[f"train/{name}"] for b in batches))
        advantage = end["epoch/d/real_prob"] - end["epoch/d/fake_prob"]
        assert end["epoch/d/advantage"] == pytest.approx(advantage)


def test_tensorboard_counts_the_batches_seen(run: Path, events: EventAccumulator) -> None:
    table = rows(run)
    for name in ("train/d/loss", "train/g/loss", "train/d/real_prob", "train/d/fake_prob"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == WINDOWS
        windows = zip([0, *WINDOWS[:-1]], WINDOWS, strict=True)
        means = [fmean(row[name] for row in table[a:b]) for a, b in windows]
        assert [scalar.value for scalar in scalars] == pytest.approx(means)
    assert [scalar.step for scalar in events.Scalars("train/images_per_s")] == WINDOWS
    assert [scalar.step for scalar in events.Scalars("epoch/g/loss")] == EPOCH_ENDS


def test_tensorboard_draws_both_players_into_one_chart(events: EventAccumulator) -> None:
    [layout] = events.Tensors("custom_scalars__config__")
    [category] = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0]).category
    charts = [[tag.strip("^$") for tag in chart.multiline.tag] for chart in category.chart]
    assert ["train/d/loss", "train/g/loss"] in charts
    assert ["train/d/real_(prob|logit)", "train/d/fake_(prob|logit)"] in charts
    shown = events.Tags()["scalars"]
    for tag in (tag for chart in charts for tag in chart):
        assert any(re.match(tag, name) for name in shown), tag


def test_tensorboard_shows_pictures_and_the_film(run: Path, events: EventAccumulator) -> None:
    for tag, size in (("samples/generated", GRID), ("samples/real", BATCH)):
        pictures = events.Images(tag)
        assert [picture.step for picture in pictures] == EPOCH_ENDS
        assert {(picture.width, picture.height) for picture in pictures} == {size}
    [film] = events.Images("samples/progress")
    assert film.step == 14
    assert film.encoded_image_string == (run / "progress.gif").read_bytes()


def test_tensorboard_has_settings_next_to_results(run: Path, events: EventAccumulator) -> None:
    contents = events.PluginTagToContent("hparams")
    start = plugin_data_pb2.HParamsPluginData.FromString(
        contents["_hparams_/session_start_info"]
    ).session_start_info
    assert start.hparams["lr"].number_value == 2e-4
    assert start.hparams["batch_size"].number_value == 16
    assert start.hparams["data"].string_value == "digits"
    [final] = events.Scalars("final/g/loss")
    assert final.step == 14
    assert final.value == pytest.approx(rows(run)[-1]["epoch/g/loss"])


def test_pictures_are_pictures(run: Path) -> None:
    for path in (run / "samples").glob("*_*.png"):
        with Image.open(path) as picture:
            picture.load()
            assert picture.size == (BATCH if path.name.startswith("real") else GRID)
    with Image.open(run / "progress.gif") as film:
        assert film.size == GRID
        assert film.n_frames == 7  # untrained, four intervals, two epochs
    with Image.open(run / "epochs.png") as epochs:
        epochs.load()
        assert epochs.size == (84 + SIDE, 2 * (2 * 28 + 2 * 2) + 22)  # labels, a row an epoch
    with Image.open(run / "losses.png") as losses:
        losses.load()
        assert losses.size == (900, 700)


def test_summary_says_what_came_of_the_run(run: Path) -> None:
    summary = read(run / "summary.json")
    last = rows(run)[-1]
    assert (summary["status"], summary["error"], summary["data"]) == ("finished", "", "digits")
    assert (summary["epochs"], summary["batches_seen"], summary["images_seen"]) == (2, 14, 14 * 16)
    assert summary["metric"] == "val_fid"
    assert summary["value"] == pytest.approx(last["metrics/digits_val_fid"])
    assert summary["settings"]["batch_size"] == 16
    for name in ("epoch/d/loss", "epoch/g/loss"):
        assert summary["scalars"][name] == pytest.approx(last[name])


def test_summary_has_the_figures_of_the_last_and_the_best(run: Path) -> None:
    figures = read(run / "summary.json")["metrics"]
    last = rows(run)[-1]
    protocol = figures["protocol"]
    assert (protocol["data"], protocol["n"], protocol["val_n"]) == ("digits", 100, 100)
    assert figures["final"]["epoch"] == 2
    measured = {row["epoch"]: row["metrics/digits_val_fid"] for row in rows(run) if "epoch" in row}
    best = min(measured, key=measured.get)
    assert figures["best"]["epoch"] == best
    assert figures["best"]["digits_val_fid"] == pytest.approx(measured[best])
    for which in ("final", "best"):
        for weights in ("raw", "ema"):
            assert figures[which][weights].keys() == figures["final"]["raw"].keys()
    assert last["final/digits_fid"] == pytest.approx(figures["final"]["raw"]["digits_fid"])
    assert last["final/digits_fid_ema"] == pytest.approx(figures["final"]["ema"]["digits_fid"])
    assert figures["val_fid_floor"] < figures["final"]["raw"]["digits_fid"]
    for histogram in figures["class_histogram"].values():
        assert sum(histogram) == pytest.approx(1)


def test_training_ends_once_it_is_good_enough(start: Start, runs: Path) -> None:
    start("enough", "epochs=5", "callbacks.evaluation.target=1e6")
    summary = read(runs / "enough/summary.json")
    assert (summary["status"], summary["epochs"]) == ("finished", 1)
    assert summary["metrics"]["final"]["epoch"] == 1
    assert [path.name for path in (runs / "enough/samples").glob("epoch_*")] == ["epoch_001.png"]
    start("enough", f"resume={runs / 'enough'}", "epochs=5", "callbacks.evaluation.target=0")
    assert read(runs / "enough/summary.json")["epochs"] == 5


def test_env_names_the_data_that_were_used(run: Path, digits_root: Path) -> None:
    environment = read(run / "env.json")
    digits = Digits(digits_root)
    digits.load()
    assert environment["data"] == {"name": "digits", "checksum": digits.checksum}
    assert environment["device"] == {"type": "cpu", "name": cpu_model()}
    assert environment["cpus"] == [cpu_model()]
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert {"git", "ganmnist", "python", "command"} <= environment.keys()


def test_cpu_model_is_read_from_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Fast(R)  CPU @ 2.50GHz\n")
    assert cpu_model(cpuinfo) == "Fast(R) CPU @ 2.50GHz"
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(sys, "platform", "linux")
    cpuinfo.write_text("processor\t: 0\nmodel name\t:\nBogoMIPS\t: 50.00\n")
    assert cpu_model(cpuinfo) == "arm64"
    assert cpu_model(tmp_path / "missing") == "arm64"


@pytest.mark.parametrize(
    ("earlier", "cpus"),
    [
        ('{"cpus": ["old"]}', ["old", "new"]),
        ('{"cpus": ["new", "old"]}', ["new", "old"]),
        ('{"cpus": null}', ["new"]),
        ("{}", ["new"]),
        ("damaged", ["new"]),
    ],
)
def test_a_resumed_run_lists_all_its_cpus(
    earlier: str, cpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganmnist.environment.cpu_model", lambda: "new")
    (tmp_path / "env.json").write_text(earlier)
    file = tmp_path / "env.json"
    assert describe(torch.device("cpu"), "mnist", "0", file)["cpus"] == cpus
    assert describe(torch.device("cpu"), "mnist", "0")["cpus"] == ["new"]


def test_resume_keeps_the_cpus_in_env(start: Start, runs: Path) -> None:
    start("moved", "epochs=1")
    file = runs / "moved/env.json"
    write_json(file, read(file) | {"cpus": ["old"]})
    start("moved", f"resume={runs / 'moved'}", "epochs=2")
    assert read(file)["cpus"] == ["old", cpu_model()]


def test_log_has_a_line_an_interval(run: Path) -> None:
    lines = (run / "train.log").read_text().splitlines()
    every = (3, 6, 9, 12)
    assert [n for n in every if any(f"batch {n}/14 " in line for line in lines)] == [*every]
    assert "digits, 3,000 training images" in lines[0]
    assert str(run) in lines[0]


def test_checkpoint_is_whole_and_plain(run: Path, checkpoint: dict[str, Any]) -> None:
    assert (checkpoint["batches_seen"], checkpoint["epoch"]) == (14, 1)
    assert len(checkpoint["optimizer_states"]) == 2
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {
        "generator",
        "discriminator",
        "ema",
    }
    settings = checkpoint["hyper_parameters"]
    assert (settings["epochs"], settings["batch_size"]) == (2, 16)
    assert json.loads(json.dumps(settings)) == settings
    steps = {
        state["step"].item()
        for optimizer in checkpoint["optimizer_states"]
        for state in optimizer["state"].values()
    }
    assert steps == {14}


def test_a_seed_is_a_run_bit_for_bit(
    runs: Path, run: Path, checkpoint: dict[str, Any], start: Start
) -> None:
    start("same")
    start("other", "seed=1")
    same, other = runs / "same", runs / "other"

    def losses(folder: Path) -> list[tuple[float, float]]:
        return [(row["train/d/loss"], row["train/g/loss"]) for row in rows(folder)]

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]

    assert losses(same) == losses(run)
    for name, value in weights(same).items():
        assert torch.equal(value, checkpoint["state_dict"][name]), name
    assert not set(losses(other)) & set(losses(run))
    name = "generator.blocks.0.weight"
    assert not torch.equal(weights(other)[name], checkpoint["state_dict"][name])


def test_intervals_are_independent(runs: Path, start: Start) -> None:
    start("rare", "every=2", "log_every=50", "epochs=1")
    folder = runs / "rare"
    names = {path.name for path in (folder / "samples").iterdir()}
    assert {"fake_000002.png", "fake_000004.png", "fake_000006.png", "epoch_001.png"} <= names
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4, 5, 6, 7]


FAMILIES = """
import torch
from ganmnist.gan import GAN
from ganmnist.networks.mlp import Generator


class Labelled(Generator):
    def forward(self, z, y):
        return super().forward(z + y[:, None])


class Critic(GAN):
    def prior(self, n, rng=None):
        return super().prior(n, rng)[0], torch.arange(n) % 10

    def update(self, player, duels):
        if player == "d" or self.batches_seen % 3 == 0:
            super().update(player, duels)
"""


def test_a_family_of_ones_own_is_watched_like_any_other(
    runs: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conditional, and G answers every third batch only: no line and no picture minds."""
    (tmp_path / "families.py").write_text(FAMILIES)
    monkeypatch.syspath_prepend(tmp_path)
    model = ("model=mlp", "model.generator.widths=[16]", "model.discriminator.widths=[16]")
    own = ("gan._target_=families.Critic", "model.generator._target_=families.Labelled")
    start("family", *model, *own, "every=2", "log_every=1")
    folder = runs / "family"
    assert [row["step"] for row in rows(folder) if row.get("train/g/loss")] == [3, 6, 9, 12]
    assert {"losses.png", "progress.gif"} <= {path.name for path in folder.iterdir()}


# Ends before their time.


def fail_within_batch_5(error: BaseException, patch: pytest.MonkeyPatch) -> None:
    """In between the two updates, the worst moment."""
    update = GAN.update

    def fails(gan: GAN, player: Player, duel: Duel) -> None:
        if gan.batches_seen == 5 and player == "g":
            raise error
        update(gan, player, duel)

    patch.setattr(GAN, "update", fails)


def test_a_failure_leaves_what_there_was(
    runs: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_within_batch_5(RuntimeError("spilled"), monkeypatch)
    with pytest.raises(RuntimeError, match="spilled"):
        start("broken")
    folder = runs / "broken"
    summary = read(folder / "summary.json")
    assert (summary["status"], summary["error"]) == ("failed", "RuntimeError: spilled")
    assert (summary["data"], summary["batches_seen"]) == ("digits", 5)
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4, 5]
    for name in ("env.json", "losses.png", "progress.gif", "samples/fake_000003.png"):
        assert (folder / name).is_file()
    assert not (folder / "checkpoints/last.ckpt").exists()


def test_a_failure_within_the_first_batch_is_told_as_it_was(
    runs: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(gan: GAN, player: Player, duel: Duel) -> None:
        raise RuntimeError("spilled")

    monkeypatch.setattr(GAN, "update", fails)
    with pytest.raises(RuntimeError, match="spilled"):
        start("stillborn")
    summary = read(runs / "stillborn/summary.json")
    assert (summary["status"], summary["error"]) == ("failed", "RuntimeError: spilled")


def test_half_a_batch_is_not_saved(
    runs: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One player may have moved and the other not: no moment to go on from."""
    fail_within_batch_5(SystemExit(), monkeypatch)
    with pytest.raises(SystemExit) as leaving:
        start("stopped", "checkpoint.every_n_batches=2")
    assert leaving.value.code == 130
    assert read(runs / "stopped/summary.json")["status"] == "interrupted"
    checkpoint = torch.load(runs / "stopped/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["batches_seen"] == 4


def test_a_folder_is_trained_in_by_one_process(
    runs: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(runs / "held"), pytest.raises(SystemExit) as leaving:
        start("held")
    assert leaving.value.code == 2
    assert "is in use: another process trains there" in capsys.readouterr().err
    assert not (runs / "held/summary.json").exists()


@pytest.mark.usefixtures("data_root")
def test_checkpoints_have_what_callbacks_of_ones_own_have_done(tmp_path: Path) -> None:
    mine = "+callbacks.mine={_target_: lightning.pytorch.callbacks.LambdaCallback}"
    trainer, _, _ = build(configuration(f"folder={tmp_path}", *SMALL, "logger=none", mine))
    *others, last, interrupt = [type(callback).__name__ for callback in trainer.callbacks]
    assert (last, interrupt) == ("LastCheckpoint", "Interrupt")
    assert "LambdaCallback" in others


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_a_complete_folder(
    number: signal.Signals, tmp_path: Path, data_root: Path
) -> None:
    words = [sys.executable, "-m", "ganmnist.train", *SMALL, "epochs=100000", "every=5"]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background job is deaf to some, and so would be its children.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    with process:
        for line in process.stdout:
            if "batch 10/" in line:
                process.send_signal(number)
                break
        process.stdout.read()
    assert process.returncode == 130

    [folder] = (tmp_path / "logs/train").iterdir()
    summary = read(folder / "summary.json")
    assert (summary["status"], summary["error"]) == ("interrupted", "")
    assert summary["batches_seen"] >= 10
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["batches_seen"] == summary["batches_seen"]
    assert [row["step"] for row in rows(folder)] == [*range(1, summary["batches_seen"] + 1)]
    for name in ("losses.png", "progress.gif", "samples/fake_000005.png"):
        with Image.open(folder / name) as picture:
            picture.load()
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert board.Images("samples/progress")


# Folders.


def test_processes_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    script = "from ganmnist.paths import claim; print(claim('logs/now'), claim('logs/now'))"
    words = [sys.executable, "-c", script]
    pipe = {"stdout": subprocess.PIPE, "text": True, "cwd": tmp_path}
    processes = [subprocess.Popen(words, **pipe) for _ in range(4)]
    answers = [process.communicate()[0].split() for process in processes]
    assert all(first == again for first, again in answers)
    expected = {"logs/now", "logs/now_2", "logs/now_3", "logs/now_4"}
    assert {first for first, _ in answers} == expected
    assert {f"logs/{path.name}" for path in (tmp_path / "logs").iterdir()} == expected


def test_processes_that_a_run_starts_share_its_folder(tmp_path: Path) -> None:
    """Ranks, and the workers of a launcher, which compose the configuration again."""
    script = (
        "import subprocess, sys\nfrom ganmnist.paths import claim\n"
        "print(claim('logs/now'), flush=True)\n"
        "sys.argv[1:] or subprocess.run([sys.executable, *sys.argv, 'child'], check=True)"
    )
    (tmp_path / "script.py").write_text(script)
    words = [sys.executable, "script.py"]
    for folder in ("logs/now", "logs/now_2"):
        said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True).stdout
        assert said.split() == [folder] * 2


def test_half_a_file_is_never_left(tmp_path: Path) -> None:
    path = tmp_path / "new/summary.json"
    write_json(path, {"a": [1.0, math.nan], "b": {"c": -math.inf}})
    assert json.loads(path.read_text()) == {"a": [1.0, None], "b": {"c": None}}
    with suppress(ZeroDivisionError), whole(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert json.loads(path.read_text())["a"] == [1.0, None]
    assert [file.name for file in path.parent.iterdir()] == ["summary.json"]


def test_a_race_for_one_name_has_one_winner_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        claims = [*pool.map(create, [str(tmp_path / "run")] * 64)]
    assert len({*claims}) == 64
    assert all(Path(folder).is_dir() for folder in claims)


def test_a_file_in_the_way_counts_as_taken(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    assert claim(str(tmp_path / "run")) == f"{tmp_path / 'run'}_2"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0_lr=0.001,model=mlp", "0_lr=0.001,model=mlp"),
        ("1_model.generator.widths=[64, 32]", "1_model.generator.widths=-64,-32"),
        ("2_data.root=/a/b c", "2_data.root=-a-b-c"),
        ("3_" + "x" * 200, "3_" + "x" * 118),
    ],
)
def test_slug_is_one_folder_name(text: str, name: str) -> None:
    assert slug(text) == name


def test_a_metric_that_fails_fails_no_run(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr(PRDC, "__call__", fails)
    train(configuration(f"folder={tmp_path}", *BRIEF, *BRIEFLY_MEASURED, "model=mlp"))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["metrics"]["best"]["epoch"] == 1
    assert summary["metrics"]["protocol"]["n"] == 100


def test_a_scalar_is_found_by_the_name_of_its_metric() -> None:
    scalars = {"metrics/digits_val_fid": 3.0, "final/digits_fid": 2.0, "train/d/loss": 1.0}
    for name, data, value in (
        ("fid", "digits", 2.0),
        ("val_fid", "digits", 3.0),
        ("digits_fid", "digits", None),
        ("metrics/digits_val_fid", "digits", 3.0),
        ("train/d/loss", "digits", 1.0),
        ("fid", "MNIST", None),
    ):
        assert find_scalar(scalars, name, data) == value
