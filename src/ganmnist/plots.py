"""Curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

D_COLOUR, G_COLOUR = "#c0392b", "#2471a3"


def smooth(values: Sequence[float], width: int) -> np.ndarray:
    """Running mean over `width` neighbours, (n - width + 1,) values."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    return (total[width:] - total[:-width]) / width


def plot_losses(
    path: Path,
    per_batch: Mapping[str, Sequence[float]],
    per_epoch: Mapping[str, Sequence[float]],
    equilibrium: tuple[float, float] | None,
    title: str,
) -> None:
    """Both players' losses, every batch with its running mean above, epoch means below.

    The dashed lines are the losses at the game's equilibrium, where D is 1/2 everywhere. A rising
    generator loss means that D is winning, not that the images get better.
    """
    # Without pyplot, and so without global state: safe in notebooks and threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1)
    players = (("D", "d/loss", D_COLOUR), ("G", "g/loss", G_COLOUR))

    for i, (player, name, colour) in enumerate(players):
        values = per_batch[f"train/{name}"]
        width = max(1, len(values) // 100)
        mean = smooth(values, width)
        upper.plot(np.arange(1, len(values) + 1), values, color=colour, alpha=0.15, linewidth=0.5)
        upper.plot(np.arange(len(mean)) + (width + 1) / 2, mean, color=colour, label=f"{player}")
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
    highest = max(float(np.quantile(per_batch[f"train/{name}"], 0.995)) for _, name, _ in players)
    upper.set_ylim(0, 1.1 * highest)
    for axes in (upper, lower):
        axes.legend(fontsize=8, ncols=2)
        axes.grid(alpha=0.2)

    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png")
    part.replace(path)
