"""Makes docs/results.md from the runs whose results are kept in docs/results/.

    python scripts/results.py [RUN ...]

Each RUN is a folder under logs/; what it came to is copied to docs/results/ first.
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

Made by `python scripts/results.py` from the summaries in [results/](results/); what the figures
mean is in [metrics.md](metrics.md). Where two stand together they are of the generator as trained
and of its moving average.
"""
RECIPES = """
## The recipes

Of the last epoch, 10,000 images. `floor` is the `fid` of real images.
"""
OBJECTIVES = """
## Every objective on one budget

`experiment=comparison`: a narrow DCGAN without norm layers in D, 2 epochs (120,000 images), and for
all rows Adam at 1e-3 with betas (0, 0.99) and one step of D to one of G. Mean and standard
deviation over the seeds that did not diverge; seconds are of one core, two runs at a time, with a
third program beside some of them, so they tell a penalty from none and not much more. Rate and
betas were chosen by what `bce_logits` does and nothing was tuned for any other row, so this
compares what objectives do untouched, not what they can do: the papers give WGAN and WGAN-GP five
steps of D. Missing rows have not been run: `python scripts/compare.py objectives` runs them.
"""
ADDITIONS = """
## Penalties and stabilisers on the same budget

One of them at a time, with its default settings, added to `objective=bce_logits` of the table
above, one seed: differences below 1, that row's own spread, mean nothing.
`python scripts/compare.py additions`. The rows `minibatch_discrimination`, `minibatch_std` and
`diffaugment` are of commit `d85261f`, before these three changed.
"""
STACKED = """
## Stacked MNIST

`experiment=stacked`, 26,000 samples, by `python scripts/compare.py stacked`; all rows with Adam at
1e-3, betas (0, 0.99) and one step of D to one of G, whatever their papers have. Real images get
{modes} modes and a KL of {mode_kl} from the same classifier. For the published budget, that
of PacGAN (6.4 million images), add `epochs=107` to a row's command.
"""
STACKED_PUBLISHED = """
Published, with other classifiers and networks, of 6.4 million images or more:

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
    """Copies what a run came to, and how it was started."""
    summary, env = (json.loads((run / name).read_text()) for name in ("summary.json", "env.json"))
    name = f"{summary['task']}_seed{summary['settings']['seed']}.json"
    content = {"summary": summary, "env": env}
    (RESULTS / name).write_text(json.dumps(content, indent=2) + "\n")


def figure(result: Result, when: str, name: str, weights: str = "raw") -> float | None:
    """A metric of a run, at its end ("final") or by its best checkpoint, whatever data it is of."""
    summary = result["summary"]
    return summary["metrics"].get(when, {}).get(weights, {}).get(key_of(name, summary["data"]))


def finished(results: Iterable[Result]) -> list[Result]:
    """Without those that have diverged."""
    return [result for result in results if result["summary"]["status"] == "finished"]


def seeds(results: Sequence[Result]) -> str:
    whole = len(finished(results))
    return str(whole) if whole == len(results) else f"{whole} of {len(results)}, others diverged"


def both(result: Result, name: str) -> str:
    """A final metric as trained / averaged."""
    values = [figure(result, "final", name, weights) for weights in ("raw", "ema")]
    return " / ".join(f"{value:.3f}" for value in values if value is not None)


def spread(values: Iterable[float | None], decimals: int = 2) -> str:
    """Mean and standard deviation."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return "".join(f"{value:.{decimals}f}" for value in known)
    return f"{mean(known):.{decimals}f} +- {stdev(known):.{decimals}f}"


def spreads(results: Sequence[Result], name: str, weights: str, decimals: int) -> str:
    return spread((figure(result, "final", name, weights) for result in results), decimals)


def command(result: Result) -> str:
    """How the run was started, as one types it."""
    words = [word for word in result["env"]["command"][1:] if word != "-m"]
    return f"`python -m {' '.join(words)}`"


def seconds(results: Sequence[Result]) -> str:
    return f"{mean(r['summary']['seconds'] for r in results):,.0f}" if results else ""


def picture(task: str) -> str:
    """The row of images that scripts/compare.py has drawn."""
    place = f"images/compare/{task}.png"
    return f'<img src="{place}" height="30" alt="">' if (DOCS / place).exists() else ""


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def recipes(results: Sequence[Result]) -> str:
    columns = ("fid", "precision", "recall", "coverage", "memorization")
    titles = ("run", "seed", "epochs", *columns, "floor", "seconds", "threads", "command")
    rows = []
    for result in results:
        summary, floor = result["summary"], figure(result, "final", "fid_floor")
        rows.append(
            [
                *(summary["task"], str(summary["settings"]["seed"]), str(summary["epochs"])),
                *(both(result, name) for name in columns),
                *(f"{floor:.3f}", seconds([result]), str(result["env"]["threads"])),
                command(result),
            ]
        )
    means = [
        f"- {task}, `fid` over {len(runs)} seeds: as trained "
        f"{spread(figure(r, 'final', 'fid') for r in runs)}, averaged "
        f"{spread(figure(r, 'final', 'fid', 'ema') for r in runs)}\n"
        for task, runs in by_task(results).items()
        if len(runs) > 1
    ]
    return f"{RECIPES}\n{table(titles, rows)}\n{''.join(means)}"


def compared(first: str, results: Sequence[Result]) -> str:
    """The lowest `fid` first; what diverged with every seed comes last."""
    figures_of = ("best `fid`", "last `fid`", "precision", "coverage", "seconds")
    titles = (first, "seeds", *figures_of, "seed 0 draws")
    rows = []
    for task, runs in sorted(by_task(results).items(), key=lambda item: best_fid(item[1])):
        figures = [("best", "fid"), ("final", "fid"), ("final", "precision"), ("final", "coverage")]
        kept = finished(runs)
        cells = [spread(figure(run, *which) for run in kept) for which in figures]
        name = task.partition("_")[2]
        rows.append([f"`{name}`", seeds(runs), *cells, seconds(kept), picture(task)])
    return table(titles, rows)


def best_fid(results: Sequence[Result]) -> float:
    """Its mean over the runs that did not diverge."""
    known = [figure(result, "best", "fid") for result in finished(results)]
    return mean(value for value in known if value is not None) if any(known) else math.inf


def objectives(results: Sequence[Result]) -> str:
    return f"{OBJECTIVES}\n{compared('objective', results)}"


def additions(results: Sequence[Result]) -> str:
    return f"{ADDITIONS}\n{compared('addition', results)}"


def stacked(results: Sequence[Result]) -> str:
    titles = ("run", "seeds", "modes", "KL", "images seen", "seconds", "command", "seed 0 draws")
    rows = []
    for task, runs in by_task(results).items():
        kept = finished(runs)
        modes, kl = (
            " / ".join(filter(None, (spreads(kept, name, w, decimals) for w in ("raw", "ema"))))
            for name, decimals in (("modes", 0), ("mode_kl", 3))
        )
        first = (kept or runs)[0]
        images = f"{first['summary']['images_seen']:,}"
        name = task.removeprefix("stacked_")
        how = command(first)
        rows.append([name, seeds(runs), modes, kl, images, seconds(kept), how, picture(task)])
    real = {
        name: spread((figure(run, "final", f"real_{name}") for run in finished(results)[:1]), n)
        for name, n in (("modes", 0), ("mode_kl", 3))
    }
    return f"{STACKED.format(**real)}\n{table(titles, rows)}{STACKED_PUBLISHED}"


def by_task(results: Iterable[Result]) -> dict[str, list[Result]]:
    tasks: dict[str, list[Result]] = {}
    for result in results:
        tasks.setdefault(result["summary"]["task"], []).append(result)
    return tasks


def render(results: Sequence[Result]) -> str:
    """The page; a table without any row is left out."""
    tables: dict[tuple[str, ...], Callable[[Sequence[Result]], str]] = {
        ("paper_dcgan", "report_mlp"): recipes,
        ("objectives_",): objectives,
        ("additions_",): additions,
        ("stacked_",): stacked,
    }
    page = HEAD
    for tasks, draw in tables.items():
        if rows := [r for r in results if r["summary"]["task"].startswith(tasks)]:
            page += draw(rows)
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
