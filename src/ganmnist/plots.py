"""Curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ganmnist.paths import whole

D_COLOUR, G_COLOUR = "#c0392b", "#2471a3"


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Running mean over `width` neighbours, (n - width + 1,) values."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    return (total[width:] - total[:-width]) / width


def limits(values: np.ndarray) -> tuple[float, float]:
    """The ends of an axis that shows 0 and the values but for outliers, which would flatten it."""
    low, high = np.quantile(values, (0.005, 0.995)) if len(values) else (0.0, 1.0)
    low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.1 * max(high - low, 1e-6)
    return (low - margin if low < 0 else 0.0), high + margin


def plot_losses(
    path: Path,
    per_batch: Mapping[str, Mapping[int, float]],
    per_epoch: Mapping[str, Sequence[float]],
    equilibrium: tuple[float, float] | None,
    title: str,
) -> None:
    """Both players' losses, every batch with its running mean above, epoch means below.

    `per_batch` maps batches seen to values, which may be some batches only; what is not finite is
    left out. The dashed lines are the losses at the game's equilibrium, where D is 1/2 everywhere.
    A rising generator loss means that D is winning, not that the images get better.
    """
    # Without pyplot, and so without global state: safe in notebooks and threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1)
    players = (("D", "d/loss", D_COLOUR), ("G", "g/loss", G_COLOUR))
    shown: list[np.ndarray] = []

    for i, (player, name, colour) in enumerate(players):
        steps, values = np.array([*per_batch[f"train/{name}"].items()]).reshape(-1, 2).T
        steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
        shown.append(values)
        width = max(1, len(values) // 100)
        upper.plot(steps, values, color=colour, alpha=0.15, linewidth=0.5)
        upper.plot(smooth(steps, width), smooth(values, width), color=colour, label=player)
        epochs = per_epoch.get(f"epoch/{name}", ())
        lower.plot(np.arange(1, len(epochs) + 1), epochs, "o-", ms=3, color=colour, label=player)
        if equilibrium is not None:
            for axes in (upper, lower):
                axes.axhline(
                    equilibrium[i],
                    color=colour,
                    linestyle="--",
                    linewidth=1,
                    label=f"{player} at equilibrium: {equilibrium[i]:.3f}",
                )
    upper.set(xlabel="batches", ylabel="loss", title=title)
    lower.set(xlabel="epoch", ylabel="mean loss")
    lower.xaxis.get_major_locator().set_params(integer=True)
    upper.set_ylim(*limits(np.concatenate(shown)))
    for axes in (upper, lower):
        axes.legend(fontsize=8, ncols=2)
        axes.grid(alpha=0.2)

    with whole(path) as part:
        figure.savefig(part, format="png")
