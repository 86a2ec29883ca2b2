"""report.html: a run on one page, which needs no other file and no network.

It is written from the files of the run's folder alone, so also for a run that ended early: what
there is no file for is left out. The page's Content-Security-Policy forbids it to fetch anything.
"""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from ganmnist import images
from ganmnist.paths import whole
from ganmnist.plots import limits, smooth

FRAMES = 60  # of the scrubber
POINTS = 300  # of a curve
KNOBS = ("epochs", "batch_size", "lr", "latent_dim", "ema", "seed")

Series = Mapping[float, float]


def write(folder: Path) -> None:
    """Writes report.html into the folder of a run."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=loader)
    environment.filters["number"] = number
    environment.globals |= {"LEFT": LEFT, "RIGHT": RIGHT, "BOTTOM": BOTTOM}
    page = environment.get_template("report.html.j2").render(contents(Path(folder)))
    with whole(Path(folder) / "report.html") as part:
        # An argument of the command line need not be text.
        part.write_text(page, encoding="utf-8", errors="replace")


def contents(folder: Path) -> dict[str, Any]:
    """What the template shows; what is empty it leaves out."""
    summary, env = (read_mapping(folder / f"{name}.json") for name in ("summary", "env"))
    config = read_mapping(folder / ".hydra/config.yaml")
    knobs = (summary.get("settings") or {}) | config
    scalars = read_scalars(folder / "metrics.csv")
    figures = summary.get("metrics") or {}
    return {
        "task": summary.get("task") or config.get("task") or folder.resolve().name,
        "date": started(folder),
        "summary": summary,
        "data": summary.get("data") or (env.get("data") or {}).get("name"),
        "duration": duration(summary.get("seconds")),
        "knobs": {name: plain(knobs[name]) for name in KNOBS if name in knobs},
        "settings": settings(config, env),
        "training": training_charts(scalars),
        "validation": validation_charts(scalars, find(figures, "val_fid_floor")),
        "table": metrics_table(figures),
        "frames": frames(folder / "samples"),
        "pair": real_and_generated(folder / "samples"),
        "histogram": histogram(figures.get("class_histogram") or {}),
        "neighbours": picture(folder / "samples/neighbours.png"),
        "env": env,
        "reproduction": reproduction(folder, env),
    }


# Files


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file that holds a mapping; nothing if it cannot be read as one."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def read_scalars(path: Path) -> dict[str, dict[float, float]]:
    """The finite cells of metrics.csv: column -> step -> value."""
    columns: dict[str, dict[float, float]] = defaultdict(dict)
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            names = next(rows, [])
            for row in rows:
                cells = {
                    name: value
                    for name, cell in zip(names, row, strict=False)  # the last may be torn
                    if cell and math.isfinite(value := to_float(cell))
                }
                if "step" in cells:
                    step = cells.pop("step")
                    for name, value in cells.items():
                        columns[name][step] = value
    return columns


def to_float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def numbered(folder: Path, kind: str) -> dict[int, Path]:
    """The pictures KIND_NUMBER.png of a folder by their numbers, in order."""
    found = {path: re.fullmatch(rf"{kind}_(\d+)", path.stem) for path in folder.glob("*.png")}
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))


def started(folder: Path) -> str:
    """When the run began: in its folder's name, else the time of a file from its start."""
    place = "/".join(folder.resolve().parts[-2:])  # a job of a sweep is one folder further down
    if match := re.search(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-\d\d", place):
        return f"{match[1]} {match[2]}:{match[3]}"
    for name in ("env.json", "metrics.csv", "summary.json"):
        if (folder / name).exists():
            written = datetime.fromtimestamp((folder / name).stat().st_mtime)
            return written.strftime("%Y-%m-%d %H:%M")
    return ""


# Words and numbers


def number(value: Any) -> str:
    """A figure in four digits, a dash for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "\N{EN DASH}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def find(figures: Mapping[str, Any], name: str) -> Any:
    """The value of a key, which may carry the data's name in front."""
    return next((v for key, v in figures.items() if is_a(key, name)), None)


def is_a(key: str, name: str) -> bool:
    return key == name or key.endswith(f"_{name}")


def settings(config: dict[str, Any], env: dict[str, Any]) -> list[tuple[str, str]]:
    """The other settings that matter, as far as they are known: names and values."""
    gan, model, trainer = (config.get(part) or {} for part in ("gan", "model", "trainer"))
    players = config.get("optimizer") or {}
    alike = players.get("d") == players.get("g")
    parts = {
        "generator": model.get("generator"),
        "discriminator": model.get("discriminator"),
        "objective": config.get("objective"),
        "terms": gan.get("terms"),
        "optimizer" if alike else "optimizer of D": players.get("d"),
        "optimizer of G": None if alike else players.get("g"),
        "latents": gan.get("latent"),
        "module": gan,
    }
    rows = [(name, called(part)) for name, part in parts.items() if part]
    if "precision" in trainer:
        rows.append(("precision", plain(trainer["precision"])))
    if device := env.get("device") or {}:
        rows.append(("device", f"{device.get('type')}, {device.get('name')}"))
    if env.get("git"):
        revision, _, changes = env["git"].partition("+")
        rows.append(("git", revision[:12] + (" with changes" if changes else "")))
    return rows


def called(part: Any) -> str:
    """A part of the configuration in a line: its target, and the plain values that are its own."""
    if isinstance(part, list):
        return "; ".join(map(called, part))
    if not isinstance(part, dict):
        return plain(part)
    target = str(part.get("_target_", "")).removeprefix("ganmnist.")
    own = [f"{name}={plain(v)}" for name, v in part.items() if name[0] != "_" and is_own(v)]
    return " ".join([target, *own])


def is_own(value: Any) -> bool:
    """Whether a value is plain, and not taken from a knob that has its own line."""
    if isinstance(value, list):
        return bool(value) and all(map(is_own, value))
    return value is not None and not isinstance(value, dict) and not str(value).startswith("${")


def plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(plain, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def reproduction(folder: Path, env: dict[str, Any]) -> dict[str, str]:
    """The commands that do it again; a sweep's command does not say which of its jobs this is."""
    command = [str(word) for word in env.get("command") or ()]
    revision, _, changes = (env.get("git") or "").partition("+")
    try:
        overrides = yaml.safe_load((folder / ".hydra/overrides.yaml").read_text()) or []
    except (OSError, yaml.YAMLError):
        overrides = []
    overrides = [str(override) for override in overrides]
    return {
        "checkout": f"git checkout {revision}" if revision else "",
        "changes": changes,
        "command": shlex.join(command),
        "job": shlex.join(overrides) if set(overrides) - set(command) else "",
    }


# Curves and bars, in the coordinates of the SVG that the template writes

LEFT, RIGHT, TOP, BOTTOM = 42, 430, 10, 190  # the ends of the axes


@dataclass
class Curve:
    name: str
    colour: str  # one of the template's classes
    points: list[tuple[float, float]]
    path: str = ""


@dataclass
class Line:
    """A level to compare with, drawn across."""

    name: str
    value: float
    y: float = 0


@dataclass
class Axis:
    """Places values between two ends of the drawing."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    least: float = 0  # between two ticks

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        inside = min(max((value - low) / (high - low), 0.0), 1.0)
        return round(self.start + inside * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        values = (
            decades(self.low, self.high) if self.log else steps(self.low, self.high, self.least)
        )
        return [(self(v), f"{v / 1000:g}k" if abs(v) >= 1000 else f"{v:g}") for v in values]


@dataclass
class Chart:
    title: str
    unit: str  # of the x axis
    curves: list[Curve]
    lines: list[Line]
    x: Axis
    y: Axis


def steps(low: float, high: float, least: float) -> list[float]:
    """At most six round values between two others."""
    size = 10 ** math.floor(math.log10((high - low) / 5))
    step = max(least, next(size * m for m in (1, 2, 5, 10) if (high - low) / (size * m) <= 5))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """The values 1, 2 and 5 times a power of ten between two others; of many, the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    return values if len(values) <= 7 else [10.0**p for p in powers if low <= 10.0**p <= high]


def curve(name: str, colour: str, values: Series | None, smoothed: bool = False) -> list[Curve]:
    """A curve of at most POINTS points; none without values."""
    if not values:
        return []
    x, y = np.array(sorted(values.items())).T
    width = max(1, len(x) // 100) if smoothed else 1
    points = zip(smooth(x, width).tolist(), smooth(y, width).tolist(), strict=True)
    return [Curve(name, colour, images.thin([*points], POINTS))]


def chart(
    title: str,
    unit: str,
    curves: list[Curve],
    lines: Sequence[Line] = (),
    ends: tuple[float, float] | None = None,
    zero: bool = True,
    log: bool = False,
) -> list[Chart]:
    """A chart of some curves; none without curves.

    The y axis goes from one of `ends` to the other; else it shows what there is, with or without
    zero, or in a logarithmic scale where that is asked for and helps.
    """
    if not curves:
        return []
    x = [point[0] for c in curves for point in c.points]
    y = [point[1] for c in curves for point in c.points] + [line.value for line in lines]
    log = log and min(y) > 0 and max(y) > 20 * min(y)
    if log:
        low, high = min(y) / 1.2, max(y) * 1.2
    elif zero:
        low, high = ends or limits(np.array(y))
    else:
        margin = max(0.1 * (max(y) - min(y)), 0.01)
        low, high = min(y) - margin, max(y) + margin
    first = 0 if unit == "batches" else min(x) - (min(x) == max(x))
    drawn = Chart(
        title,
        unit,
        curves,
        [*lines],
        Axis(first, max(x), LEFT, RIGHT, least=1),
        Axis(low, high, BOTTOM, TOP, log),
    )
    for c in curves:
        places = [f"{drawn.x(x)} {drawn.y(y)}" for x, y in c.points]
        c.path = "M" + " L".join(places if len(places) > 1 else places * 2)
    for line in drawn.lines:
        line.y = drawn.y(line.value)
    return [drawn]


def training_charts(scalars: Mapping[str, Series]) -> list[Chart]:
    losses = [
        *curve("D", "first", scalars.get("train/d/loss"), smoothed=True),
        *curve("G", "second", scalars.get("train/g/loss"), smoothed=True),
    ]
    outputs = [
        *curve("D(x), real", "first", scalars.get("train/d/real_prob"), smoothed=True),
        *curve("D(G(z)), generated", "second", scalars.get("train/d/fake_prob"), smoothed=True),
    ]
    return [
        *chart("Losses", "batches", losses),
        *chart("Mean output of D", "batches", outputs, ends=(0, 1)),
    ]


def validation_charts(scalars: Mapping[str, Series], floor: Any) -> list[Chart]:
    epochs = scalars.get("epoch", {})

    def curves(metric: str) -> list[Curve]:
        found = []
        for ending, name, colour in (("", "as trained", "third"), ("_ema", "EMA", "fourth")):
            values = next((v for k, v in scalars.items() if is_metric(k, metric + ending)), {})
            by_epoch = {epochs[step]: value for step, value in values.items() if step in epochs}
            found += curve(name, colour, by_epoch)
        return found

    def is_metric(column: str, metric: str) -> bool:
        return column.startswith("metrics/") and is_a(column.removeprefix("metrics/"), metric)

    real = [Line("real images", floor)] if number(floor) != number(None) else []
    even = [Line("classes drawn evenly", math.log(10))]
    return [
        *chart("val_fid", "epochs", curves("val_fid"), real, log=True),
        *chart("val_class_entropy", "epochs", curves("val_class_entropy"), even, zero=False),
    ]


@dataclass
class Bar:
    label: str
    x: float
    heights: list[tuple[str, float, float]]  # colour, y, height


def histogram(counts: dict[str, Any]) -> dict[str, Any]:
    """Shares of the classes among generated and test images, as bars side by side."""
    kinds = [(name, colour) for name, colour in (("generated", "second"), ("test", "grey"))]
    shares = {
        name: [value / sum(counts[name]) for value in counts[name]]
        for name, _ in kinds
        if counts.get(name) and sum(counts[name])
    }
    if not shares:
        return {}
    n = max(map(len, shares.values()))
    y = Axis(0, 1.1 * max(max(values) for values in shares.values()), BOTTOM, TOP)
    width = (RIGHT - LEFT) / n
    bars = [
        Bar(
            str(i),
            round(LEFT + i * width, 1),
            [
                (colour, y(shares[name][i]), round(BOTTOM - y(shares[name][i]), 1))
                for name, colour in kinds
                if name in shares and i < len(shares[name])
            ],
        )
        for i in range(n)
    ]
    return {
        "bars": bars,
        "width": round(width, 1),
        "y": [(place, f"{float(v):.0%}") for place, v in y.ticks()],
        "kinds": [k for k in kinds if k[0] in shares],
    }


# Figures

WEIGHTS = {"raw": "as trained", "ema": "EMA"}
ABOUT = {
    "fid": "Fréchet distance to the test images: lower is better",
    "kid": "kernel distance to the test images: lower is better, about 0 at best",
    "is": "inception score, of the classifier: higher is better, 10 at most",
    "precision": "share of generated images that are near real ones",
    "recall": "share of real images that generated ones are near to",
    "density": "how densely real images surround generated ones",
    "coverage": "share of real images with a generated neighbour",
    "class_kl": "unevenness of the classes: 0 at best",
    "memorization": "distance to training images, over that of test images: 0 for copies",
    "modes": "digit triples found, of 1000",
    "mode_kl": "unevenness of the triples: lower is better",
    "real_modes": "the same for real images",
    "real_mode_kl": "the same for real images",
}


def aligned(values: Sequence[Any]) -> list[str]:
    """Figures with the decimals that show four digits of the largest, at most five."""
    known = [abs(v) for v in values if number(v) != number(None)]
    largest = max(known, default=0)
    decimals = min(max(0, 3 - math.floor(math.log10(largest))), 5) if largest else 0
    return [number(v) if number(v) == number(None) else f"{v:,.{decimals}f}" for v in values]


def about(key: str) -> str:
    return next((ABOUT[n] for n in sorted(ABOUT, key=len, reverse=True) if is_a(key, n)), "")


def metrics_table(figures: dict[str, Any]) -> dict[str, Any]:
    """The full table: metrics down, last and best weights, raw and averaged, across."""
    final, best = (figures.get(part) or {} for part in ("final", "best"))
    groups = {"last": final, "best": best}
    if "epoch" in final and final["epoch"] == best.get("epoch"):
        groups = {"last and best": best | final}
    spans, columns = [], []
    for title, part in groups.items():
        found = [(name, part[key]) for key, name in WEIGHTS.items() if part.get(key)]
        if found:
            spans.append((title, part.get("epoch"), len(found)))
            columns += found
    if not columns:
        return {}
    values: dict[str, list[Any]] = {
        key: [figures_of.get(key) for _, figures_of in columns]
        for key in dict.fromkeys(key for _, figures_of in columns for key in figures_of)
    }
    return {
        "spans": spans,
        "columns": [name for name, _ in columns],
        "rows": [(k, about(k), aligned(v)) for k, v in values.items() if not is_a(k, "fid_floor")],
        "best_by": {k: v for k, v in best.items() if k not in ("epoch", *WEIGHTS)},
        "floors": {k: v[0] for k, v in values.items() if is_a(k, "fid_floor")}
        | {k: v for k, v in figures.items() if is_a(k, "fid_floor")},
        "protocol": figures.get("protocol") or {},
    }


# Pictures


def picture(path: Path | None, levels: int = 256) -> str:
    """A picture as a data: URI; empty if there is none.

    With 16 `levels` of grey, enough for digits, it takes half of the bytes.
    """
    if path is None:
        return ""
    step = 256 // levels
    table = [v // step * 255 // (levels - 1) for v in range(256)]
    encoded = BytesIO()
    try:
        with Image.open(path) as image:
            image.point(table * len(image.getbands())).save(encoded, "png")
    except OSError:
        return ""
    return f"data:image/png;base64,{b64encode(encoded.getvalue()).decode()}"


def frames(samples: Path) -> list[tuple[int, str]]:
    """The epochs of the scrubber and their grids of the same latents."""
    grids = [
        (n, picture(path, levels=16))
        for n, path in images.thin([*numbered(samples, "epoch").items()], FRAMES)
    ]
    return [(n, uri) for n, uri in grids if uri]


def real_and_generated(samples: Path) -> list[tuple[str, str]]:
    """The last real batch beside what was generated at the same time, or else last."""
    real, fake, epochs = (numbered(samples, kind) for kind in ("real", "fake", "epoch"))
    generated = fake.get(max(real, default=0)) or last(fake) or last(epochs)
    pair = [("real", picture(last(real))), ("generated", picture(generated))]
    return pair if all(uri for _, uri in pair) else []


def last(numbered: dict[int, Path]) -> Path | None:
    return numbered[max(numbered)] if numbered else None
