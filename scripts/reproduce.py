"""Published figures beside ours, a row each, by commands that may be stopped and given again.

    python scripts/reproduce.py [ROW ...]

Without rows it makes all that are missing. A row's run lies in logs/reproduce/ROW: one that was
broken off goes on where it was, one that is finished is not run again. docs/reproduction.json gets
the figures and the settings that the run's own files tell, docs/reproduction.md the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DOCS = Path(__file__).resolve().parents[1] / "docs"
RUNS = Path("logs/reproduce")
EVERYWHERE = ["data=mnist"]
HEAD = """# Published figures and ours

`python scripts/reproduce.py ROW ...` trains rows, or goes on with them, and writes this table;
[families.md](families.md) explains the figures. One seed a row, the weights as trained at the end
of the run; machine, date and all figures of each are in [reproduction.json](reproduction.json).
Networks are mostly smaller than the papers' and trained for less:
`python -m ganmnist.train resume=logs/reproduce/ROW epochs=300` goes on with a row that has ended.
Minutes are of the whole process, or of its last one where it was broken off; other work ran beside.

| row | ours | published | minutes | settings of `ganmnist.train` |
|---|---|---|---|---|
"""


class Row(NamedTuple):
    settings: str
    figures: str
    published: str  # what the paper has of the first of them, in its unit
    paper: str  # its number at arXiv


def few_labels(n: int, published: str, epochs: int) -> Row:
    settings = f"experiment=few_labels gan.labelled={n} epochs={epochs}"
    return Row(settings, "test_error_ema test_error", published, "1606.03498")


def unpublished(family: str, figures: str, paper: str, epochs: int) -> Row:
    """Of a family whose paper has no such figure on MNIST."""
    settings = f"experiment=comparison family={family} metrics=default epochs={epochs}"
    return Row(settings, figures, "none on MNIST", paper)


def conditional(family: str, paper: str) -> Row:
    return unpublished(family, "gan_test gan_train real_train", paper, epochs=8)


def parzen(settings: str, published: str, paper: str) -> Row:
    return Row(f"{WIDE} metrics=parzen {settings}", "parzen parzen_error", published, paper)


WIDE = (
    "experiment=report_mlp "
    "model.generator.widths=[1000,1000] model.discriminator.widths=[1000,1000] "
    "model.generator.dropout=0.0 model.discriminator.dropout=0.0"
)
CALM = "optimizer.d.betas=[0.5,0.999] optimizer.g.betas=[0.5,0.999]"
ROWS = {
    "gan_parzen": parzen(f"lr=2e-4 {CALM} epochs=20", "225 +- 2", "1406.2661"),
    "cgan_parzen": parzen(f"family=cgan lr=2e-4 {CALM} epochs=20", "132 +- 2", "1411.1784"),
    "cgan": conditional("cgan", "1411.1784"),
    "projection": conditional("projection", "1802.05637"),
    "acgan": conditional("acgan", "1610.09585"),
    "infogan": Row(
        "model=dcgan_fc family=infogan latent_dim=74 batch_size=128 optimizer.g.lr=1e-3 epochs=12",
        "code_error",
        "0.05",
        "1606.03657",
    ),
    "bigan": Row(
        f"{WIDE} metrics=default family=bigan latent_dim=50 batch_size=128 lr=2e-4 {CALM} "
        "epochs=20",
        "nn_accuracy reconstruction",
        "0.974",
        "1605.09782",
    ),
    "aae_parzen": parzen(
        "family=aae family.latent.dim=8 lr=5e-4 epochs=30", "340 +- 2", "1511.05644"
    ),
    # Of 10,000 test images, over ten choices of labels and 300 epochs.
    "few_labels_100": few_labels(100, "0.0093 +- 0.0007", epochs=60),
    "few_labels_20": few_labels(20, "0.1677 +- 0.0452", epochs=20),
    "few_labels_50": few_labels(50, "0.0221 +- 0.0136", epochs=20),
    "few_labels_200": few_labels(200, "0.0090 +- 0.0004", epochs=20),
    "lapgan": unpublished("lapgan", "fid coverage", "1506.05751", epochs=4),
    "inpainting": unpublished("inpainting", "l1 l1_kept", "1611.07004", epochs=4),
    "superresolution": unpublished("superresolution", "l1 l1_kept", "1611.07004", epochs=4),
}


def run(name: str, settings: str) -> None:
    """Begins a row's run, or goes on with it."""
    folder = RUNS / name
    if (folder / "checkpoints/last.ckpt").exists():
        words = [f"resume={folder}"]
    else:
        words = [*EVERYWHERE, *settings.split(), f"task={name}", f"hydra.run.dir={folder}"]
    ended = subprocess.run([sys.executable, "-m", "ganmnist.train", *words])
    if ended.returncode:  # it has said why
        sys.exit(ended.returncode)


def result_of(name: str) -> dict[str, Any] | None:
    """What a row's run came to, and by which settings; None where it has not ended."""
    folder = RUNS / name
    file = folder / "summary.json"
    summary = json.loads(file.read_text()) if file.exists() else {}
    if summary.get("status") != "finished":
        return None
    env = json.loads((folder / "env.json").read_text())
    overrides = yaml.safe_load((folder / ".hydra/overrides.yaml").read_text())
    of_row = [word for word in overrides if word not in (*EVERYWHERE, f"task={name}")]
    device, threads = env["device"], f"{env['threads']} of {env['cores']} cores"
    return {
        "command": f"python scripts/reproduce.py {name}",
        "settings": " ".join(of_row),
        "date": date.fromtimestamp(file.stat().st_mtime).isoformat(),
        "machine": f"{threads}, {device['name']}, torch {env['packages']['torch']}",
        "minutes": round(summary["seconds"] / 60, 1),
        "final": {k: round(v, 4) for k, v in summary["metrics"]["final"]["raw"].items()},
    }


def table(results: dict[str, Any]) -> str:
    """The rows that there are, as markdown."""
    lines = []
    for name, row in ROWS.items():
        if result := results.get(name):
            paper = f"{row.published} ([{row.paper}](https://arxiv.org/abs/{row.paper}))"
            final = result["final"]
            figures = [key for key in row.figures.split() if key in final]
            ours = ", ".join(f"`{key}` {final[key]:.4g}" for key in figures)
            lines.append(
                f"| `{name}` | {ours} | {paper} | {result['minutes']:.0f} | "
                f"`{result['settings']}` |\n"
            )
    return HEAD + "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", default=[*ROWS], help=", ".join(ROWS))
    asked = parser.parse_args()
    if unknown := {*asked.rows} - ROWS.keys():
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    file = DOCS / "reproduction.json"
    for name in asked.rows:
        if not result_of(name):
            run(name, ROWS[name].settings)
        result = result_of(name)
        assert result is not None, f"{RUNS / name} has no summary.json of a finished run"
        if sorted(result["settings"].split()) != sorted(ROWS[name].settings.split()):
            print(f"{RUNS / name} was trained otherwise: {result['settings']}", flush=True)
        results = json.loads(file.read_text()) if file.exists() else {}
        results[name] = result
        print(f"{name}: {result['final']}", flush=True)
        file.write_text(json.dumps(results, indent=2) + "\n")
        (DOCS / "reproduction.md").write_text(table(results))


if __name__ == "__main__":
    main()
