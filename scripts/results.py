"""Makes docs/results.md from the runs whose results are kept in docs/results/.

    python scripts/results.py [RUN ...]

Each RUN is a folder under logs/; what it came to is copied to docs/results/ first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
HEAD = """# Results

Made by `python scripts/results.py` from the summaries in [results/](results/); what the columns
mean is in [metrics.md](metrics.md). Figures are of the last epoch, 10,000 images, of the generator
as trained / averaged.
"""
COLUMNS = ("fid", "precision", "recall", "coverage", "memorization")
PUBLISHED = """
## Published numbers

Other protocols than ours unless said otherwise; the rows of ours that are still to come are empty.

| what | published | ours |
|---|---|---|
| Stacked MNIST, modes / KL: DCGAN | 99 / 3.40 | {stacked} |
| VEEGAN | 150 / 2.95 | |
| PacDCGAN2 | 1000 / 0.06 | |
| WGAN-GP | 959 / 0.73 | |
| StyleGAN2 | 940 / 0.42 | |
| DDGAN | 1000 / 0.071 | |
| R3GAN | 1000 / 0.029 | |
| InfoGAN, error of the categorical code as a classifier | 5 % | |
| BiGAN, 1-NN accuracy on encoder features | 97.39 % | |
| Improved GAN, test errors with 100 labels | 93 +- 6.5 | |
| Parzen log-likelihood, nats: GAN | 225 +- 2 | |
| conditional GAN | 132 +- 1.8 | |
| adversarial autoencoder | 340 +- 2 | |
"""


def keep(run: Path) -> None:
    """Copies what a run came to, and how it was started."""
    summary, env = (json.loads((run / name).read_text()) for name in ("summary.json", "env.json"))
    name = f"{summary['task']}_seed{summary['settings']['seed']}.json"
    content = {"summary": summary, "env": env}
    (DOCS / "results" / name).write_text(json.dumps(content, indent=2) + "\n")


def row(result: dict[str, Any]) -> str:
    """A run as a row of the table."""
    summary, env = result["summary"], result["env"]
    final = summary["metrics"]["final"]
    cells = []
    for column in COLUMNS:
        figures = [final[weights] for weights in ("raw", "ema") if weights in final]
        names = [next(name for name in f if name.endswith(column)) for f in figures]
        cells.append(" / ".join(f"{f[name]:.3f}" for f, name in zip(figures, names, strict=True)))
    floor = next(v for name, v in final["raw"].items() if name.endswith("fid_floor"))
    command = " ".join(env["command"][1:]).replace("-m ", "", 1)
    device = f"{env['device']['type']}, {env['threads']} threads"
    return (
        f"| {summary['task']} | {summary['settings']['seed']} | {summary['epochs']} | "
        f"{' | '.join(cells)} | {floor:.3f} | {summary['seconds']:,.0f} | {device} | `{command}` |"
    )


def render(results: list[dict[str, Any]]) -> str:
    titles = ("run", "seed", "epochs", *COLUMNS, "floor", "seconds", "on", "command")
    lines = [HEAD, "| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    lines += [row(result) for result in results]
    lines += ["", *spread(results)]
    return "\n".join(lines) + "\n" + PUBLISHED.format(stacked="")


def spread(results: list[dict[str, Any]]) -> list[str]:
    """Mean and standard deviation of fid over the seeds of each task."""
    lines = []
    for task in dict.fromkeys(result["summary"]["task"] for result in results):
        finals = [r["summary"]["metrics"]["final"] for r in results if r["summary"]["task"] == task]
        if len(finals) > 1:
            said = []
            for weights in ("raw", "ema"):
                values = [f[weights]["fid"] for f in finals if "fid" in f.get(weights, {})]
                if len(values) > 1:
                    said.append(f"{weights} {mean(values):.2f} +- {stdev(values):.2f}")
            lines.append(f"- {task}, `fid` over {len(finals)} seeds: {', '.join(said)}")
    return lines


def main() -> None:
    for run in sys.argv[1:]:
        keep(Path(run))
    files = sorted((DOCS / "results").glob("*.json"))
    (DOCS / "results.md").write_text(render([json.loads(file.read_text()) for file in files]))


if __name__ == "__main__":
    main()
