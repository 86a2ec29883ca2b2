"""Measures how long a run needs to stop after Ctrl-C or a signal of a cluster.

    python scripts/stop_latency.py [--repeats 5] [SETTING ...]

Each run trains recipe A on the digits. The signal comes after the line of batch 20. Prints, and
writes to docs/stop_latency.json: the batches that the run completed after that line, the seconds
from the signal to the message, and those to the end of the process, with images, plots and report.
"Ctrl-C twice" sends the second signal after the message of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import torch

from ganmnist.runs.cpu import available_cores, capability, cpu_model

OUT = Path(__file__).resolve().parents[1] / "docs/stop_latency.json"
LAST_LINE = 20  # batch
RUN = ["data=digits", "trainer=cpu", "epochs=1000", "print_every=10"]
CASES = {
    "SIGTERM": [signal.SIGTERM],
    "SIGUSR1": [signal.SIGUSR1],
    "Ctrl-C": [signal.SIGINT],
    "Ctrl-C twice": [signal.SIGINT, signal.SIGINT],
}


def measure(signals: list[signal.Signals], settings: list[str]) -> dict[str, float]:
    """Seconds to the message and to the end, and the batches after the last line."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "ganmnist.train", *RUN, *settings, f"hydra.run.dir={run}"]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        while f"batch {LAST_LINE}/" not in process.stdout.readline():
            if process.poll() is not None:
                sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}")
        first, *others = signals
        start = time.perf_counter()
        process.send_signal(first)
        while "stopping after this batch" not in process.stdout.readline():
            pass
        answered = time.perf_counter() - start
        for number in others:
            process.send_signal(number)
        process.stdout.read()
        process.wait()
        seconds = time.perf_counter() - start
        batches = json.loads((run / "summary.json").read_text())["batches_seen"] - LAST_LINE
        return {"batches": batches, "to_message": answered, "to_end": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("settings", nargs="*", help="such as trainer.precision=bf16-mixed")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    results = {}
    for name, signals in CASES.items():
        runs = [measure(signals, arguments.settings) for _ in range(arguments.repeats)]
        results[name] = {key: [round(run[key], 2) for run in runs] for key in runs[0]}
        print(
            f"{name:<13}", {k: f"{median(v):g} (to {max(v):g})" for k, v in results[name].items()}
        )
    content = {
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": f"{available_cores()} cores, {cpu_model()}, {capability()}, "
        f"torch {torch.__version__}",
        "results": results,
    }
    OUT.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
