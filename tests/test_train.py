"""A run: the files of its folder, interruptions and failures."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from helpers.config import settings_of
from helpers.launch import BRIEF, BRIEFLY_MEASURED, launch
from helpers.runs import SMALL, TWO_EPOCHS, rows
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from ganmnist.data import Digits
from ganmnist.gan import GAN
from ganmnist.losses.base import NetworkName
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.metrics import PRDC
from ganmnist.runs.build import build
from ganmnist.runs.cpu import cpu_model
from ganmnist.runs.folders import lock_dir
from ganmnist.runs.summary import find_scalar
from ganmnist.train import train
from ganmnist.utils.files import write_json

BATCHES = range(1, 15)
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
            launch(*TWO_EPOCHS, *overrides, f"hydra.run.dir={runs / name}")

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


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_folder_has_all_files_and_no_others(run: Path) -> None:
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    board = {name for name in files if name.startswith("tensorboard/events.out.tfevents.")}
    assert board
    assert files - board == {
        *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")),
        *("train.log", "env.json", "config.yaml", "metrics.csv", "summary.json", "losses.png"),
        *("progress.gif", "epochs.png", "report.html", "tensorboard/hparams.yaml"),
        *("checkpoints/last.ckpt", "checkpoints/best.ckpt", "samples/neighbors.png"),
        *(f"samples/{kind}_{n:06d}.png" for kind in ("real", "fake") for n in (3, 6, 9, 12)),
        *(f"samples/epoch_{n:03d}.png" for n in (1, 2)),
        "samples/fake_000000.png",
    }


def test_metrics_csv_has_one_row_per_batch(run: Path) -> None:
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
    for name, tag in (
        ("train/d/loss", "Losses/D"),
        ("train/g/loss", "Losses/G"),
        ("train/d/real_prob", "Outputs of D/real prob"),
        ("train/d/fake_prob", "Outputs of D/fake prob"),
    ):
        scalars = events.Scalars(tag)
        assert [scalar.step for scalar in scalars] == WINDOWS
        windows = zip([0, *WINDOWS[:-1]], WINDOWS, strict=True)
        means = [fmean(row[name] for row in table[a:b]) for a, b in windows]
        assert [scalar.value for scalar in scalars] == pytest.approx(means)
    assert [scalar.step for scalar in events.Scalars("Speed/images per s")] == WINDOWS
    assert [scalar.step for scalar in events.Scalars("Losses per epoch/G")] == EPOCH_ENDS


def test_tensorboard_has_both_losses_in_one_chart(events: EventAccumulator) -> None:
    [layout] = events.Tensors("custom_scalars__config__")
    [category] = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0]).category
    charts = [[tag.strip("^$") for tag in chart.multiline.tag] for chart in category.chart]
    names = events.Tags()["scalars"]
    matched = [{name for name in names for tag in chart if re.match(tag, name)} for chart in charts]
    assert {"Losses/D", "Losses/G"} in matched
    assert {"Outputs of D/real prob", "Outputs of D/fake prob"} in matched
    assert all(matched)


def test_tensorboard_begins_with_losses_and_has_few_single_points(
    events: EventAccumulator,
) -> None:
    names = sorted(events.Tags()["scalars"], key=lambda name: name.split("/"))
    groups = list(dict.fromkeys(name.partition("/")[0] for name in names))
    assert groups[:4] == ["Losses", "Losses per epoch", "Outputs of D", "Quality"]
    single = {name for name in names if len(events.Scalars(name)) == 1}
    assert {name.partition("/")[0] for name in single} == {"Result"}


def test_tensorboard_has_samples_and_the_animation(run: Path, events: EventAccumulator) -> None:
    for tag, size in (("samples/generated", GRID), ("samples/real", BATCH)):
        images = events.Images(tag)
        assert [image.step for image in images] == EPOCH_ENDS
        assert {(image.width, image.height) for image in images} == {size}
    [animation] = events.Images("samples/progress")
    assert animation.step == 14
    assert animation.encoded_image_string == (run / "progress.gif").read_bytes()


def test_tensorboard_has_settings_next_to_results(run: Path, events: EventAccumulator) -> None:
    contents = events.PluginTagToContent("hparams")
    start = plugin_data_pb2.HParamsPluginData.FromString(
        contents["_hparams_/session_start_info"]
    ).session_start_info
    assert start.hparams["lr"].number_value == 2e-4
    assert start.hparams["batch_size"].number_value == 16
    assert start.hparams["data"].string_value == "digits"
    assert not start.hparams.keys() & {"folder", "checksum", "trusted_modules"}
    [final] = events.Scalars("Result/digits_fid")
    assert final.step == 14
    assert final.value == pytest.approx(rows(run)[-1]["final/digits_fid"])


def test_images_have_the_expected_size(run: Path) -> None:
    for path in (run / "samples").glob("*_*.png"):
        with Image.open(path) as image:
            image.load()
            assert image.size == (BATCH if path.name.startswith("real") else GRID)
    with Image.open(run / "progress.gif") as animation:
        assert animation.size == GRID
        assert animation.n_frames == 7  # untrained, four intervals, two epochs
    with Image.open(run / "epochs.png") as epochs:
        epochs.load()
        assert epochs.size == (84 + SIDE, 2 * (2 * 28 + 2 * 2) + 22)  # labels, one row per epoch
    with Image.open(run / "losses.png") as losses:
        losses.load()
        assert losses.size == (900, 700)


def test_summary_has_status_and_scalars(run: Path) -> None:
    summary = read(run / "summary.json")
    last = rows(run)[-1]
    assert (summary["status"], summary["error"], summary["data"]) == ("finished", "", "digits")
    assert (summary["epochs"], summary["batches_seen"], summary["images_seen"]) == (2, 14, 14 * 16)
    assert summary["metric"] == "val_fid"
    assert summary["value"] == pytest.approx(last["metrics/digits_val_fid"])
    assert summary["settings"]["batch_size"] == 16
    for name in ("epoch/d/loss", "epoch/g/loss"):
        assert summary["scalars"][name] == pytest.approx(last[name])


def test_summary_has_the_last_and_the_best_metrics(run: Path) -> None:
    metrics = read(run / "summary.json")["metrics"]
    last = rows(run)[-1]
    protocol = metrics["protocol"]
    assert (protocol["data"], protocol["n"], protocol["val_n"]) == ("digits", 100, 100)
    assert metrics["final"]["epoch"] == 2
    measured = {row["epoch"]: row["metrics/digits_val_fid"] for row in rows(run) if "epoch" in row}
    best = min(measured, key=measured.get)
    assert metrics["best"]["epoch"] == best
    assert metrics["best"]["digits_val_fid"] == pytest.approx(measured[best])
    for which in ("final", "best"):
        for weights in ("raw", "ema"):
            assert metrics[which][weights].keys() == metrics["final"]["raw"].keys()
    assert last["final/digits_fid"] == pytest.approx(metrics["final"]["raw"]["digits_fid"])
    assert last["final/digits_fid_ema"] == pytest.approx(metrics["final"]["ema"]["digits_fid"])
    assert metrics["val_fid_floor"] < metrics["final"]["raw"]["digits_fid"]
    for histogram in metrics["class_histogram"].values():
        assert sum(histogram) == pytest.approx(1)


def test_training_ends_at_the_target(start: Start, runs: Path) -> None:
    start("enough", "epochs=5", "callbacks.evaluation.target=1e6")
    summary = read(runs / "enough/summary.json")
    assert (summary["status"], summary["epochs"]) == ("finished", 1)
    assert summary["metrics"]["final"]["epoch"] == 1
    assert [path.name for path in (runs / "enough/samples").glob("epoch_*")] == ["epoch_001.png"]
    start("enough", f"resume={runs / 'enough'}", "epochs=5", "callbacks.evaluation.target=0")
    assert read(runs / "enough/summary.json")["epochs"] == 5


def test_env_names_the_data(run: Path, digits_root: Path) -> None:
    environment = read(run / "env.json")
    digits = Digits(digits_root)
    digits.load()
    assert environment["data"] == {"name": "digits", "checksum": digits.checksum}
    assert environment["device"] == {"type": "cpu", "name": cpu_model()}
    assert environment["cpus"] == [cpu_model()]
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert {"git", "ganmnist", "python", "command"} <= environment.keys()


def test_resume_keeps_the_cpus_in_env(start: Start, runs: Path) -> None:
    start("moved", "epochs=1")
    file = runs / "moved/env.json"
    write_json(file, read(file) | {"cpus": ["old"]})
    start("moved", f"resume={runs / 'moved'}", "epochs=2")
    assert read(file)["cpus"] == ["old", cpu_model()]


def test_log_has_one_line_per_interval(run: Path) -> None:
    lines = (run / "train.log").read_text().splitlines()
    every = (3, 6, 9, 12)
    assert [n for n in every if any(f"batch {n}/14 " in line for line in lines)] == [*every]
    assert "digits, 3,000 training images" in lines[0]
    assert str(run) in lines[0]


def test_checkpoint_is_complete_and_plain(run: Path, checkpoint: dict[str, Any]) -> None:
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


def test_same_seed_gives_the_same_run(
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
    start("rare", "sample_every=2", "log_every=50", "epochs=1")
    folder = runs / "rare"
    names = {path.name for path in (folder / "samples").iterdir()}
    assert {"fake_000002.png", "fake_000004.png", "fake_000006.png", "epoch_001.png"} <= names
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4, 5, 6, 7]


FAMILIES = """
from ganmnist.gan import GAN
from ganmnist.networks.mlp import Generator


class Labeled(Generator):
    def forward(self, z, y):
        return super().forward(z + y[:, None])


class Critic(GAN):
    @property
    def is_g_step(self):
        return self.state.batches_seen % 3 == 0
"""


def test_own_family_trains_with_all_callbacks(
    runs: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G is conditional and is trained in every third batch."""
    (tmp_path / "families.py").write_text(FAMILIES)
    monkeypatch.syspath_prepend(tmp_path)
    model = ("model=mlp", "model.generator.widths=[16]", "model.discriminator.widths=[16]")
    labels = "family.labels={_target_: ganmnist.networks.latents.Labels, n_classes: 10}"
    own = ("family._target_=families.Critic", "model.generator._target_=families.Labeled", labels)
    start("family", *model, *own, "sample_every=2", "log_every=1")
    folder = runs / "family"
    assert [row["step"] for row in rows(folder) if row.get("train/g/loss")] == [3, 6, 9, 12]
    assert {"losses.png", "progress.gif"} <= {path.name for path in folder.iterdir()}


# Failures and interruptions.


def fail_within_batch_5(error: BaseException, patch: pytest.MonkeyPatch) -> None:
    """Fails between the updates of D and G."""
    minimize = GAN.minimize

    def fails(gan: GAN, network: NetworkName, outputs: Sequence[DiscriminatorOutputs]) -> None:
        if gan.state.batches_seen == 5 and network == "g":
            raise error
        minimize(gan, network, outputs)

    patch.setattr(GAN, "minimize", fails)


def test_failure_keeps_all_files_until_then(
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


def test_failure_in_the_first_batch_is_reported(
    runs: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(gan: GAN, network: NetworkName, outputs: Sequence[DiscriminatorOutputs]) -> None:
        raise RuntimeError("spilled")

    monkeypatch.setattr(GAN, "minimize", fails)
    with pytest.raises(RuntimeError, match="spilled"):
        start("stillborn")
    summary = read(runs / "stillborn/summary.json")
    assert (summary["status"], summary["error"]) == ("failed", "RuntimeError: spilled")


def test_incomplete_batch_is_not_saved(
    runs: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the update of D without that of G, training cannot resume."""
    fail_within_batch_5(SystemExit(), monkeypatch)
    with pytest.raises(SystemExit) as leaving:
        start("stopped", "checkpoint.every_n_batches=2")
    assert leaving.value.code == 130
    assert read(runs / "stopped/summary.json")["status"] == "interrupted"
    checkpoint = torch.load(runs / "stopped/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["batches_seen"] == 4


def test_folder_is_locked_during_training(
    runs: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    with lock_dir(runs / "locked"), pytest.raises(SystemExit) as leaving:
        start("locked")
    assert leaving.value.code == 2
    assert "is in use" in capsys.readouterr().err
    assert not (runs / "locked/summary.json").exists()


@pytest.mark.usefixtures("data_root")
def test_checkpoint_comes_after_own_callbacks(tmp_path: Path) -> None:
    mine = "+callbacks.mine={_target_: lightning.pytorch.callbacks.LambdaCallback}"
    trainer, _, _ = build(settings_of(f"folder={tmp_path}", *SMALL, "logger=none", mine))
    *others, last, interrupt = [type(callback).__name__ for callback in trainer.callbacks]
    assert (last, interrupt) == ("LastCheckpoint", "Interrupt")
    assert "LambdaCallback" in others


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_keeps_a_complete_folder(
    number: signal.Signals, tmp_path: Path, data_root: Path
) -> None:
    words = [
        sys.executable,
        "-m",
        "ganmnist.train",
        *SMALL,
        "epochs=100000",
        "sample_every=5",
        "print_every=5",
    ]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        # A background job of a shell, and so its children, ignore some signals.
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
        with Image.open(folder / name) as image:
            image.load()
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert board.Images("samples/progress")


def test_failure_of_a_metric_does_not_stop_the_run(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr(PRDC, "__call__", fails)
    train(settings_of(f"folder={tmp_path}", *BRIEF, *BRIEFLY_MEASURED, "model=mlp"))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["metrics"]["best"]["epoch"] == 1
    assert summary["metrics"]["protocol"]["n"] == 100


def test_scalar_is_found_by_the_name_of_its_metric() -> None:
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
