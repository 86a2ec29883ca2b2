"""Writes docs/results.md from the results in docs/results/.

    python scripts/results.py [RUN ...]

Each RUN is a folder under logs/. Its summary and environment are copied to docs/results/ first.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ganmnist.metrics.evaluator import key_of

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS = DOCS / "results"
Result = dict[str, Any]  # {"summary": summary.json, "env": env.json} of a run

HEAD = """# Results

`python scripts/results.py` writes this page from the summaries in [results/](results/), one file
per run. [Metrics](metrics.md) defines the keys. In a cell with two values, the first is for the
trained weights of the generator, the second for the EMA weights.
"""
RECIPES = """
## Recipes A and B

Metrics of the last epoch, 10,000 images. Lower `fid` is better. `floor` is the `fid` of real
images.
"""
OBJECTIVES = """
## Objectives on an equal budget

`experiment=comparison`: a narrow DCGAN without norm layers in D, 2 epochs (120,000 images). All
rows have Adam at 1e-3 with betas (0, 0.99) and one discriminator step per generator step. The
values are the mean and the standard deviation over the seeds that did not diverge. "Best" is the
checkpoint with the lowest `val_fid`. Lower `fid` is better.

- The learning rate and the betas were chosen with `bce_logits`. No other row was tuned. The table
  compares the objectives with equal settings, not their best results: the papers have five
  discriminator steps for WGAN and WGAN-GP.
- Seconds are for one core. Two runs were trained at a time, some of them beside a third program.
  They show the cost of a penalty, but no small difference.
- `python scripts/compare.py objectives` trains the missing rows.
"""
ADDITIONS = """
## Penalties and stabilizers on an equal budget

`python scripts/compare.py additions`: each row adds one penalty or stabilizer with its default
settings, or another optimizer, to `objective=bce_logits` of the table above. One seed: differences
below 1, the spread of that objective, are not significant. The rows `minibatch_discrimination`,
`minibatch_std` and `diffaugment` are of commit `d85261f`, before these three changed.
"""
STACKED = """
## Stacked MNIST

`python scripts/compare.py stacked`: `experiment=stacked`, 26,000 samples. All rows have Adam at
1e-3, betas (0, 0.99) and one discriminator step per generator step, unlike the papers. Real images
have {modes} modes and a KL of {mode_kl} with the same classifier. More modes and a lower KL are
better. For PacGAN's published budget (6.4 million images), add `epochs=107` to the command of a
row.
"""
STACKED_PUBLISHED = """
Published numbers, with other classifiers and networks, after 6.4 million images or more:

| | modes | KL |
|---|---|---|
| DCGAN | 99 | 3.40 |
| VEEGAN | 150 | 2.95 |
| PacDCGAN2 | 1000 | 0.06 |
| WGAN-GP | 959 | 0.73 |
| StyleGAN2 | 940 | 0.42 |
| DDGAN | 1000 | 0.071 |
| R3GAN | 1000 | 0.029 |
"""


def keep(run: Path) -> None:
    """Copies the summary and the environment of a run."""
    summary, env = (json.loads((run / name).read_text()) for name in ("summary.json", "env.json"))
    name = f"{summary['name']}_seed{summary['settings']['seed']}.json"
    content = {"summary": summary, "env": env}
    (RESULTS / name).write_text(json.dumps(content, indent=2) + "\n")


def metric(result: Result, when: str, name: str, weights: str = "raw") -> float | None:
    """A metric of the last ("final") or of the best weights of a run; None: not measured."""
    summary = result["summary"]
    values: dict[str, float] = summary["metrics"].get(when, {}).get(weights, {})
    return values.get(key_of(name, summary["data"]))


def finished(results: Iterable[Result]) -> list[Result]:
    """The runs that have not diverged."""
    return [result for result in results if result["summary"]["status"] == "finished"]


def seeds(results: Sequence[Result]) -> str:
    """The number of runs, and how many of them have not diverged."""
    n = len(finished(results))
    return str(n) if n == len(results) else f"{n} of {len(results)}, others diverged"


def both(result: Result, name: str) -> str:
    """A final metric with trained weights / EMA weights."""
    values = [metric(result, "final", name, weights) for weights in ("raw", "ema")]
    return " / ".join(f"{value:.3f}" for value in values if value is not None)


def spread(values: Iterable[float | None], decimals: int = 2) -> str:
    """Mean and standard deviation."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return "".join(f"{value:.{decimals}f}" for value in known)
    return f"{mean(known):.{decimals}f} +- {stdev(known):.{decimals}f}"


def spreads(results: Sequence[Result], name: str, weights: str, decimals: int) -> str:
    return spread((metric(result, "final", name, weights) for result in results), decimals)


def command(result: Result) -> str:
    """The command of the run."""
    args = [word for word in result["env"]["command"][1:] if word != "-m"]
    return f"`python -m {' '.join(args)}`"


def seconds(results: Sequence[Result]) -> str:
    return f"{mean(r['summary']['seconds'] for r in results):,.0f}" if results else ""


def sample(name: str) -> str:
    """The row of images that scripts/compare.py has saved."""
    path = f"images/compare/{name}.png"
    return f'<img src="{path}" height="30" alt="">' if (DOCS / path).exists() else ""


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def recipes(results: Sequence[Result]) -> str:
    columns = ("fid", "precision", "recall", "coverage", "memorization")
    titles = ("run", "seed", "epochs", *columns, "floor", "seconds", "threads", "command")
    rows = []
    for result in results:
        summary, floor = result["summary"], metric(result, "final", "fid_floor")
        rows.append(
            [
                *(summary["name"], str(summary["settings"]["seed"]), str(summary["epochs"])),
                *(both(result, name) for name in columns),
                *(f"{floor:.3f}", seconds([result]), str(result["env"]["threads"])),
                command(result),
            ]
        )
    means = [
        f"- {name}, `fid` over {len(runs)} seeds: trained weights "
        f"{spread(metric(r, 'final', 'fid') for r in runs)}, EMA weights "
        f"{spread(metric(r, 'final', 'fid', 'ema') for r in runs)}\n"
        for name, runs in by_name(results).items()
        if len(runs) > 1
    ]
    return f"{RECIPES}\n{table(titles, rows)}\n{''.join(means)}"


def compared(first: str, results: Sequence[Result]) -> str:
    """A table by ascending `fid`. Rows whose runs have all diverged come last."""
    columns = ("best `fid`", "last `fid`", "precision", "coverage", "seconds")
    titles = (first, "seeds", *columns, "samples, seed 0")
    rows = []
    for name, runs in sorted(by_name(results).items(), key=lambda item: best_fid(item[1])):
        metrics = [("best", "fid"), ("final", "fid"), ("final", "precision"), ("final", "coverage")]
        kept = finished(runs)
        cells = [spread(metric(run, *part) for run in kept) for part in metrics]
        row = name.partition("_")[2]
        rows.append([f"`{row}`", seeds(runs), *cells, seconds(kept), sample(name)])
    return table(titles, rows)


def best_fid(results: Sequence[Result]) -> float:
    """The mean best `fid` over the runs that have not diverged."""
    known = [metric(result, "best", "fid") for result in finished(results)]
    return mean(value for value in known if value is not None) if any(known) else math.inf


def objectives(results: Sequence[Result]) -> str:
    return f"{OBJECTIVES}\n{compared('objective', results)}"


def additions(results: Sequence[Result]) -> str:
    return f"{ADDITIONS}\n{compared('addition', results)}"


def stacked(results: Sequence[Result]) -> str:
    titles = ("run", "seeds", "modes", "KL", "images seen", "seconds", "command", "samples, seed 0")
    rows = []
    for name, runs in by_name(results).items():
        kept = finished(runs)
        modes, kl = (
            " / ".join(filter(None, (spreads(kept, name, w, decimals) for w in ("raw", "ema"))))
            for name, decimals in (("modes", 0), ("mode_kl", 3))
        )
        first = (kept or runs)[0]
        images = f"{first['summary']['images_seen']:,}"
        cells = [seeds(runs), modes, kl, images, seconds(kept), command(first), sample(name)]
        rows.append([name.removeprefix("stacked_"), *cells])
    real = {
        name: spread((metric(run, "final", f"real_{name}") for run in finished(results)[:1]), n)
        for name, n in (("modes", 0), ("mode_kl", 3))
    }
    return f"{STACKED.format(**real)}\n{table(titles, rows)}{STACKED_PUBLISHED}"


def by_name(results: Iterable[Result]) -> dict[str, list[Result]]:
    runs: dict[str, list[Result]] = {}
    for result in results:
        runs.setdefault(result["summary"]["name"], []).append(result)
    return runs


def render(results: Sequence[Result]) -> str:
    """The page. A table without rows is left out."""
    tables: dict[tuple[str, ...], Callable[[Sequence[Result]], str]] = {
        ("paper_dcgan", "report_mlp"): recipes,
        ("objectives_",): objectives,
        ("additions_",): additions,
        ("stacked_",): stacked,
    }
    page = HEAD
    for prefixes, section in tables.items():
        if rows := [r for r in results if r["summary"]["name"].startswith(prefixes)]:
            page += section(rows)
    return page


def write() -> None:
    files = sorted(RESULTS.glob("*.json"))
    (DOCS / "results.md").write_text(render([json.loads(file.read_text()) for file in files]))


def main() -> None:
    for run in sys.argv[1:]:
        keep(Path(run))
    write()


if __name__ == "__main__":
    main()
