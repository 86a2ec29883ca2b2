"""Compares what two checkouts train, bit by bit.

    python scripts/fingerprint.py                       print one hash per case
    python scripts/fingerprint.py --tree DIR ...        the same for other checkouts, side by side
    python scripts/fingerprint.py --case infogan bigan  only these cases

Each case trains 200 batches on one CPU thread with a fixed seed. The hash covers the values of all
parameters and buffers in the order of the state dict, and not their names. Hashes depend on the CPU
and on the version of PyTorch: compare only hashes of one machine. To check that a change keeps the
behavior, run the commit before it from a git worktree:

    git worktree add /tmp/before HEAD~1
    python scripts/fingerprint.py --tree /tmp/before --tree .
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Settings that every version of the project knows.
COMMON = "data=mnist metrics=none logger=none epochs=1 seed=7 trainer=cpu trainer.precision=32-true"
CASES = {
    "recipe A": "experiment=paper_dcgan",
    "recipe B": "experiment=report_mlp",
    "flagship": "experiment=flagship",
    "infogan": "experiment=paper_infogan",
    "bigan": "experiment=paper_bigan",
    "aae": "experiment=comparison family=aae",
    "semisupervised": "experiment=few_labels",
    "lapgan": "experiment=comparison family=lapgan",
    "ring8": "data=ring8",
}
BATCHES = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", nargs="+", action="extend", type=Path, help="checkouts")
    parser.add_argument("--case", nargs="+", choices=[*CASES], default=[*CASES])
    args = parser.parse_args()
    trees = [tree.resolve() for tree in args.tree or [ROOT]]
    differ = []
    for case in args.case:
        hashes = [fingerprint(tree, CASES[case]) for tree in trees]
        same = len(set(hashes)) == 1
        differ += [] if same else [case]
        print(f"{case:<16}{'  '.join(hashes)}{'' if same else '  DIFFERENT'}", flush=True)
    if differ:
        sys.exit(f"Different: {', '.join(differ)}.")


def fingerprint(tree: Path, settings: str) -> str:
    """The first 16 hex digits of the hash, after a training by the code in `tree`."""
    common = [w for w in COMMON.split() if w.partition("=")[0] + "=" not in settings]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        limit = f"trainer.limit_train_batches={BATCHES}"
        overrides = [*settings.split(), *common, limit, f"hydra.run.dir={run}"]
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree / "src")}
        command = [sys.executable, "-m", "ganmnist.train", *overrides]
        done = subprocess.run(
            command, cwd=tree, env=os.environ | own, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{tree}: {' '.join(overrides)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return hash_weights(run / "checkpoints/last.ckpt")


def hash_weights(path: Path) -> str:
    import torch

    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if checkpoint["batches_seen"] != BATCHES:
        sys.exit(f"{path}: {checkpoint['batches_seen']} batches instead of {BATCHES}.")
    sha = hashlib.sha256()
    for tensor in checkpoint["state_dict"].values():
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


if __name__ == "__main__":
    main()
