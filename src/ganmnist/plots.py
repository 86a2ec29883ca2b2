"""Curves and bars, drawn without pyplot and its global state: safe in notebooks and threads."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ganmnist.files import whole
from ganmnist.images import thin

D_COLOUR, G_COLOUR, GREY = "#c0392b", "#2471a3", "#62676d"
COLOURS = {
    **dict.fromkeys(("D", "D(x), real"), D_COLOUR),
    **dict.fromkeys(("G", "D(G(z)), generated", "generated"), G_COLOUR),
    **{"as trained": "#8a6d1f", "EMA": "#1e8449", "test": "#a9afb6"},
}
POINTS = 300  # of a curve in the report
# Of the report's charts. Text stays text; the salt makes the same file of the same chart.
STYLE: dict[Any, Any] = {
    **{"svg.fonttype": "none", "svg.hashsalt": "ganmnist"},
    **{"font.size": 8.5, "lines.linewidth": 1.2, "legend.frameon": False, "ytick.major.size": 0},
    **{"axes.grid": True, "axes.grid.axis": "y", "grid.alpha": 0.25, "axes.axisbelow": True},
    **dict.fromkeys((f"axes.spines.{side}" for side in ("left", "right", "top")), False),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "grid.color", "text.color"), GREY),
    **dict.fromkeys(("xtick.color", "ytick.color"), GREY),
}

Curves = Mapping[str, Mapping[float, float]]  # name -> x -> y


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Running mean over `width` neighbours, (n - width + 1,) values."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    return (total[width:] - total[:-width]) / width


def running_mean(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve that is smooth enough to see where it goes."""
    width = max(1, len(y) // 100)
    return smooth(x, width), smooth(y, width)


def limits(values: np.ndarray) -> tuple[float, float]:
    """The ends of an axis that shows 0 and the values but for outliers, which would flatten it."""
    low, high = np.quantile(values, (0.005, 0.995)) if len(values) else (0.0, 1.0)
    low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.1 * max(high - low, 1e-6)
    return (low - margin if low < 0 else 0.0), high + margin


def plot_losses(
    path: Path,
    per_batch: Mapping[str, array[float]],
    per_epoch: Mapping[str, Sequence[float]],
    equilibrium: tuple[float | None, float | None],
    title: str,
) -> None:
    """Both players' losses, every batch with its running mean above, epoch means below.

    `per_batch` has batches seen and values in turn, which may be of some batches only; what is not
    finite is left out. The dashed lines are the losses at the game's equilibrium, where it has one.
    A rising generator loss means that D is winning, not that the images get better.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), dpi=100, layout="constrained")
    upper, lower = figure.subplots(2, 1)
    players = (("D", "d/loss", D_COLOUR), ("G", "g/loss", G_COLOUR))
    shown: list[np.ndarray] = []

    for i, (player, name, colour) in enumerate(players):
        steps, values = np.array(per_batch[f"train/{name}"]).reshape(-1, 2).T
        steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
        shown.append(values)
        upper.plot(steps, values, color=colour, alpha=0.15, linewidth=0.5)
        upper.plot(*running_mean(steps, values), color=colour, label=player)
        epochs = per_epoch.get(f"epoch/{name}", ())
        lower.plot(np.arange(1, len(epochs) + 1), epochs, "o-", ms=3, color=colour, label=player)
        level = equilibrium[i]
        if level is not None:
            for axes in (upper, lower):
                axes.axhline(
                    level,
                    color=colour,
                    linestyle="--",
                    linewidth=1,
                    label=f"{player} at equilibrium: {level:.3f}",
                )
    upper.set(xlabel="batches", ylabel="loss", title=title)
    lower.set(xlabel="epoch", ylabel="mean loss")
    lower.xaxis.get_major_locator().set_params(integer=True)
    upper.set_ylim(*limits(np.concatenate(shown)))
    for axes in (upper, lower):
        axes.legend(fontsize=8, ncols=2, loc="upper right")
        axes.grid(alpha=0.2)

    with whole(path) as part:
        figure.savefig(part, format="png")


@contextmanager
def chart(svg: BytesIO) -> Iterator[Any]:
    """Axes to draw on, of which an SVG is written."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(4.4, 2.4), layout="constrained")
        yield figure.subplots()
        figure.legend(loc="outside lower left", ncols=3)
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})


def curves(
    named: Curves,
    unit: str,
    level: tuple[str, float] | None = None,
    ends: tuple[float, float] | None = None,
    zero: bool = True,
    log: bool = False,
) -> bytes:
    """An SVG of curves, running means if over batches, and of a level to compare them with.

    The y axis goes from one of `ends` to the other; else it shows what there is, with or without
    zero, or in a logarithmic scale where that is asked for and helps.
    """
    from matplotlib.ticker import LogLocator

    svg, shown = BytesIO(), [level[1]] if level else []
    with chart(svg) as axes:
        for name, values in named.items():
            if values:
                x, y = np.array(sorted(values.items())).T
                x, y = running_mean(x, y) if unit == "batches" else (x, y)
                some = thin(range(len(x)), POINTS)
                line = ".-" if len(x) < 50 else "-"
                axes.plot(x[some], y[some], line, color=COLOURS[name], label=name)
                shown += y.tolist()
        if level:
            axes.axhline(level[1], ls="--", color=GREY, label=f"{level[0]}, {level[1]:.4g}")
        axes.set_xlabel(unit)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if log and 0 < 20 * min(shown) < max(shown):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        elif ends or zero:
            axes.set_ylim(ends or limits(np.array(shown)))
    return svg.getvalue()


def bars(groups: Mapping[str, Sequence[float]]) -> bytes:
    """An SVG of the shares of classes, those of several groups side by side."""
    from matplotlib.ticker import PercentFormatter

    svg = BytesIO()
    with chart(svg) as axes:
        for i, (name, shares) in enumerate(groups.items()):
            places = np.arange(len(shares)) + 0.4 * i - 0.2 * (len(groups) - 1)
            axes.bar(places, shares, 0.37, color=COLOURS[name], label=name)
        axes.set_xticks(range(max(map(len, groups.values()))))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    return svg.getvalue()
