"""A sweep: a folder per job, a table of all jobs, and no stop after a job that fails."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.launch import BRIEFLY_MEASURED, launch

from ganmnist.data import datasets
from ganmnist.gan import GAN
from ganmnist.runs.sweep import finish
from ganmnist.utils.batch import Batch

NO_METRICS = ("-m", "trainer=cpu", "experiment=debug", "epochs=1", "trainer.limit_train_batches=2")
FEW = (*NO_METRICS, *BRIEFLY_MEASURED)


def table(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


@pytest.fixture
def here(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sweep_writes_a_folder_per_job_and_a_table(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        launch(*FEW, "data=digits", "lr=1e-3,2e-3", "batch_size=8,100000")
    assert leaving.value.code == 1  # two of the four jobs fail

    [sweep] = (here / "logs/multirun").iterdir()
    rows = table(sweep)
    settings = [("0.001", "8"), ("0.001", "100000"), ("0.002", "8"), ("0.002", "100000")]
    assert [(row["lr"], row["batch_size"]) for row in rows] == settings
    assert [row["status"] for row in rows] == ["finished", "failed", "finished", "failed"]
    assert [row["experiment"] for row in rows] == ["debug"] * 4

    folders = sorted(path for path in sweep.iterdir() if path.is_dir())
    for (lr, batch_size), row, folder in zip(settings, rows, folders, strict=True):
        assert folder.name.startswith(f"{row['job']}_batch_size={batch_size},")
        assert f",lr={lr}," in folder.name
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["status"] == row["status"]
        if row["status"] == "finished":
            assert float(row["val_fid"]) == summary["value"]
            assert (folder / "checkpoints/last.ckpt").is_file()
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
    [sweep] = (here / "logs/multirun").iterdir()
    rows = table(sweep)
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

    [sweep] = (here / "logs/multirun").iterdir()
    assert [row["status"] for row in table(sweep)] == ["finished"] * 2
    for summary in sweep.glob("*/summary.json"):
        assert json.loads(summary.read_text())["data"] == "digits"


def test_jobs_with_different_data_resolve_auto_themselves(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[list[str]] = []
    monkeypatch.setattr(datasets, "unreachable", lambda urls: requests.append(urls) or "no network")
    launch(*NO_METRICS, "data=digits,auto", "logger=none", "callbacks=none")
    assert len(requests) == 1
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
    [sweep] = (here / "logs/multirun").iterdir()
    assert [row["status"] for row in table(sweep)] == ["finished", "interrupted"]


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
