"""Trains an experiment with several seeds and measures the time of the whole command.

    python scripts/seeds.py speedrun [--seeds 0 1 2 3 4]
    python scripts/seeds.py flagship --seeds 0 1 2 --settings trainer.precision=32-true

Each run is a process of its own. Its seconds include imports, images, final metrics and the report.
Results go to docs/NAME.json. A seed replaces its earlier result.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from ganmnist.runs.cpu import available_cores, capability, cpu_model

DOCS = Path(__file__).resolve().parents[1] / "docs"


def run(args: list[str], seed: int, folder: str) -> dict[str, Any]:
    """One run: its seconds, and the final metrics with EMA weights."""
    start = time.perf_counter()
    done = subprocess.run([*args, f"seed={seed}", f"hydra.run.dir={folder}"])
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"Seed {seed} failed with exit code {done.returncode}.")
    summary = json.loads(Path(folder, "summary.json").read_text())
    metrics = summary["metrics"]
    return {
        "date": date.today().isoformat(),
        "seed": seed,
        "cpu": f"{cpu_model()}, {capability()}",
        "seconds": round(seconds, 1),
        "images_seen": summary["images_seen"],
        "ended_early": summary["epochs"] < summary["settings"]["epochs"],
        **{name: round(value, 4) for name, value in metrics["final"]["ema"].items()},
    }


def deviations(runs: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """The mean and the standard deviation over the seeds, for each kind of CPU with several."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        kinds.setdefault(str(run.get("cpu")), []).append(run)
    return {
        cpu: {
            name: [round(f([run[name] for run in same]), 4) for f in (mean, stdev)]
            for name in ("seconds", "fid")
        }
        for cpu, same in kinds.items()
        if len(same) > 1
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiment", help="a choice of conf/experiment/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--settings", nargs="*", default=[], help="overrides for ganmnist.train")
    arguments = parser.parse_args()
    args = [sys.executable, "-m", "ganmnist.train", "trainer=cpu"]
    args += [f"experiment={arguments.experiment}", *arguments.settings]
    file = DOCS / f"{arguments.experiment}.json"
    runs = {r["seed"]: r for r in json.loads(file.read_text())["runs"]} if file.exists() else {}
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            runs[seed] = run(args, seed, folder)
        print(json.dumps(runs[seed]), flush=True)
        ordered = [runs[seed] for seed in sorted(runs)]
        results = {
            "command": " ".join(["python", *args[1:]]),
            "machine": f"{available_cores()} cores, torch {torch.__version__}",
            "mean_and_deviation": deviations(ordered),
            "runs": ordered,
        }
        file.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
