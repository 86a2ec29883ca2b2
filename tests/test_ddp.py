"""Two processes on the CPU: equal weights, images and latents of their own, and one folder.

They end together, whatever ends one of them.
"""

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from launch import BRIEFLY_MEASURED, command, launch

SPY = """
import torch
from lightning.pytorch.callbacks import Callback


class Spy(Callback):
    def __init__(self, folder):
        self.folder, self.x, self.z = folder, [], []

    def on_train_start(self, trainer, gan):
        fake = gan.fake

        def noted(batch, z):
            self.z.append(z)
            return fake(batch, z)

        gan.fake = noted
        self.before = {name: p.detach().clone() for name, p in gan.named_parameters()}

    def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
        self.x += [sample.x for sample in batch]

    def on_train_end(self, trainer, gan):
        after = {name: p.detach() for name, p in gan.named_parameters()}
        seen = {"x": torch.stack(self.x), "z": torch.stack(self.z)}
        saved = {"before": self.before, "after": after, **seen}
        torch.save(saved, f"{self.folder}/rank{trainer.global_rank}.pt")
"""


def test_two_processes_train_one_gan(tmp_path: Path, data_root: Path) -> None:
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "conf/callbacks").mkdir(parents=True)
    (tmp_path / "conf/callbacks/spy.yaml").write_text(
        "defaults: [default]\nspy: {_target_: spy.Spy, folder: '${folder}'}\n"
    )
    two = ("trainer=ddp", "trainer.gpus=0", "trainer.devices=2", "batch_size=16", "data=digits")
    few = ("experiment=quick", "epochs=2", "trainer.limit_train_batches=3", "every=2")
    few = (*few, *BRIEFLY_MEASURED, "stabilizer=minibatch_discrimination")  # initialised by data
    done = command("--config-dir", "conf", "callbacks=spy", *two, *few, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sync_dist" not in done.stderr

    [folder] = (tmp_path / "logs/quick").iterdir()
    first, second = (torch.load(folder / f"rank{rank}.pt") for rank in (0, 1))
    for name, weight in first["after"].items():
        assert torch.equal(first["before"][name], second["before"][name]), name
        assert torch.equal(weight, second["after"][name]), name
        assert not torch.equal(weight, first["before"][name]), name

    def different(*draws: torch.Tensor) -> int:
        return len({one.numpy().tobytes() for batches in draws for one in batches.flatten(0, 1)})

    for epoch in (slice(0, 3), slice(3, 6)):
        assert different(first["x"][epoch], second["x"][epoch]) == 2 * 3 * 16
    assert different(first["z"], second["z"]) == 2 * 6 * 16

    with (folder / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5", "6"]
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["batches_seen"], summary["images_seen"]) == (6, 6 * 2 * 16)
    assert [path.name for path in folder.glob("*.log")] == ["train.log"]
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, weight in first["after"].items():
        assert torch.equal(saved[name], weight), name


SIGNALLED = """
import os
import signal

from lightning.pytorch.callbacks import Callback


class Signalled(Callback):
    def __init__(self, number, rank, batch):
        self.number, self.batch = number, batch
        self.here = os.environ.get("LOCAL_RANK", "0") == str(rank)
        self.signal(0)

    def signal(self, batch):
        if self.here and batch == self.batch:
            os.kill(os.getpid(), signal.Signals[self.number])

    def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
        self.signal(gan.batches_seen)
"""


@pytest.fixture
def place(tmp_path: Path, data_root: Path) -> Path:
    """A folder with callbacks=signalled, which sends one process of a run a signal."""
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    (tmp_path / "conf/callbacks").mkdir(parents=True)
    (tmp_path / "conf/callbacks/signalled.yaml").write_text("defaults: [default]\n")
    return tmp_path


def start(place: Path, name: str, signalled: str = "") -> subprocess.CompletedProcess[str]:
    """26 batches, two of which wait for a third at batch 11; `signalled` is SIGNAL,RANK,BATCH."""
    words = ["--config-dir", "conf", "callbacks=signalled", f"hydra.run.dir={name}"]
    words += ["trainer=cpu", "trainer.devices=2", "batch_size=16", "data=digits"]
    words += ["experiment=quick", "epochs=2", "trainer.limit_train_batches=13", "metrics=none"]
    words += ["datamodule.chunk=1", "gan.accumulate=3", "checkpoint.every_n_batches=2", "every=5"]
    if signalled:
        number, rank, batch = signalled.split(",")
        settings = f"_target_: signalled.Signalled, number: {number}, rank: {rank}, batch: {batch}"
        words += [f"+callbacks.signalled={{{settings}}}"]
    return command(*words, folder=place)


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def test_a_signal_to_one_process_stops_both_after_the_same_batch(place: Path) -> None:
    assert start(place, "straight").returncode == 0
    done = start(place, "broken", "SIGTERM,1,3")
    assert done.returncode == 130, done.stderr
    assert done.stderr == ""
    assert "Another process was told to stop" in done.stdout
    straight, broken = place / "straight", place / "broken"
    summary = json.loads((broken / "summary.json").read_text())
    assert (summary["status"], summary["batches_seen"]) == ("interrupted", 11)
    assert (last(broken)["batches_seen"], len(last(broken)["waiting"])) == (11, 2 * 2)

    on = ("trust=[signalled]", "~callbacks.signalled", f"resume={broken}")
    done = command("--config-dir", "conf", *on, folder=place)
    assert done.returncode == 0, done.stderr
    weights = last(straight)["state_dict"]
    assert all(torch.equal(weights[name], w) for name, w in last(broken)["state_dict"].items())
    assert (broken / "progress.gif").read_bytes() == (straight / "progress.gif").read_bytes()


@pytest.mark.parametrize(
    ("rank", "batch"),
    # Batch 0 is before they have met.
    [(1, 3), *(pytest.param(*which, marks=pytest.mark.slow) for which in ((0, 3), (1, 0)))],
)
def test_a_process_that_dies_takes_the_other_along(rank: int, batch: int, place: Path) -> None:
    done = start(place, "run", f"SIGKILL,{rank},{batch}")
    assert done.returncode == (-9, 2)[rank]
    how = ("died", "ended with SIGKILL")[rank]
    go_on = f"go on with resume={place / 'run'}" if batch else "start again"
    assert f"A process (rank {rank} of 2) {how}, so the run was stopped: {go_on}" in done.stderr
    assert "Traceback" not in done.stderr
    if rank == 1:
        summary = json.loads((place / "run/summary.json").read_text())
        assert summary["status"] == "failed"
        assert summary["error"] in done.stderr


def test_a_folder_that_the_other_process_would_not_find_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        launch("trainer=cpu", "trainer.devices=2", "data=digits", "hydra.run.dir='a\"b'")
    assert leaving.value.code == 2
    assert 'a"b: a run of several processes can have no double quote' in capsys.readouterr().err
