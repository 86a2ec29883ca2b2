"""Trains the rows of three tables in docs/results.md.

    python scripts/compare.py objectives [--rows hinge wgan_gp ...] [--seeds 0 1 2] [--jobs 2]
    python scripts/compare.py additions      (penalties and stabilisers)
    python scripts/compare.py stacked        (what keeps the modes of stacked digits)

A row that docs/results/ has already is left out, so the command may be stopped and given again.
Each run has one thread; as many run at once as there are cores. What seed 0 draws at its end goes
to docs/images/compare/.
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

from results import DOCS, RESULTS, keep, write

OBJECTIVES = [
    *("bce", "bce_logits", "minimax", "lsgan", "hinge", "wgan", "wgan_gp", "dragan"),
    *("ragan", "rpgan", "rpgan_r1r2", "feature_matching"),
    *("fgan_kl", "fgan_reverse_kl", "fgan_js", "fgan_pearson", "fgan_hellinger"),
]
ADDITIONS = {
    "penalty": ["r1", "r2", "gradient_penalty", "dragan", "feature_matching", "historical_average"],
    "stabilizer": [
        *("spectral_norm", "instance_noise", "diffaugment", "minibatch_std"),
        *("minibatch_discrimination", "pacgan", "unrolled", "label_smoothing"),
    ],
    "optimizer": ["ttur"],
}
TABLES = {
    "objectives": {name: ["experiment=comparison", f"objective={name}"] for name in OBJECTIVES},
    "additions": {
        name: ["experiment=comparison", f"{group}={name}"]
        for group, names in ADDITIONS.items()
        for name in names
    },
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
                keep(file.parent)
                drawn = (file.parent / "checkpoints/last.ckpt").exists()  # a diverged one may not
                if drawn and summary["settings"]["seed"] == 0:
                    draw(file.parent, DOCS / f"images/compare/{task}.png")
                return
            break
    print(f"failed: {task} {settings[-1]}, see logs/{task}", flush=True)


def draw(run: Path, picture: Path, count: int = 8) -> None:
    """A row of images of a run's last checkpoint."""
    from ganmnist import images, load
    from ganmnist.rng import generator_for

    x = load(run, "last").draw(count, generator_for("generate", 0))
    picture.parent.mkdir(exist_ok=True)
    images.save(images.grid(x.permute(0, 2, 3, 1).numpy(), count), picture)


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
