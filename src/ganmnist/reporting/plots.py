"""Plots of curves and bars. They do not use pyplot, whose state is global."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ganmnist.reporting.images import subsample
from ganmnist.utils.files import atomic_write

D_COLOR, G_COLOR, GRAY = "#c0392b", "#2471a3", "#62676d"
COLORS = {
    **dict.fromkeys(("D", "D(x), real"), D_COLOR),
    **dict.fromkeys(("G", "D(G(z)), generated", "generated"), G_COLOR),
    **{"trained weights": "#8a6d1f", "EMA weights": "#1e8449", "test": "#a9afb6"},
}
POINTS = 300  # largest number of points of a curve in the report
# Style of the report's charts. Text stays text; the salt makes the files reproducible.
STYLE: dict[Any, Any] = {
    **{"svg.fonttype": "none", "svg.hashsalt": "ganmnist"},
    **{"font.size": 8.5, "lines.linewidth": 1.2, "legend.frameon": False, "ytick.major.size": 0},
    **{"axes.grid": True, "axes.grid.axis": "y", "grid.alpha": 0.25, "axes.axisbelow": True},
    **dict.fromkeys((f"axes.spines.{side}" for side in ("left", "right", "top")), False),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "grid.color", "text.color"), GRAY),
    **dict.fromkeys(("xtick.color", "ytick.color"), GRAY),
}

Curves = Mapping[str, Mapping[float, float]]  # name -> x -> y


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Running mean over `width` values: (n,) to (n - width + 1,)."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    mean: np.ndarray = (total[width:] - total[:-width]) / width
    return mean


def running_mean(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The running mean of a curve over a hundredth of its points."""
    width = max(1, len(y) // 100)
    return smooth(x, width), smooth(y, width)


def limits(values: np.ndarray) -> tuple[float, float]:
    """The limits of an axis that shows 0 and all values but the outer 1 %."""
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
    """Plots the losses of D and G: per batch with a running mean above, per epoch below.

    The dashed lines are the losses at equilibrium. A rising loss of G means that D is winning, not
    that the images get better.

    Args:
        per_batch: batches seen and losses, alternating. Values that are not finite are left out.
        per_epoch: means over the epochs.
        equilibrium: the losses of D and G at equilibrium, where known.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), dpi=100, layout="constrained")
    upper, lower = figure.subplots(2, 1)
    networks = (("D", "d/loss", D_COLOR), ("G", "g/loss", G_COLOR))
    shown: list[np.ndarray] = []

    for i, (network, name, color) in enumerate(networks):
        steps, values = np.array(per_batch[f"train/{name}"]).reshape(-1, 2).T
        steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
        shown.append(values)
        upper.plot(steps, values, color=color, alpha=0.15, linewidth=0.5)
        upper.plot(*running_mean(steps, values), color=color, label=network)
        epochs = per_epoch.get(f"epoch/{name}", ())
        lower.plot(np.arange(1, len(epochs) + 1), epochs, "o-", ms=3, color=color, label=network)
        level = equilibrium[i]
        if level is not None:
            for axes in (upper, lower):
                axes.axhline(
                    level,
                    color=color,
                    linestyle="--",
                    linewidth=1,
                    label=f"{network} at equilibrium: {level:.3f}",
                )
    upper.set(xlabel="batches", ylabel="loss", title=title)
    lower.set(xlabel="epoch", ylabel="mean loss")
    lower.xaxis.get_major_locator().set_params(integer=True)
    upper.set_ylim(*limits(np.concatenate(shown)))
    for axes in (upper, lower):
        axes.legend(fontsize=8, ncols=2, loc="upper right")
        axes.grid(alpha=0.2)

    with atomic_write(path) as part:
        figure.savefig(part, format="png")


@contextmanager
def chart(svg: BytesIO) -> Iterator[Any]:
    """Yields axes, then writes them as an SVG."""
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
    levels: Sequence[tuple[str, float]] = (),
    ends: tuple[float, float] | None = None,
    zero: bool = True,
    log: bool = False,
) -> bytes:
    """An SVG of curves, and of levels to compare them with.

    Args:
        unit: of the x axis. Curves over "batches" are running means.
        levels: labels and values of dashed lines. A label that begins with the name of a curve has
            its color.
        ends: limits of the y axis; None: those of the curves.
        zero: include 0 in the y axis.
        log: use a logarithmic y axis if the values span a factor of 20 or more.
    """
    from matplotlib.ticker import LogLocator

    svg, shown = BytesIO(), [value for _, value in levels]
    with chart(svg) as axes:
        for name, values in named.items():
            if values:
                x, y = np.array(sorted(values.items())).T
                x, y = running_mean(x, y) if unit == "batches" else (x, y)
                index = subsample(range(len(x)), POINTS)
                line = ".-" if len(x) < 50 else "-"
                axes.plot(x[index], y[index], line, color=COLORS[name], label=name)
                shown += y.tolist()
        for label, value in levels:
            color = COLORS.get(label.split()[0], GRAY)
            axes.axhline(value, ls="--", color=color, label=f"{label}: {value:.3g}")
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
    """An SVG of the shares of classes, several groups side by side."""
    from matplotlib.ticker import PercentFormatter

    svg = BytesIO()
    with chart(svg) as axes:
        for i, (name, shares) in enumerate(groups.items()):
            places = np.arange(len(shares)) + 0.4 * i - 0.2 * (len(groups) - 1)
            axes.bar(places, shares, 0.37, color=COLORS[name], label=name)
        axes.set_xticks(range(max(map(len, groups.values()))))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    return svg.getvalue()
