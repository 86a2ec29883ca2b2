"""Measures the resources of a run of 100 epochs, and checks eight runs that start at once.

    python scripts/endurance.py [long] [concurrent]

Linux only: it reads /proc. Results go to docs/endurance.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch

FILE = Path(__file__).resolve().parents[1] / "docs/endurance.json"
TRAIN = [sys.executable, "-m", "ganmnist.train", "trainer=cpu"]

# Recipe B with all callbacks and 100 short epochs.
LONG = [*TRAIN, "experiment=report_mlp", "ema=0.999", "trainer.limit_train_batches=200"]
EPOCHS = 100
CONCURRENT = [*TRAIN, "data=digits", "model=mlp", "epochs=2", "trainer.limit_train_batches=20"]
CONCURRENT += ["metrics.n=200", "metrics.val_n=200", "metrics.table={}"]
RUNS = 8


def usage(pid: int) -> dict[str, float]:
    """Memory, threads and open files of a process."""
    process = Path("/proc", str(pid))
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return {
        "rss_mb": round(int(status["VmRSS"].split()[0]) / 1024),
        "threads": int(status["Threads"]),
        "open_files": len([*(process / "fd").iterdir()]),
    }


def long(folder: Path) -> dict[str, Any]:
    """Resources of a long run after some epochs, its speed over time, the size of its folder."""
    run = folder / "run"
    process = subprocess.Popen([*LONG, f"hydra.run.dir={run}"], stdout=subprocess.DEVNULL)
    resources = {}
    for epoch in (1, 20, 50, EPOCHS):
        while not (run / f"samples/epoch_{epoch:03d}.png").exists():
            if process.poll() is not None:
                raise SystemExit(f"The run ended with exit code {process.returncode}.")
            time.sleep(0.05)
        resources[epoch] = usage(process.pid)
    if process.wait():
        raise SystemExit(f"The run ended with exit code {process.returncode}.")
    with (run / "metrics.csv").open(newline="") as file:
        speeds = [float(s) for row in csv.DictReader(file) if (s := row["train/images_per_s"])]
    tenth = len(speeds) // 10
    parts = [speeds[i * tenth : (i + 1) * tenth] for i in range(10)]
    size = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    return {
        "command": " ".join(["python", *LONG[1:]]),
        "after_epoch": resources,
        "images_per_s_of_each_tenth": [round(median(part)) for part in parts],
        "folder_mb": round(size / 1e6, 1),
    }


def concurrent(folder: Path) -> dict[str, Any]:
    """Exit codes, folders and checkpoints of runs that start at once in one folder."""
    data = folder / "data"
    command = [*CONCURRENT, f"data.root={data}"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "cwd": folder}
    runs = [subprocess.Popen(command, **quiet) for _ in range(RUNS)]
    first = None
    while any(run.poll() is None for run in runs):
        for file in data.glob("digits/*.npz"):
            first = first or (file.stat().st_ino, file.stat().st_mtime_ns)
        time.sleep(0.05)
    (file,) = data.glob("digits/*.npz")
    summaries = [json.loads(path.read_text()) for path in folder.glob("logs/**/summary.json")]
    checkpoints = folder.glob("logs/**/last.ckpt")
    return {
        "command": " ".join(["python", *CONCURRENT[1:]]),
        "started_at_once": RUNS,
        "exit_codes": sorted(run.returncode for run in runs),
        "folders": len(summaries),
        "finished": sum(summary["status"] == "finished" for summary in summaries),
        "complete_checkpoints": sum(
            torch.load(path, weights_only=True)["epochs_seen"] == 2 for path in checkpoints
        ),
        "data_written_once": first == (file.stat().st_ino, file.stat().st_mtime_ns),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "trials", nargs="*", default=["long", "concurrent"], help="long, concurrent"
    )
    arguments = parser.parse_args()
    results = json.loads(FILE.read_text()) if FILE.exists() else {}
    results["machine"] = f"{os.cpu_count()} cores, {platform.platform()}, torch {torch.__version__}"
    for name in arguments.trials:
        with tempfile.TemporaryDirectory() as folder:
            trial = {"long": long, "concurrent": concurrent}[name]
            results[name] = {"date": date.today().isoformat(), **trial(Path(folder))}
        print(json.dumps(results[name], indent=2), flush=True)
        FILE.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
