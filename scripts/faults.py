"""Kills runs at random moments, resumes them, and compares them with uninterrupted runs.

    python scripts/faults.py [--kills 50] [--seed 0] [CASE ...]

A case is a short run: in float32 or bf16, with batches in chunks, in two processes, or with a
family, stabilizers or penalties. Results go to docs/faults.json.
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

from ganmnist.runs.resume import finished

DOCS = Path(__file__).resolve().parents[1] / "docs"
# 46 batches an epoch, and a checkpoint after every fifth.
SHORT = [
    *("trainer=cpu", "trainer.limit_train_batches=46", "data=digits", "epochs=6", "ema=0.9"),
    *("sample_every=20", "log_every=7", "checkpoint.every_n_batches=5"),
    *("metrics.n=200", "metrics.val_n=200", "metrics.table={}"),
]
NARROW = ["model.generator.widths=[16,8,8]", "model.discriminator.widths=[8,8]"]
CASES = {
    "float32": ["model=mlp", "objective=bce_logits", "schedule=cosine"],
    "bf16": ["model=mlp", "objective=hinge", "trainer.precision=bf16-mixed"],
    "chunks": ["model=mlp", "objective=rpgan_r1r2", "datamodule.chunk=8", "gan.accumulate=3"],
    "ddp": ["model=mlp", "objective=bce_logits", "trainer.devices=2", "batch_size=32"],
    "steps": ["model=mlp", "objective=wgan", "gan.d_steps=3", "gan.g_steps=2"],
    **{
        family: [f"family={family}", *NARROW]
        for family in ("gan", "infogan", "bigan", "semisupervised", "acgan")
    },
    "lapgan": ["family=lapgan", "family.generator.width=8", "family.discriminator.width=8"],
    "images": ["stabilizer=[diffaugment,instance_noise,label_smoothing]", *NARROW],
    "batches": ["stabilizer=[minibatch_discrimination,minibatch_std]", *NARROW],
    "spectral_norm": ["stabilizer=spectral_norm", *NARROW],
    "pacgan": ["stabilizer=pacgan", *NARROW],
    "unrolled": ["stabilizer=unrolled", *NARROW],
    "slopes": ["objective=hinge", "penalty=[r1,r2,historical_average]", *NARROW],
    "wgan_gp": ["objective=wgan_gp", *NARROW],
    "dragan": ["objective=dragan", *NARROW],
    "feature_matching": ["objective=feature_matching", *NARROW],
}


def start(errors: Path, *settings: str) -> subprocess.Popen[bytes]:
    """Starts a run. Its error output is appended to a file."""
    command = [sys.executable, "-m", "ganmnist.train", *settings]
    with errors.open("a") as file:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=quiet, stderr=file, start_new_session=True)


def processes(run: subprocess.Popen[bytes]) -> list[int]:
    """The process of a run and those that it has started."""
    args = ["pgrep", "-f", "-g", str(run.pid), "ganmnist.train"]
    return [*map(int, subprocess.run(args, capture_output=True, text=True).stdout.split())]


def kill(run: subprocess.Popen[bytes]) -> None:
    """Kills all processes of a run."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def kill_one(run: subprocess.Popen[bytes], errors: Path, rng: random.Random) -> None:
    """Kills one process of a run. The others must end by themselves and report it."""
    before = errors.read_text()
    ranks = processes(run) or [run.pid]
    os.kill(rng.choice(ranks), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while run.poll() is None or processes(run):
        assert time.monotonic() < deadline, f"{processes(run)} of {ranks} still run after a minute"
        time.sleep(0.1)
    if len(ranks) > 1 and run.returncode:
        assert "rank" in errors.read_text().removeprefix(before)


def train_with_kills(folder: Path, settings: list[str], kills: int, rng: random.Random) -> int:
    """Trains in a folder and kills the run several times. Returns the number of kills."""
    last, errors = folder / "checkpoints/last.ckpt", folder.with_suffix(".err")
    startup = 0.0  # seconds from the start of a process to its first checkpoint
    for done in range(kills + 1):
        if last.exists():
            run = start(errors, f"resume={folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
            run = start(errors, *settings, f"hydra.run.dir={folder}")
        if done == kills:
            break
        began = time.monotonic()
        if rng.random() < 0.5 and startup:  # mostly before the training starts
            time.sleep(rng.uniform(0, startup))
        else:
            before = last.stat().st_mtime_ns if last.exists() else 0
            while run.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
                time.sleep(0.001)
            startup = time.monotonic() - began
            time.sleep(rng.uniform(0, 0.1))  # within a checkpoint or two; some kills hit a write
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
    """Whether two trees of tensors and numbers are bit-identical."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without images/s."""
    with (folder / "metrics.csv").open(newline="") as file:
        found = [*csv.DictReader(file)]
    return [{k: v for k, v in row.items() if v and "images_per_s" not in k} for row in found]


def compare(one: Path, other: Path) -> dict[str, bool]:
    """Which outputs of two runs are identical."""
    a, b = (torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (one, other))
    return {
        "weights": same(a["state_dict"], b["state_dict"]),
        "optimizers": same(a["optimizer_states"], b["optimizer_states"]),
        "metrics.csv": rows(one) == rows(other),
        **{
            name: (one / name).read_bytes() == (other / name).read_bytes()
            for name in ("progress.gif", "epochs.png")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=[*CASES])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    options = ["--kills", str(arguments.kills), "--seed", str(arguments.seed)]
    file = DOCS / "faults.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for case in arguments.cases:
        rng = random.Random(f"{arguments.seed} {case}")
        settings = [*SHORT, *CASES[case], f"name={case}"]
        with tempfile.TemporaryDirectory() as folder:
            whole, interrupted = Path(folder) / "whole", Path(folder) / "broken"
            if start(Path(folder) / "whole.err", *settings, f"hydra.run.dir={whole}").wait():
                raise SystemExit(f"{case} failed: {' '.join(settings)}")
            n_kills = train_with_kills(interrupted, settings, arguments.kills, rng)
            results[case] = {"killed": n_kills, "identical": compare(whole, interrupted)}
        print(case, results[case], flush=True)
        results[case] |= {
            "command": " ".join(["python scripts/faults.py", case, *options]),
            "date": date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.platform()}, torch {torch.__version__}",
        }
        file.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
