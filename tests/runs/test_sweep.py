"""A sweep: a folder per job, a table of all jobs, and no stop after a job that fails."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.launch import BRIEFLY_MEASURED, command, launch

from ganmnist.data import datasets
from ganmnist.gan import GAN
from ganmnist.runs import resume, sweep
from ganmnist.runs.folders import is_locked
from ganmnist.runs.loading import read_checkpoint
from ganmnist.runs.sweep import finish
from ganmnist.utils.batch import Batch

NO_METRICS = ("-m", "trainer=cpu", "experiment=debug", "epochs=1", "trainer.limit_train_batches=2")
FEW = (*NO_METRICS, *BRIEFLY_MEASURED)
BATCHES = 40  # of a job that is stopped


def table(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


@pytest.fixture
def here(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder. Jobs run in this process, which is fast."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "run_in_child", lambda function: function())
    return tmp_path


def test_sweep_writes_a_folder_per_job_and_a_table(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        launch(*FEW, "data=digits", "lr=1e-3,2e-3", "batch_size=8,100000")
    assert leaving.value.code == 1  # two of the four jobs fail

    [folder] = (here / "logs/multirun").iterdir()
    rows = table(folder)
    settings = [("0.001", "8"), ("0.001", "100000"), ("0.002", "8"), ("0.002", "100000")]
    assert [(row["lr"], row["batch_size"]) for row in rows] == settings
    assert [row["status"] for row in rows] == ["finished", "failed", "finished", "failed"]
    assert [row["experiment"] for row in rows] == ["debug"] * 4

    folders = sorted(path for path in folder.iterdir() if path.name[0].isdigit())
    for (lr, batch_size), row, job in zip(settings, rows, folders, strict=True):
        assert job.name.startswith(f"{row['job']}_batch_size={batch_size},")
        assert f",lr={lr}," in job.name
        summary = json.loads((job / "summary.json").read_text())
        assert summary["status"] == row["status"]
        if row["status"] == "finished":
            assert float(row["val_fid"]) == summary["value"]
            assert (job / "checkpoints/last.ckpt").is_file()
        else:
            assert "batch_size=100000" in row["error"] == summary["error"]

    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    printed = captured.out[captured.out.index("4 jobs in") :]
    assert printed.count("finished") == printed.count("failed") == 2
    for text in ("lr", "batch_size", "0.002", "100000"):
        assert text in printed
    assert "experiment" not in printed  # the same in all jobs
    assert [line.split(": ")[0] for line in printed.splitlines() if line.startswith("job ")] == [
        "job 1",
        "job 3",
    ]


def test_table_has_the_error_of_an_invalid_job(here: Path) -> None:
    with pytest.raises(SystemExit):
        launch(*FEW, "data=digits", "trainer.devices=2,1", "lr=-1,1e-3")
    [folder] = (here / "logs/multirun").iterdir()
    rows = table(folder)
    assert [row["status"] for row in rows] == ["failed", "failed", "failed", "finished"]
    reasons = ("lr=-1.0", "trainer.devices=2", "lr=-1.0", "")
    for row, reason in zip(rows, reasons, strict=True):
        assert row["error"].startswith(reason)


def test_jobs_resolve_auto_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests: list[list[str]] = []

    def no_network(urls: list[str]) -> str:
        requests.append(urls)
        return "no network in this test"

    monkeypatch.setattr(datasets, "unreachable", no_network)
    launch(*NO_METRICS, "data=auto", "seed=0,1", "logger=none", "callbacks=none")
    assert len(requests) == 1
    assert capsys.readouterr().out.count("NOT MNIST's images") == 1

    [folder] = (here / "logs/multirun").iterdir()
    assert [row["status"] for row in table(folder)] == ["finished"] * 2
    for summary in folder.glob("*/summary.json"):
        assert json.loads(summary.read_text())["data"] == "digits"


def test_jobs_with_different_data_resolve_auto_themselves(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[list[str]] = []
    monkeypatch.setattr(datasets, "unreachable", lambda urls: requests.append(urls) or "no network")
    launch(*NO_METRICS, "data=digits,auto", "logger=none", "callbacks=none")
    assert len(requests) == 1  # of the second job
    requests.clear()
    launch(*NO_METRICS, "data=digits", "seed=0,1", "logger=none", "callbacks=none")
    assert not requests


def test_ctrl_c_ends_a_sweep_with_its_table(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_step = GAN.run_step

    def interrupted(gan: GAN, batches: Sequence[Batch]) -> None:
        if gan.options.seed == 1:
            raise KeyboardInterrupt
        run_step(gan, batches)

    monkeypatch.setattr(GAN, "run_step", interrupted)
    with pytest.raises(SystemExit) as leaving:
        launch(*FEW, "data=digits", "seed=0,1,2")
    assert leaving.value.code == 130
    [folder] = (here / "logs/multirun").iterdir()
    assert [row["status"] for row in table(folder)] == ["finished", "interrupted", "not started"]
    monkeypatch.setattr(GAN, "run_step", run_step)
    (folder / "0_mine").mkdir()  # a user's own folder
    launch(f"resume={folder}")
    assert [row["status"] for row in table(folder)] == ["finished"] * 3
    launch(f"resume={folder}", "lr=7")  # no job is left


def test_failed_jobs_start_again(here: Path) -> None:
    with pytest.raises(SystemExit):
        launch(*FEW, "data=digits", "batch_size=8,100000")
    [folder] = (here / "logs/multirun").iterdir()
    with pytest.raises(SystemExit) as leaving:
        launch(f"resume={folder}")
    assert leaving.value.code == 1
    assert [row["status"] for row in table(folder)] == ["finished", "failed"]
    assert len([*folder.glob("1_*_stopped1/summary.json")]) == 1


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """The folder of a sweep of two jobs that have failed."""
    folder = tmp_path_factory.mktemp("sweeps") / "failed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANMNIST_DATA", str(digits_root))
        patch.setattr(sweep, "run_in_child", lambda function: function())
        words = ("data=digits", "seed=0,1", "batch_size=100000", f"hydra.sweep.dir={folder}")
        with pytest.raises(SystemExit):
            launch(*FEW, *words)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["settings"]["callbacks"].update(x={"_target_": "os.mkdir"}),
        lambda content: content["settings"]["logger"]["csv"].update(path="/elsewhere"),
        lambda content: content["settings"].update(folder="/elsewhere", lr="${oc.env:HOME}"),
        lambda content: content.update(folder="../elsewhere"),
        lambda content: content.update(folder=".."),
        lambda content: content.update(folder="jobs"),
        lambda content: content.update(folder="a\0b"),
        lambda content: content.update(folder="x" * 300),
        lambda content: content.update(overrides=["[/a]=[/b]"]),
        lambda content: content.update(settings=[]),
        lambda content: content.pop("overrides"),
    ],
)
def test_files_of_jobs_are_not_trusted(
    change: Callable[[dict[str, Any]], None],
    failed: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = here / "logs/multirun/received"
    shutil.copytree(failed, folder)
    content = yaml.safe_load((folder / "jobs/001.yaml").read_text())
    change(content)
    (folder / "jobs/001.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit) as leaving:
        launch(f"resume={folder}")
    assert leaving.value.code in (1, 2)
    assert "Traceback" not in "".join(capsys.readouterr())
    assert [path.name for path in here.iterdir()] == ["logs"]
    assert [path.name for path in (here / "logs/multirun").iterdir()] == [folder.name]


def test_sweep_without_jobs_is_refused(
    failed: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "received/jobs").mkdir(parents=True)
    with pytest.raises(SystemExit) as leaving:
        launch("resume=received")
    assert leaving.value.code == 2
    assert "jobs" in capsys.readouterr().err


def test_jobs_run_in_spawned_processes(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process has used torch, so it does not fork."""
    monkeypatch.chdir(tmp_path)
    launch(*NO_METRICS, "data=digits", "logger=none", "callbacks=none", "seed=1")
    [folder] = (tmp_path / "logs/multirun").iterdir()
    assert [row["status"] for row in table(folder)] == ["finished"]


def test_unknown_choice_refuses_the_sweep(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        launch(*FEW, "data=digits", "model=mlp,mpl")
    assert leaving.value.code == 2
    assert capsys.readouterr().err.startswith("ganmnist: Unknown model 'mpl'")


def start_sweep(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Starts a sweep in a process of its own."""
    command = [sys.executable, "-m", "ganmnist.train", *NO_METRICS, "data=digits", *words]
    command += ["checkpoint.every_n_batches=1", f"hydra.sweep.dir={folder / 'sweep'}"]
    quiet = subprocess.DEVNULL
    # A program that runs in the background may ignore Ctrl-C.
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=quiet,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_stopped_sweep_continues(number: int, tmp_path: Path, data_root: Path) -> None:
    words = ("seed=0,1", f"trainer.limit_train_batches={BATCHES}", "metrics=none")
    process = start_sweep(tmp_path, *words)
    sweep = tmp_path / "sweep"
    while not [*sweep.glob(f"0_*/{resume.LAST}")]:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    code = process.wait()
    assert code == (-9 if number == signal.SIGKILL else 130)
    [first] = sweep.glob("[01]_*")
    while is_locked(first):  # the job of a killed sweep saves and ends
        time.sleep(0.05)
    saved = read_checkpoint(first / resume.LAST)["batches_seen"]
    assert 0 < saved < BATCHES
    done = command(f"resume={sweep}", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in table(sweep)] == ["finished"] * 2
    for folder in sweep.glob("[01]_*"):
        assert read_checkpoint(folder / resume.LAST)["batches_seen"] == BATCHES


def test_job_without_a_summary_died(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for job in (0, 10, 2):
        (tmp_path / f"{job}_lr={job}/.hydra").mkdir(parents=True)
        (tmp_path / f"{job}_lr={job}/.hydra/overrides.yaml").write_text(f"- lr={job}\n")
    assert finish(tmp_path) == 3
    assert [(row["job"], row["lr"], row["status"]) for row in table(tmp_path)] == [
        ("0", "0", "died"),
        ("2", "2", "died"),
        ("10", "10", "died"),
    ]
