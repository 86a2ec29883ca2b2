"""Kills real runs at random moments and compares what came of them with runs that nobody killed.

    python scripts/faults.py [--kills 50] [--seed 0] [GAME ...]

A game is a short run of one kind: in float32 or bf16, with batches in chunks, in two processes.
Results go to docs/faults.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from ganmnist.resume import finished

DOCS = Path(__file__).resolve().parents[1] / "docs"
# On the embedded digits, 46 batches an epoch, saved after every fifth.
SHORT = [
    *(
        "trainer=cpu",
        "trainer.limit_train_batches=46",
        "data=digits",
        "epochs=6",
        "every=20",
        "log_every=7",
        "metrics.val_n=200",
    ),
    *("metrics.n=200", "metrics.table={}", "ema=0.9", "checkpoint.every_n_batches=5"),
]
GAMES = {
    "float32": ["model=mlp", "objective=bce_logits", "schedule=cosine"],
    "bf16": ["model=mlp", "objective=hinge", "trainer.precision=bf16-mixed"],
    "chunks": ["model=mlp", "objective=rpgan_r1r2", "datamodule.chunk=8", "gan.accumulate=3"],
    "ddp": ["model=mlp", "objective=bce_logits", "trainer.devices=2", "batch_size=32"],
}


def start(errors: Path, *settings: str) -> subprocess.Popen[bytes]:
    """A run; what it says of errors is added to a file."""
    command = [sys.executable, "-m", "ganmnist.train", *settings]
    with errors.open("a") as file:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=quiet, stderr=file, start_new_session=True)


def processes(run: subprocess.Popen[bytes]) -> list[int]:
    """The run's own and those that it has started."""
    words = ["pgrep", "-f", "-g", str(run.pid), "ganmnist.train"]
    return [*map(int, subprocess.run(words, capture_output=True, text=True).stdout.split())]


def kill(run: subprocess.Popen[bytes]) -> None:
    """The run and the processes it has started, at once."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def kill_one(run: subprocess.Popen[bytes], errors: Path, rng: random.Random) -> None:
    """One of several processes; the others have to end by themselves, and to say why."""
    said = errors.read_text()
    ranks = processes(run) or [run.pid]
    os.kill(rng.choice(ranks), signal.SIGKILL)
    until = time.monotonic() + 60
    while run.poll() is None or processes(run):
        assert time.monotonic() < until, f"{processes(run)} of {ranks} live on after a minute"
        time.sleep(0.1)
    if len(ranks) > 1 and run.returncode:
        assert "so the run was stopped" in errors.read_text().removeprefix(said)


def killed(folder: Path, settings: list[str], kills: int, rng: random.Random) -> int:
    """Trains into a folder, killed so many times; returns how often it was."""
    last, errors = folder / "checkpoints/last.ckpt", folder.with_suffix(".err")
    to_begin = 0.0  # seconds until the first checkpoint, when it was last waited for
    for done in range(kills + 1):
        if last.exists():
            run = start(errors, f"resume={folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
            run = start(errors, *settings, f"hydra.run.dir={folder}")
        if done == kills:
            break
        began = time.monotonic()
        if rng.random() < 0.5 and to_begin:  # at any moment, mostly before it trains
            time.sleep(rng.uniform(0, to_begin))
        else:
            before = last.stat().st_mtime_ns if last.exists() else 0
            while run.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
                time.sleep(0.001)
            to_begin = time.monotonic() - began
            time.sleep(rng.uniform(0, 0.1))  # a checkpoint or two; some hit one being written
        if run.poll() is not None:
            break
        if "trainer.devices=2" in settings and rng.random() < 0.5:
            kill_one(run, errors, rng)
        else:
            kill(run)
        if finished(folder):
            return done + 1
    if run.wait():
        raise SystemExit(f"resume={folder} ended with {run.returncode}: {errors.read_text()}")
    return done


def same(a: Any, b: Any) -> bool:
    """Whether two trees of tensors and numbers are the same to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without what it says of time."""
    with (folder / "metrics.csv").open(newline="") as file:
        found = [*csv.DictReader(file)]
    return [{k: v for k, v in row.items() if v and "images_per_s" not in k} for row in found]


def compare(one: Path, other: Path) -> dict[str, bool]:
    a, b = (torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (one, other))
    return {
        "weights": same(a["state_dict"], b["state_dict"]),
        "optimisers": same(a["optimizer_states"], b["optimizer_states"]),
        "metrics.csv": rows(one) == rows(other),
        **{
            name: (one / name).read_bytes() == (other / name).read_bytes()
            for name in ("progress.gif", "epochs.png")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("games", nargs="*", default=[*GAMES])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    file = DOCS / "faults.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for game in asked.games:
        rng = random.Random(f"{asked.seed} {game}")
        settings = [*SHORT, *GAMES[game], f"task={game}"]
        with tempfile.TemporaryDirectory() as place:
            whole, broken = Path(place) / "whole", Path(place) / "broken"
            if start(Path(place) / "whole.err", *settings, f"hydra.run.dir={whole}").wait():
                raise SystemExit(f"{game} does not run: {' '.join(settings)}")
            times = killed(broken, settings, asked.kills, rng)
            results[game] = {"killed": times, "the same": compare(whole, broken)}
        print(game, results[game], flush=True)
        results[game] |= {
            "command": f"python scripts/faults.py {game} --kills {asked.kills} --seed {asked.seed}",
            "date": date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.platform()}, torch {torch.__version__}",
        }
        file.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
