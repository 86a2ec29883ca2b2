"""Two processes on the CPU have equal weights, different images and latents, and end together."""

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.launch import BRIEFLY_MEASURED, command, launch

pytestmark = pytest.mark.no_cover  # the code runs in other processes

SPY = """
import torch
from lightning.pytorch.callbacks import Callback


class Spy(Callback):
    def __init__(self, folder):
        self.folder, self.x, self.z = folder, [], []

    def on_train_start(self, trainer, gan):
        fake_inputs = gan.fake_inputs

        def noted(batch, z):
            self.z.append(z)
            return fake_inputs(batch, z)

        gan.fake_inputs = noted
        self.before = {name: p.detach().clone() for name, p in gan.named_parameters()}

    def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
        self.x.append(batch.x)

    def on_train_end(self, trainer, gan):
        after = {name: p.detach() for name, p in gan.named_parameters()}
        inputs = {"x": torch.stack(self.x), "z": torch.stack(self.z)}
        saved = {"before": self.before, "after": after, **inputs}
        torch.save(saved, f"{self.folder}/rank{trainer.global_rank}.pt")
"""


def test_two_processes_train_one_gan(tmp_path: Path, data_root: Path) -> None:
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "conf/callbacks").mkdir(parents=True)
    (tmp_path / "conf/callbacks/spy.yaml").write_text(
        "defaults: [default]\nspy: {_target_: spy.Spy, folder: '${folder}'}\n"
    )
    two = ("trainer=ddp", "trainer.gpus=0", "trainer.devices=2", "batch_size=16", "data=digits")
    few = ("experiment=debug", "epochs=2", "trainer.limit_train_batches=3", "sample_every=2")
    few = (*few, *BRIEFLY_MEASURED, "stabilizer=minibatch_discrimination")  # initialized from data
    done = command("--config-dir", "conf", "callbacks=spy", *two, *few, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sync_dist" not in done.stderr

    [folder] = (tmp_path / "logs/debug").iterdir()
    first, second = (torch.load(folder / f"rank{rank}.pt") for rank in (0, 1))
    for name, weight in first["after"].items():
        assert torch.equal(first["before"][name], second["before"][name]), name
        assert torch.equal(weight, second["after"][name]), name
        assert not torch.equal(weight, first["before"][name]), name

    def count_different(*samples: torch.Tensor) -> int:
        return len({one.numpy().tobytes() for batches in samples for one in batches.flatten(0, 1)})

    for epoch in (slice(0, 3), slice(3, 6)):
        assert count_different(first["x"][epoch], second["x"][epoch]) == 2 * 3 * 16
    assert count_different(first["z"], second["z"]) == 2 * 6 * 16

    with (folder / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5", "6"]
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["batches_seen"], summary["images_seen"]) == (6, 6 * 2 * 16)
    assert [path.name for path in folder.glob("*.log")] == ["train.log"]
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, weight in first["after"].items():
        assert torch.equal(saved[name], weight), name


SIGNALED = """
import os
import signal

from lightning.pytorch.callbacks import Callback


class Signaled(Callback):
    def __init__(self, number, rank, batch):
        self.number, self.batch = number, batch
        self.here = os.environ.get("LOCAL_RANK", "0") == str(rank)
        self.signal(0)

    def signal(self, batch):
        if self.here and batch == self.batch:
            os.kill(os.getpid(), signal.Signals[self.number])

    def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
        self.signal(gan.state.batches_seen)
"""


@pytest.fixture
def folder(tmp_path: Path, data_root: Path) -> Path:
    """A folder with callbacks=signaled, which sends one process of a run a signal."""
    (tmp_path / "signaled.py").write_text(SIGNALED)
    (tmp_path / "conf/callbacks").mkdir(parents=True)
    (tmp_path / "conf/callbacks/signaled.yaml").write_text("defaults: [default]\n")
    return tmp_path


def start(folder: Path, name: str, signal: str = "") -> subprocess.CompletedProcess[str]:
    """26 batches, two of which wait for a third at batch 11; `signal` is SIGNAL,RANK,BATCH."""
    words = ["--config-dir", "conf", "callbacks=signaled", f"hydra.run.dir={name}"]
    words += ["trainer=cpu", "trainer.devices=2", "batch_size=16", "data=digits"]
    words += ["experiment=debug", "epochs=2", "trainer.limit_train_batches=13", "metrics=none"]
    words += [
        "datamodule.chunk=1",
        "gan.accumulate=3",
        "checkpoint.every_n_batches=2",
        "sample_every=5",
    ]
    if signal:
        number, rank, batch = signal.split(",")
        settings = f"_target_: signaled.Signaled, number: {number}, rank: {rank}, batch: {batch}"
        words += [f"+callbacks.signaled={{{settings}}}"]
    return command(*words, folder=folder)


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


@pytest.mark.slow
def test_signal_to_one_process_stops_both_after_the_same_batch(folder: Path) -> None:
    assert start(folder, "straight").returncode == 0
    done = start(folder, "broken", "SIGTERM,1,3")
    assert done.returncode == 130, done.stderr
    assert done.stderr == ""
    straight, broken = folder / "straight", folder / "broken"
    summary = json.loads((broken / "summary.json").read_text())
    assert (summary["status"], summary["batches_seen"]) == ("interrupted", 11)
    assert (last(broken)["batches_seen"], len(last(broken)["microbatches"])) == (11, 2 * 2)

    on = ("trusted_modules=[signaled]", "~callbacks.signaled", f"resume={broken}")
    done = command("--config-dir", "conf", *on, folder=folder)
    assert done.returncode == 0, done.stderr
    weights = last(straight)["state_dict"]
    assert all(torch.equal(weights[name], w) for name, w in last(broken)["state_dict"].items())
    assert (broken / "progress.gif").read_bytes() == (straight / "progress.gif").read_bytes()


@pytest.mark.parametrize(
    ("rank", "batch"),
    # Batch 0 is before the processes connect.
    [(1, 3), *(pytest.param(*which, marks=pytest.mark.slow) for which in ((0, 3), (1, 0)))],
)
def test_dead_process_ends_the_other(rank: int, batch: int, folder: Path) -> None:
    done = start(folder, "run", f"SIGKILL,{rank},{batch}")
    assert done.returncode == (-9, 2)[rank]
    how = ("died", "ended with SIGKILL")[rank]
    fix = f"Continue with resume={folder / 'run'}" if batch else "Start again"
    assert f"A process (rank {rank} of 2) {how}, so the run was stopped. {fix}" in done.stderr
    assert "Traceback" not in done.stderr
    if rank == 1:
        summary = json.loads((folder / "run/summary.json").read_text())
        assert summary["status"] == "failed"
        assert summary["error"] in done.stderr


def test_folder_with_a_double_quote_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        launch("trainer=cpu", "trainer.devices=2", "data=digits", "hydra.run.dir='a\"b'")
    assert leaving.value.code == 2
    assert f'hydra.run.dir={tmp_path}/a"b' in capsys.readouterr().err
