"""Trains the rows of two tables of docs/results.md: every objective, and ways to keep the modes.

    python scripts/compare.py objectives [--rows hinge wgan_gp ...] [--seeds 0 1 2] [--jobs 2]
    python scripts/compare.py stacked

A row that docs/results/ has already is left out, so the command may be stopped and given again.
Each run has one thread; as many run at once as there are cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from results import RESULTS, keep, write

OBJECTIVES = [
    *("bce", "bce_logits", "minimax", "lsgan", "hinge", "wgan", "wgan_gp", "dragan"),
    *("ragan", "rpgan", "rpgan_r1r2", "feature_matching"),
    *("fgan_kl", "fgan_reverse_kl", "fgan_js", "fgan_pearson", "fgan_hellinger"),
]
TABLES = {
    "objectives": {name: ["experiment=comparison", f"objective={name}"] for name in OBJECTIVES},
    "stacked": {
        "dcgan": ["experiment=stacked", "objective=bce_logits"],
        "pacgan": ["experiment=stacked", "objective=bce_logits", "stabilizer=pacgan"],
        "wgan_gp": ["experiment=stacked", "objective=wgan_gp"],
        "rpgan_r1r2": ["experiment=stacked", "objective=rpgan_r1r2"],
    },
}


def missing(
    table: str, rows: Sequence[str], seeds: Sequence[int]
) -> Iterator[tuple[str, list[str]]]:
    """The name of every result that there is not, and the settings that make it."""
    for seed in seeds:
        for row in rows:
            task = f"{table}_{row}"
            if not (RESULTS / f"{task}_seed{seed}.json").exists():
                yield task, [*TABLES[table][row], f"task={task}", f"seed={seed}"]


def train(task: str, settings: Sequence[str]) -> None:
    """One run, whose result is kept if it has one; that it has diverged is one too."""
    command = [sys.executable, "-m", "ganmnist.train", "trainer=cpu", *settings]
    print("python", *command[1:], flush=True)
    before = {*Path("logs", task).glob("*/summary.json")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
    # Another seed of the task may be running, or have ended just now.
    for file in {*Path("logs", task).glob("*/summary.json")} - before:
        summary = json.loads(file.read_text())
        if f"seed={summary['settings']['seed']}" in settings:
            if summary["status"] == "finished" or "diverged" in summary["error"]:
                return keep(file.parent)
            break
    print(f"failed: {task} {settings[-1]}, see logs/{task}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--rows", nargs="*", help="of the table; all without")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    rows = asked.rows or [*TABLES[asked.table]]
    if unknown := set(rows) - TABLES[asked.table].keys():
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(TABLES[asked.table])}")
    try:
        with ThreadPoolExecutor(asked.jobs) as pool:
            runs = [pool.submit(train, *run) for run in missing(asked.table, rows, asked.seeds)]
        for run in runs:
            run.result()
    finally:
        write()


if __name__ == "__main__":
    main()
