"""What happens to a run where files cannot be written, memory ends or the folder vanishes."""

import csv
import json
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import fit, small_gan
from launch import launch, own_objective
from rich.console import Console
from test_run import FEW

from ganmnist.callbacks import LastCheckpoint
from ganmnist.console import ConsoleHandler
from ganmnist.files import is_missing, replaced, spared, whole, writing
from ganmnist.gan import GAN
from ganmnist.loggers import MetricsCSV


def block(path: Path) -> None:
    """Lets nobody write a file in whole: its first name is that of a folder."""
    path.with_name(f".{path.name}.{os.getpid()}.part").mkdir(parents=True)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that we are in, where a module mine may be; nobody after us finds it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("mine", None)


# Files


def test_a_file_that_cannot_be_written_leaves_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    block(path)
    with pytest.raises(IsADirectoryError), whole(path) as part:
        part.write_text("new")
    with pytest.raises(ZeroDivisionError), replaced(tmp_path / "b.txt") as part:
        part.write_text(str(1 / 0))
    assert path.read_text() == "old"
    assert not (tmp_path / "b.txt").exists()


def test_whoever_is_spared_is_told_of_the_first_and_has_a_list(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [tmp_path / name for name in "abc"]
    with spared() as missing:
        for path in paths[:2]:
            block(path)
        for path in paths:
            with whole(path) as part:
                part.write_text("new")
        assert {*missing} == {*paths[:2]}
        assert is_missing(paths[0])
        assert not is_missing(paths[2])
        assert [record.message for record in caplog.records] == [
            f"{paths[0]} could not be written (Is a directory). Training goes on without."
        ]
        paths[0].with_name(f".a.{os.getpid()}.part").rmdir()
        with whole(paths[0]) as part:
            part.write_text("after all")
        assert {*missing} == {paths[1]}
        with pytest.raises(ZeroDivisionError), writing(paths[2]):
            raise ZeroDivisionError
    with pytest.raises(OSError, match="Is a directory"), whole(paths[1]) as part:
        part.write_text("new")


@pytest.mark.parametrize("columns", [["a"], ["a", "b"]])
def test_rows_wait_until_they_can_be_written(columns: list[str], tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "run/metrics.csv")
    log.log_rows({1: {"a": 1.0}, 2: {"a": 2.0}})
    log.flush()
    away = (tmp_path / "run").rename(tmp_path / "away")
    (tmp_path / "run").write_text("no folder")
    with spared() as missing:
        for step in (3, 4, 5):
            log.log_rows({step: dict.fromkeys(columns, float(step))})
            log.flush()
        assert {*missing} == {log.path}
        (tmp_path / "run").unlink()
        away.rename(tmp_path / "run")
        log.log_rows({6: {"a": 6.0}})
        log.flush()
        assert not missing
    with log.path.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [float(row["a"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["b"] for row in rows if row.get("b")] == ["3.0", "4.0", "5.0"] * ("b" in columns)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    last = LastCheckpoint(tmp_path)

    class FullAfterTwo(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, gan: GAN) -> None:
            if gan.epochs_seen == 2:
                block(last.path)

    monkeypatch.setattr("ganmnist.callbacks.checkpoint.gettempdir", lambda: str(tmp_path / "tmp"))
    with spared():
        fit(small_gan(), batches=2, epochs=4, callbacks=[FullAfterTwo(), last])
    assert torch.load(last.path, weights_only=True)["epochs_seen"] == 2
    (elsewhere,) = (tmp_path / "tmp").glob("ganmnist_*_last.ckpt")
    assert torch.load(elsewhere, weights_only=True)["epochs_seen"] == 4
    assert f"The newest weights are in {elsewhere}" in caplog.text
    # It is no worse than one in its place.
    straight, second = small_gan(), small_gan()
    fit(straight, batches=2, epochs=5)
    fit(second, batches=2, epochs=5, ckpt_path=elsewhere)
    assert all(
        torch.equal(value, second.state_dict()[name])
        for name, value in straight.state_dict().items()
    )


def test_where_there_is_room_for_nothing_nothing_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    last = LastCheckpoint(tmp_path / "run")
    block(last.path)
    monkeypatch.setattr("ganmnist.callbacks.checkpoint.gettempdir", full)
    with spared() as missing:
        fit(small_gan(), callbacks=[last])
    assert [*missing] == [last.path]


@pytest.mark.parametrize("gone", ["disk", "pipe"])
def test_nobody_reads_what_is_printed(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    end, start = os.pipe()
    os.close(end)
    with open("/dev/full", "w") if gone == "disk" else os.fdopen(start, "w") as file:
        handler = ConsoleHandler()
        monkeypatch.setattr("ganmnist.console.console", Console(file=file))
        handler.handle(logging.makeLogRecord({"msg": "epoch 1"}))
        with suppress(OSError):
            file.close()


# Runs


def test_a_full_disk_ends_no_run(tmp_path: Path, digits_root: Path) -> None:
    """No file may be larger than some pictures, which is what a disk says that is full."""
    most = 40_000
    words = [*FEW, f"data.root={digits_root}", "hydra.run.dir=run"]
    full = [sys.executable, "-m", "ganmnist.train", *words]
    answer = subprocess.run(
        full,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )
    run = tmp_path / "run"
    assert answer.returncode == 2
    assert "Traceback" not in answer.stdout + answer.stderr
    assert "Training goes on without." in answer.stdout
    assert f"could not be written (File too large). What is in {run} is whole" in answer.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "incomplete"
    assert "could not be written" in summary["error"]
    assert {str(run / f"checkpoints/{name}.ckpt") for name in ("best", "last")} <= {
        *summary["missing"]
    }
    assert summary["epochs"] == 2
    with (run / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == [str(n) for n in range(1, 15)]
    assert not [*run.glob("**/.*.part")]
    assert not (run / "checkpoints/last.ckpt").exists()
    assert "The newest weights are in" not in answer.stdout  # nothing larger goes anywhere


def test_an_incomplete_run_is_completed(
    tmp_path: Path, monkeypatch: Any, digits_root: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    block(tmp_path / "run/losses.png")
    words = [*FEW, f"data.root={digits_root}"]
    with pytest.raises(SystemExit) as leaving:
        launch(*words, "hydra.run.dir=run")
    assert leaving.value.code == 2
    assert json.loads(Path("run/summary.json").read_text())["status"] == "incomplete"
    Path(f"run/.losses.png.{os.getpid()}.part").rmdir()
    launch("resume=run")
    assert json.loads(Path("run/summary.json").read_text())["status"] == "finished"
    assert Path("run/losses.png").exists()


def test_a_folder_that_vanishes_is_made_anew(mine: Path, digits_root: Path) -> None:
    own_objective(mine, VANISHING)
    words = ["--config-dir=my_conf", *FEW, f"data.root={digits_root}", "objective=mine"]
    with pytest.raises(SystemExit) as leaving:
        launch(*words, "hydra.run.dir=run")
    assert leaving.value.code == 2
    missing = json.loads(Path("run/summary.json").read_text())["missing"]
    assert str(mine / "run/.hydra/overrides.yaml") in missing
    with Path("run/metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == [str(n) for n in range(6, 15)]
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["epochs_seen"] == 2
    launch("--config-dir=my_conf", "resume=run", "epochs=3", "trust=[mine]")
    assert json.loads(Path("run/summary.json").read_text())["status"] == "finished"


VANISHING = """
import shutil
from pathlib import Path

from ganmnist.objectives import Hinge


class Mine(Hinge):
    def after_d_update(self, discriminator):
        self.updates = getattr(self, "updates", 0) + 1
        if self.updates == 7 and not Path("gone").exists():
            shutil.rmtree("run")
            Path("gone").touch()
"""

GREEDY = """
import torch

from ganmnist.objectives import Hinge


class Mine(Hinge):
    def d_loss(self, duel):
        return super().d_loss(duel) + torch.zeros(10**17).mean()
"""


def test_out_of_memory_names_a_batch_size_to_try(
    mine: Path, digits_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_objective(mine, GREEDY)
    words = ["--config-dir=my_conf", *FEW, f"data.root={digits_root}", "objective=mine"]
    with pytest.raises(SystemExit) as leaving:
        launch(*words, "hydra.run.dir=run")
    assert leaving.value.code == 2
    assert "batch_size=16 does not fit into the memory of this device: try batch_size=8, and" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("place", ["file/run", "file"])
def test_a_folder_nobody_may_write_in_is_refused(
    place: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no folder")
    with pytest.raises(SystemExit) as leaving:
        launch(*FEW, f"hydra.run.dir={place}")
    assert leaving.value.code == 2
    assert "hoose another folder" in capsys.readouterr().err
    assert Path("file").read_text() == "no folder"
