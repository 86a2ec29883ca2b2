"""Published figures beside ours, a row each, by commands that may be stopped and given again.

    python scripts/reproduce.py [ROW ...]

Without rows it makes all that are missing. A row's run lies in logs/reproduce/ROW: one that was
broken off goes on where it was, one that is finished is not run again. docs/reproduction.json gets
the figures, docs/reproduction.md the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch

DOCS = Path(__file__).resolve().parents[1] / "docs"
RUNS = Path("logs/reproduce")
HEAD = """# Published figures and ours

Made by `python scripts/reproduce.py`, which trains the rows named to it, or goes on with them; the
figures are explained in [families.md](families.md). One seed each unless it says so, by the weights
as trained, {machine}. Networks are smaller than the papers' and
trained for less: a row says how long, and the same command with more `epochs` goes further.

| row | figure | ours | published | epochs | minutes | settings |
|---|---|---|---|---|---|---|
"""


class Row(NamedTuple):
    settings: str
    figure: str
    published: str  # what the paper has, in the figure's unit
    paper: str  # its number at arXiv


def few_labels(n: int, published: str) -> Row:
    words = "experiment=comparison family=semisupervised objective=feature_matching epochs=15"
    return Row(f"{words} gan.labelled={n}", "test_error", published, "1606.03498")


ROWS = {
    "infogan": Row(
        "experiment=paper_dcgan family=infogan latent_dim=74 optimizer.g.lr=1e-3 epochs=8",
        "code_error",
        "0.05",
        "1606.03657",
    ),
    "bigan": Row(
        "experiment=comparison family=bigan epochs=20", "nn_accuracy", "0.974", "1605.09782"
    ),
    # Test errors of 10,000, over ten choices of labels.
    "few_labels_20": few_labels(20, "0.1677 +- 0.0452"),
    "few_labels_50": few_labels(50, "0.0221 +- 0.0136"),
    "few_labels_100": few_labels(100, "0.0093 +- 0.0007"),
    "few_labels_200": few_labels(200, "0.0090 +- 0.0004"),
}


def run(name: str, settings: str) -> None:
    """Begins a row's run, or goes on with it."""
    folder = RUNS / name
    if (folder / "checkpoints/last.ckpt").exists():
        words = [f"resume={folder}"]
    else:
        words = ["trainer=cpu", *settings.split(), f"task={name}", f"hydra.run.dir={folder}"]
    subprocess.run([sys.executable, "-m", "ganmnist.train", *words], check=True)


def summary_of(name: str) -> dict[str, Any]:
    """What a row's run came to; nothing where it has not ended."""
    file = RUNS / name / "summary.json"
    summary = json.loads(file.read_text()) if file.exists() else {}
    return summary if summary.get("status") == "finished" else {}


def table(results: dict[str, Any]) -> str:
    """The rows that there are, as markdown."""
    lines = []
    for name, row in ROWS.items():
        if result := results.get(name):
            paper = f"{row.published} ([{row.paper}](https://arxiv.org/abs/{row.paper}))"
            lines.append(
                f"| `{name}` | `{row.figure}` | {result['final'][row.figure]:.4f} | {paper} | "
                f"{result['epochs']} | {result['minutes']:.0f} | `{row.settings}` |\n"
            )
    return HEAD.format(machine=next(iter(results.values()))["machine"]) + "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", default=[*ROWS], help=", ".join(ROWS))
    asked = parser.parse_args()
    if unknown := {*asked.rows} - ROWS.keys():
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    file = DOCS / "reproduction.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in asked.rows:
        if not summary_of(name):
            run(name, ROWS[name].settings)
        summary = summary_of(name)
        results[name] = {
            "command": f"python scripts/reproduce.py {name}",
            "settings": ROWS[name].settings,
            "date": date.today().isoformat(),
            "machine": f"{os.cpu_count()} {platform.machine()} cores, torch {torch.__version__}",
            "epochs": summary["epochs"],
            "minutes": round(summary["seconds"] / 60, 1),
            "final": {k: round(v, 4) for k, v in summary["metrics"]["final"]["raw"].items()},
        }
        figure = ROWS[name].figure
        print(f"{name}: {figure} {results[name]['final'][figure]}", flush=True)
        file.write_text(json.dumps(results, indent=2) + "\n")
        (DOCS / "reproduction.md").write_text(table(results))


if __name__ == "__main__":
    main()
