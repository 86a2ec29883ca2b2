"""Trains the rows of three tables in docs/results.md.

    python scripts/compare.py objectives [--rows hinge wgan_gp ...] [--seeds 0 1 2] [--jobs 2]
    python scripts/compare.py additions      penalties and stabilizers
    python scripts/compare.py stacked        modes of Stacked MNIST

A row with a result in docs/results/ is skipped, so the command can be stopped and repeated. Each
run has one thread. By default there are as many runs at once as CPU cores. Samples of seed 0 go to
docs/images/compare/.
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
    """The name and the settings of every missing run."""
    for seed in seeds:
        for row in rows:
            name = f"{table}_{row}"
            if not (RESULTS / f"{name}_seed{seed}.json").exists():
                yield name, [*TABLES[table][row], f"name={name}", f"seed={seed}"]


def train(name: str, settings: Sequence[str]) -> None:
    """Trains one run and keeps its result, also if it has diverged."""
    command = [sys.executable, "-m", "ganmnist.train", "trainer=cpu", *settings]
    print("python", *command[1:], flush=True)
    before = {*Path("logs", name).glob("*/summary.json")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
    # A run with another seed may have ended meanwhile.
    for file in {*Path("logs", name).glob("*/summary.json")} - before:
        summary = json.loads(file.read_text())
        if f"seed={summary['settings']['seed']}" in settings:
            if summary["status"] == "finished" or "diverged" in summary["error"]:
                keep(file.parent)
                has_weights = (file.parent / "checkpoints/last.ckpt").exists()
                if has_weights and summary["settings"]["seed"] == 0:
                    save_samples(file.parent, DOCS / f"images/compare/{name}.png")
                return
            break
    print(f"{name} {settings[-1]} failed. See logs/{name}.", flush=True)


def save_samples(run: Path, path: Path, count: int = 8) -> None:
    """Saves a row of images of the last checkpoint."""
    from ganmnist import load
    from ganmnist.reporting import images
    from ganmnist.utils.rng import generator_for

    x = load(run, "last").sampler.uint8(count, generator_for("generate", 0))
    path.parent.mkdir(exist_ok=True)
    images.save(images.grid(x.permute(0, 2, 3, 1).numpy(), count), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--rows", nargs="*", help="rows of the table; default: all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    rows = arguments.rows or [*TABLES[arguments.table]]
    if unknown := set(rows) - TABLES[arguments.table].keys():
        parser.error(
            f"Unknown row {', '.join(unknown)}. Available: {', '.join(TABLES[arguments.table])}."
        )
    try:
        with ThreadPoolExecutor(arguments.jobs) as pool:
            runs = [
                pool.submit(train, *run) for run in missing(arguments.table, rows, arguments.seeds)
            ]
        for run in runs:
            run.result()
    finally:
        write()


if __name__ == "__main__":
    main()
