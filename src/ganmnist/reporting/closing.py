"""The last lines that a run prints: how it ended, its quality, its files, and the next commands."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ganmnist.reporting.metric_info import describe, find, is_metric, is_number

ENDINGS = {"finished": "Finished", "interrupted": "Stopped", "incomplete": "Incomplete"}
QUALITY = ("fid", "modes")  # the first one that was measured is printed
STAND_IN = "Data: the 8x8 digits of the package, not MNIST (data=auto found no MNIST)."


def closing_lines(summary: Mapping[str, Any], folder: Path, remedy: str = "") -> list[str]:
    """At most eight lines.

    Args:
        summary: the content of summary.json.
        folder: the folder of the run.
        remedy: the command of a run that avoids the failure of a teaching example.
    """
    files = {"Report": folder / "report.html", "Animation": folder / "progress.gif"}
    return [
        ending(summary),
        *quality(summary.get("metrics", {})),
        *([STAND_IN] if summary.get("stand_in_data") else []),
        *warned(other_warnings(summary.get("warnings", []))),
        *(f"{name + ':':<10} {shown(path)}" for name, path in files.items() if path.is_file()),
        f"{'Next:':<10} {remedy or next_command(summary, folder)}",
    ]


def ending(summary: Mapping[str, Any]) -> str:
    """Such as "Finished after 86 s: 2 epochs, 1,874 batches."."""
    names = {"epochs": ("epoch", "epochs"), "batches_seen": ("batch", "batches")}
    counts = [f"{n:,} {names[key][n != 1]}" for key in names if (n := summary.get(key)) is not None]
    progress = f": {', '.join(counts)}" if counts else ""
    how = ENDINGS.get(str(summary.get("status")), "Failed")
    return f"{how} after {duration(summary.get('seconds', 0))}{progress}."


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def quality(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The main metric of the last and of the best weights, or the number of modes."""
    final, best = metrics.get("final", {}), metrics.get("best", {})
    raw = final.get("raw", {})
    key = next((key for name in QUALITY for key in raw if is_metric(key, name)), None)
    if key is None:
        return
    if is_metric(key, "modes"):
        modes, of_real, near = raw[key], find(raw, "real_modes"), find(raw, "high_quality")
        collapsed = ": mode collapse" if modes < of_real / 2 else ""
        share = f" Samples near a mode: {near:.0%}." if is_number(near) else ""
        yield f"{modes:.0f} of {of_real:.0f} modes{collapsed}.{share}"
        return
    last = {weights: final[weights][key] for weights in ("raw", "ema") if weights in final}
    line = describe(key, last, raw)
    value = best.get("raw", {}).get(key)
    if is_number(value) and best.get("epoch") != final.get("epoch"):
        line += f"; {value:.3g} at the best epoch, {best['epoch']}"
    yield f"{line}."


def other_warnings(warnings: list[str]) -> list[str]:
    """The warnings of a run without that of stand-in data, which has its own line."""
    return [text for text in warnings if not text.startswith("data=auto:")]


def warned(warnings: list[str]) -> Iterator[str]:
    if warnings:
        more = f" ({len(warnings) - 1} more in train.log)" if len(warnings) > 1 else ""
        yield f"Warning: {' '.join(warnings[0].split())[:240]}{more}"


def next_command(summary: Mapping[str, Any], folder: Path) -> str:
    place = shlex.quote(shown(folder))
    if summary.get("status") == "finished":
        raw = summary.get("metrics", {}).get("final", {}).get("raw", {})
        is_plane = find(raw, "high_quality") is not None  # `generate` writes images, not points
        return f"ganmnist {'evaluate' if is_plane else 'generate'} run={place}"
    if (folder / "checkpoints/last.ckpt").is_file():
        return f"ganmnist train resume={place}"
    return "start again; no checkpoint was saved"


def shown(path: Path) -> str:
    """A path, relative to the current folder if it is inside."""
    path = path.resolve()
    inside = path.is_relative_to(Path.cwd())
    return os.path.relpath(path) if inside else str(path)
