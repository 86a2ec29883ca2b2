"""How long it takes from pressing Enter to recipe A's quality: experiment=speedrun, seed by seed.

    python scripts/speedrun.py [--seeds 0 1 2 3 4]

Each run is a process of its own; its seconds are those of the whole process, from imports to the
report, pictures and the table at its end among them. Results go to docs/speedrun.json, those of a
seed in the place of its earlier ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

FILE = Path(__file__).resolve().parents[1] / "docs/speedrun.json"
TRAIN = [sys.executable, "-m", "ganmnist.train", "trainer=cpu", "experiment=speedrun"]


def speedrun(seed: int, folder: str) -> dict[str, Any]:
    """One run: its seconds, and what its generator came to."""
    began = time.perf_counter()
    run = subprocess.run([*TRAIN, f"seed={seed}", f"hydra.run.dir={folder}"])
    seconds = time.perf_counter() - began
    if run.returncode:
        raise SystemExit(f"seed {seed} ended with {run.returncode}")
    summary = json.loads(Path(folder, "summary.json").read_text())
    metrics = summary["metrics"]
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "images_seen": summary["images_seen"],
        "arrived": summary["epochs"] < summary["settings"]["epochs"],
        "val_fid_ema": metrics["best"]["val_fid_ema"],
        "fid_ema": metrics["final"]["ema"]["fid"],
        "coverage_ema": metrics["final"]["ema"]["coverage"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    asked = parser.parse_args()
    earlier = json.loads(FILE.read_text())["runs"] if FILE.exists() else []
    runs = {run["seed"]: run for run in earlier}
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as folder:
            runs[seed] = {"date": date.today().isoformat(), **speedrun(seed, folder)}
        print(json.dumps(runs[seed]), flush=True)
        results = {
            "command": " ".join(["python", *TRAIN[1:]]),
            "machine": f"{os.cpu_count()} cores, {platform.platform()}, torch {torch.__version__}",
            "runs": [runs[seed] for seed in sorted(runs)],
        }
        FILE.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
