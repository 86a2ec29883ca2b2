"""metrics.csv: one row per step, also after a crash, a resume or a full disk."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from ganmnist.reporting.loggers import MetricsCSV
from ganmnist.utils.files import tolerate_write_errors


def rows_of(path: Path) -> list[dict[str, float]]:
    """The rows of a file without empty cells."""
    with path.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    return [{name: float(text) for name, text in row.items() if text} for row in rows]


@pytest.fixture
def log(tmp_path: Path) -> MetricsCSV:
    return MetricsCSV(tmp_path / "run/metrics.csv")


def test_scalars_of_one_step_share_a_row(log: MetricsCSV) -> None:
    log.log_rows({1: {"a": 1.0}, 2: {"a": 2.0}})
    log.log_metrics({"b": 3.0}, step=2)
    assert rows_of(log.path) == [{"step": 1, "a": 1}]  # more may come for step 2
    log.flush()
    log.log_metrics({"c": 4.0}, step=2)  # after it is in the file
    log.log_rows({3: {"a": 5.0}})
    log.finalize("success")
    assert rows_of(log.path) == [
        {"step": 1, "a": 1},
        {"step": 2, "a": 2, "b": 3, "c": 4},
        {"step": 3, "a": 5},
    ]


def test_numbers_are_kept_exactly(log: MetricsCSV) -> None:
    values = {"a": 0.1 + 0.2, "b": 1e-30, "c": 3, "d": float("inf")}
    log.log_rows({1: values})
    log.flush()
    assert MetricsCSV(log.path).truncate_after(1) == {1: values}


def test_truncate_after_removes_later_and_torn_rows(log: MetricsCSV) -> None:
    log.log_rows({n: {"a": float(n)} for n in range(1, 6)})
    log.flush()
    with log.path.open("a") as file:
        file.write("6,0.")
    resumed = MetricsCSV(log.path)
    assert resumed.truncate_after(3) == {1: {"a": 1}, 2: {"a": 2}, 3: {"a": 3}}
    resumed.log_rows({3: {"b": 9.0}, 4: {"a": 7.0}})
    resumed.flush()
    assert rows_of(log.path)[2:] == [{"step": 3, "a": 3, "b": 9}, {"step": 4, "a": 7}]


@pytest.mark.parametrize("content", ["", "\0" * 99, "a,b\n1,2\n"])
def test_file_without_content_starts_anew(
    content: str, log: MetricsCSV, caplog: pytest.LogCaptureFixture
) -> None:
    log.path.parent.mkdir()
    log.path.write_text(content)
    resumed = MetricsCSV(log.path)
    assert resumed.truncate_after(3) == {}
    assert str(log.path) in caplog.text
    resumed.log_rows({4: {"a": 7.0}})
    resumed.flush()
    assert rows_of(log.path) == [{"step": 4, "a": 7}]


def test_deleted_file_is_written_again(log: MetricsCSV) -> None:
    log.log_rows({1: {"a": 1.0}, 2: {"a": 2.0}})
    log.path.unlink()
    log.log_rows({3: {"a": 3.0}})
    log.flush()
    assert rows_of(log.path) == [{"step": n, "a": n} for n in (1, 2, 3)]


@pytest.mark.parametrize("columns", [["a"], ["a", "b"]])
def test_rows_wait_until_they_can_be_written(columns: list[str], log: MetricsCSV) -> None:
    log.log_rows({1: {"a": 1.0}, 2: {"a": 2.0}})
    log.flush()
    folder = log.path.parent
    away = folder.rename(folder.with_name("away"))
    folder.write_text("no folder")
    with tolerate_write_errors() as errors:
        for step in (3, 4, 5):
            log.log_rows({step: dict.fromkeys(columns, float(step))})
            log.flush()
        assert {*errors} == {log.path}
        folder.unlink()
        away.rename(folder)
        log.log_rows({6: {"a": 6.0}})
        log.flush()
        assert not errors
    rows = rows_of(log.path)
    assert [row["a"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["b"] for row in rows if "b" in row] == [3, 4, 5] * ("b" in columns)


# No file may be larger than a limit, which cuts a row.
FULL_DISK = """
import resource, sys
from pathlib import Path
from ganmnist.reporting.loggers import MetricsCSV
from ganmnist.utils.files import tolerate_write_errors

log = MetricsCSV(sys.argv[1])
log.log_rows({n: {"a": n / 7} for n in range(50)})
log.flush()
size = log.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 99, resource.RLIM_INFINITY))
with tolerate_write_errors() as errors:
    log.log_rows({n: {"a": n / 7} for n in range(50, 100)})
    log.flush()
    assert errors
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    log.flush()
    assert not errors
"""


def test_full_disk_loses_no_row(log: MetricsCSV) -> None:
    subprocess.run([sys.executable, "-c", FULL_DISK, str(log.path)], check=True)
    assert rows_of(log.path) == [{"step": n, "a": n / 7} for n in range(100)]


KILLED = """
import os, signal, sys, threading
from ganmnist.reporting.loggers import MetricsCSV

log = MetricsCSV(sys.argv[1])
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
step = 0
while True:
    log.log_rows({step + i: {"a": 1.0, f"b{step // 2000}": 2.0} for i in range(50)})
    step += 50
    if step % 100 == 0:
        log.flush()
        print(step - 1, flush=True)
"""


def test_killed_process_keeps_all_flushed_rows(log: MetricsCSV) -> None:
    words = [sys.executable, "-c", KILLED, str(log.path)]
    flushed = subprocess.run(words, capture_output=True, text=True).stdout.split()
    newest = int(flushed[-1]) if flushed else -1
    rows = MetricsCSV(log.path).truncate_after(newest)
    assert [*rows] == [*range(newest + 1)]
    assert all(len(row) == 2 for row in rows.values())
