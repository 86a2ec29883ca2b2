"""Runs whose disk is full, whose folder vanishes, or whose memory ends."""

import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.files import block_writes, unblock_writes
from helpers.launch import BRIEFLY_MEASURED, launch, own_objective

SMALL = ("data=digits", "trainer=cpu", "batch_size=16")
SMALL += ("model.generator.widths=[16,8,8]", "model.discriminator.widths=[8,8]")
# Two epochs of 7 batches.
SHORT = (*SMALL, *BRIEFLY_MEASURED, "epochs=2", "trainer.limit_train_batches=7")
SHORT += ("sample_every=3", "log_every=2")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, from which a module `mine` can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("mine", None)


def steps_of(path: Path) -> list[int]:
    """The steps in a metrics.csv."""
    with path.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def exit_code(*words: str) -> int:
    """The exit code of a training that fails."""
    with pytest.raises(SystemExit) as exited:
        launch(*words)
    assert isinstance(exited.value.code, int)
    return exited.value.code


def status(run: Path) -> str:
    return str(json.loads((run / "summary.json").read_text())["status"])


def test_full_disk_does_not_end_the_training(tmp_path: Path, digits_root: Path) -> None:
    """The size of a file is limited, which has the same error as a full disk."""
    limit = 40_000  # less than some images and all checkpoints
    words = [*SHORT, f"data.root={digits_root}", "hydra.run.dir=run"]
    done = subprocess.run(
        [sys.executable, "-m", "ganmnist.train", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    run = tmp_path / "run"
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert "File too large" in done.stdout
    assert "no checkpoint was saved" in done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["epochs"]) == ("incomplete", 2)
    assert summary["error"]
    checkpoints = {str(run / f"checkpoints/{name}.ckpt") for name in ("best", "last")}
    assert checkpoints <= {*summary["missing"]}
    assert steps_of(run / "metrics.csv") == [*range(1, 15)]
    assert not [*run.glob("**/.*.part")]
    assert not (run / "checkpoints/last.ckpt").exists()


def test_incomplete_run_can_be_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_root: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    block_writes(run / "losses.png")
    assert exit_code(*SHORT, f"data.root={digits_root}", "hydra.run.dir=run") == 2
    assert status(run) == "incomplete"
    unblock_writes(run / "losses.png")
    launch("resume=run", f"data.root={digits_root}")
    assert status(run) == "finished"
    assert (run / "losses.png").exists()


VANISHING = """
import shutil
from pathlib import Path

from ganmnist.losses.adversarial import Hinge


class Mine(Hinge):
    d_steps = 0

    def after_d_step(self, discriminator):
        self.d_steps += 1
        if self.d_steps == 7 and not Path("vanished").exists():
            shutil.rmtree("run")
            Path("vanished").touch()
"""


def test_folder_that_vanishes_is_created_again(project: Path, digits_root: Path) -> None:
    own_objective(project, VANISHING)
    words = ["--config-dir=my_conf", *SHORT, f"data.root={digits_root}", "objective=mine"]
    assert exit_code(*words, "hydra.run.dir=run") == 2
    assert json.loads(Path("run/summary.json").read_text())["missing"]
    assert steps_of(Path("run/metrics.csv")) == [*range(1, 15)]
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["epochs_seen"] == 2
    root = f"data.root={digits_root}"
    launch("--config-dir=my_conf", "resume=run", root, "epochs=3", "trusted_modules=[mine]")
    assert status(project / "run") == "finished"


OUT_OF_MEMORY = """
import torch

from ganmnist.losses.adversarial import Hinge


class Mine(Hinge):
    def d_loss(self, out):
        return super().d_loss(out) + torch.zeros(10**17).mean()
"""


def test_out_of_memory_suggests_half_the_batch_size(
    project: Path, digits_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_objective(project, OUT_OF_MEMORY)
    words = ["--config-dir=my_conf", *SHORT, f"data.root={digits_root}", "objective=mine"]
    assert exit_code(*words, "hydra.run.dir=run") == 2
    error = capsys.readouterr().err
    assert "batch_size=16" in error
    assert "batch_size=8" in error


@pytest.mark.parametrize("folder", ["file/run", "file"])
def test_folder_without_write_access_is_refused(
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no folder")
    assert exit_code(*SHORT, f"hydra.run.dir={folder}") == 2
    assert "hydra.run.dir" in capsys.readouterr().err
    assert Path("file").read_text() == "no folder"
    assert os.listdir() == ["file"]
