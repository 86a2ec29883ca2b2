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
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from jinja2 import Environment
from PIL import Image

from ganmnist import plots
from ganmnist.files import whole
from ganmnist.images import thin

FRAMES = 60  # of the scrubber
KNOBS = ("epochs", "batch_size", "lr", "latent_dim", "ema", "seed")
FLOORS = "(fid_floor|val_fid_floor)"  # what real images get
WEIGHTS = {"raw": "as trained", "ema": "EMA"}


def write(folder: Path) -> None:
    """Writes report.html into the folder of a run."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"], environment.tests["a"] = number, is_a
    template = Path(__file__).with_suffix(".html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(contents(Path(folder)))
    with whole(Path(folder) / "report.html") as part:
        # An argument of the command line need not be text.
        part.write_text(page, encoding="utf-8", errors="replace")


def contents(folder: Path) -> dict[str, Any]:
    """What the template shows; what is empty it leaves out."""
    summary, env = (load(folder / f"{name}.json", dict) for name in ("summary", "env"))
    config = load(folder / ".hydra/config.yaml", dict)
    knobs = get(summary, "settings", dict) | config
    figures = get(summary, "metrics", dict)
    command = [str(word) for word in get(env, "command", list)]
    overrides = [str(word) for word in load(folder / ".hydra/overrides.yaml", list)]
    return {
        "task": summary.get("task") or config.get("task") or folder.resolve().name,
        "date": started(folder),
        "summary": summary,
        "data": summary.get("data") or get(env, "data", dict).get("name"),
        "knobs": {name: plain(knobs[name]) for name in KNOBS if name in knobs},
        "settings": settings(config, env),
        **charts(read_curves(folder / "metrics.csv"), find(figures, "val_fid_floor")),
        "table": metrics_table(figures),
        "frames": frames(folder / "samples"),
        "pair": real_and_generated(folder / "samples"),
        "histogram": histogram(get(figures, "class_histogram", dict)),
        "further": further(folder / "samples"),
        "env": env,
        "revision": get(env, "git", str).partition("+"),
        "command": shlex.join(command),
        # The command of a sweep does not say which of its jobs this is.
        "job": shlex.join(overrides) if set(overrides) - set(command) else "",
    }


def load(path: Path, kind: type) -> Any:
    """What a JSON or YAML file holds; empty if that cannot be read, or is no `kind`."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return kind()
    return content if isinstance(content, kind) else kind()


def get(mapping: Mapping[str, Any], name: str, kind: type) -> Any:
    """A value of a mapping; empty if it is no `kind`."""
    value = mapping.get(name)
    return value if isinstance(value, kind) else kind()


def read_curves(path: Path) -> plots.Curves:
    """The finite cells of metrics.csv: column -> step, or epoch of a metric -> value."""
    columns: dict[str, dict[float, float]] = defaultdict(dict)
    with suppress(FileNotFoundError), path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name in filter(row.get, row):
                with suppress(KeyError, TypeError, ValueError):  # where a row was torn
                    place = row["epoch" if name.startswith("metrics/") else "step"]
                    if math.isfinite(value := float(row[name])):
                        columns[name][float(place)] = value
    return columns


def started(folder: Path) -> str:
    """When the run began: in its folder's name, else the time of a file from its start."""
    place = "/".join(folder.resolve().parts[-2:])  # a job of a sweep is one folder further down
    if match := re.search(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-\d\d", place):
        return f"{match[1]} {match[2]}:{match[3]}"
    env = folder / "env.json"
    return f"{datetime.fromtimestamp(env.stat().st_mtime):%Y-%m-%d %H:%M}" if env.exists() else ""


# Words and numbers


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def number(value: Any) -> str:
    """A figure in four digits, a dash for what is none."""
    if not is_number(value):
        return "\N{EN DASH}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def aligned(values: Sequence[Any]) -> list[str]:
    """Figures with the decimals that show four digits of the largest, at most five."""
    largest = max((abs(v) for v in values if is_number(v)), default=0)
    decimals = min(max(0, 3 - math.floor(math.log10(largest))), 5) if largest else 0
    return [f"{v:,.{decimals}f}" if is_number(v) else number(v) for v in values]


def is_a(key: str, name: str) -> bool:
    """Whether a key is of a metric, whose name may carry the data's in front."""
    return re.fullmatch(rf"(metrics/)?((?!val_)[^/_]+_)?{name}", key) is not None


def find(figures: Mapping[str, Any], name: str) -> Any:
    return next((value for key, value in figures.items() if is_a(key, name)), None)


def settings(config: dict[str, Any], env: dict[str, Any]) -> dict[str, str]:
    """The other settings that matter, as far as they are known."""
    gan, model, trainer = (get(config, part, dict) for part in ("gan", "model", "trainer"))
    family, players = get(config, "family", dict), get(config, "optimizer", dict)
    # What the family has of its own is written out; the rest refers to the model and the objective.
    own = [family.get(part) for part in ("generator", "discriminator", "objective")]
    own.append(gan.get("encoder"))
    alike = players.get("d") == players.get("g")
    revision, _, changes = get(env, "git", str).partition("+")
    parts = {
        "generator": model.get("generator"),
        "discriminator": model.get("discriminator"),
        "objective": config.get("objective"),
        "family": [part for part in own if isinstance(part, dict)],
        "terms": [*get(config, "terms", dict).values()],
        "stabilizers": [*get(config, "stabilizer", dict).values()],
        "schedules": [*get(config, "schedule", dict).values()],
        "optimizer" if alike else "optimizer of D": players.get("d"),
        "optimizer of G": None if alike else players.get("g"),
        "latents": family.get("latent", gan.get("latent")),
        "module": gan,
        "precision": trainer.get("precision"),
        "device": ", ".join(map(str, get(env, "device", dict).values())),
        "git": revision[:12] + " with changes" * bool(changes),
    }
    return {name: called(part) for name, part in parts.items() if part}


def called(part: Any) -> str:
    """A part of the configuration in a line: its target, and the plain values that are its own."""
    if isinstance(part, list):
        return "; ".join(map(called, part))
    if not isinstance(part, dict):
        return plain(part)
    target = str(part.get("_target_", "")).removeprefix("ganmnist.")
    values = {name: plain(v) for name, v in part.items() if v not in (None, [])}
    # Without parts of their own, and what ${...} takes from a knob that has its own line.
    own = [f"{k}={v}" for k, v in values.items() if "{" not in v and not str(k).startswith("_")]
    return " ".join([target, *own])


def plain(value: Any) -> str:
    """A text as it is, other values in JSON."""
    text = isinstance(value, str)
    return value if text else json.dumps(value, separators=(",", ":"), default=str)


def metrics_table(figures: dict[str, Any]) -> dict[str, Any]:
    """The table: metrics down, last and best weights, raw and averaged, across."""
    final, best = (get(figures, part, dict) for part in ("final", "best"))
    groups = {"last": final, "best": best}
    if "epoch" in final and final["epoch"] == best.get("epoch"):
        groups = {"last and best": best | final}
    columns = [
        (f"{title}, epoch {number(group.get('epoch'))}", name, group[key])
        for title, group in groups.items()
        for key, name in WEIGHTS.items()
        if get(group, key, dict)
    ]
    parts = [part for *_, part in columns]
    keys = [k for k in dict.fromkeys(chain(*parts)) if not is_a(k, FLOORS)]
    floors = [(k, v) for part in (*parts, figures) for k, v in part.items() if is_a(k, FLOORS)]
    return {
        "spans": Counter(title for title, *_ in columns),
        "columns": [name for _, name, _ in columns],
        "rows": [(k, aligned([part.get(k) for part in parts])) for k in keys],
        "best_by": {k: v for k, v in best.items() if k not in ("epoch", *WEIGHTS)},
        "floors": dict(floors),
        "protocol": get(figures, "protocol", dict),
    }


# Charts and pictures


def uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def charts(curves: plots.Curves, floor: Any) -> dict[str, list[tuple[str, str]]]:
    """The charts of two sections and their titles; those without values are left out."""

    def chart(title: str, unit: str, names: dict[str, str], **scale: Any) -> list[tuple[str, str]]:
        named = {name: find(curves, column) or {} for name, column in names.items()}
        drawn = any(named.values())
        return [(title, uri("svg+xml", plots.curves(named, unit, **scale)))] if drawn else []

    losses = {"D": "train/d/loss", "G": "train/g/loss"}
    outputs = {"D(x), real": "train/d/real_prob", "D(G(z)), generated": "train/d/fake_prob"}
    logits = {name: column.replace("prob", "logit") for name, column in outputs.items()}
    fid = {"as trained": "val_fid", "EMA": "val_fid_ema"}
    entropy = {"as trained": "val_class_entropy", "EMA": "val_class_entropy_ema"}
    modes = {"as trained": "modes", "EMA": "modes_ema"}
    quality = {"as trained": "high_quality", "EMA": "high_quality_ema"}
    real = ("real images", floor) if is_number(floor) else None
    even = ("classes drawn evenly", math.log(10))
    return {
        "training": [
            *chart("Losses", "batches", losses),
            *chart("Mean output of D", "batches", outputs, ends=(0, 1)),
            *chart("Mean logit of D", "batches", logits),
        ],
        "validation": [
            *chart("val_fid", "epochs", fid, level=real, log=True),
            *chart("val_class_entropy", "epochs", entropy, level=even, zero=False),
            *chart("modes", "epochs", modes),
            *chart("high_quality", "epochs", quality, ends=(0, 1)),
        ],
    }


def histogram(counts: dict[str, Any]) -> str:
    """Shares of the classes among generated and test images, side by side."""
    kinds = {kind: get(counts, kind, list) for kind in ("generated", "test")}
    known = {k: v for k, v in kinds.items() if all(map(is_number, v)) and sum(v)}
    shares = {kind: [value / sum(values) for value in values] for kind, values in known.items()}
    return uri("svg+xml", plots.bars(shares)) if shares else ""


def numbered(folder: Path, kind: str) -> dict[int, Path]:
    """The pictures KIND_NUMBER.png of a folder by their numbers, in order."""
    found = {path: re.fullmatch(rf"{kind}_(\d+)", path.stem) for path in folder.glob("*.png")}
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))


def frames(samples: Path) -> list[tuple[int, str]]:
    """The epochs of the scrubber and their grids of the same latents.

    16 levels of grey, enough for digits, take half of the bytes; pictures in colour get 64 colours.
    """
    found = []
    for n, path in thin([*numbered(samples, "epoch").items()], FRAMES):
        with suppress(OSError), Image.open(path) as image:
            grey = image.mode == "L"
            few = image.point(lambda level: level // 16 * 17) if grey else image.quantize(64)
            few.save(encoded := BytesIO(), "png")
            found.append((n, uri("png", encoded.getvalue())))
    return found


def further(samples: Path) -> dict[str, str]:
    """The pictures without a number: the nearest neighbours, and what a family shows of itself."""
    series = re.compile(r"(real|fake|epoch)_\d+")
    single = sorted(path for path in samples.glob("*.png") if not series.fullmatch(path.stem))
    return {path.stem: uri("png", path.read_bytes()) for path in single}


def real_and_generated(samples: Path) -> list[tuple[str, str]]:
    """The last real batch beside what was generated at the same time, or else last."""
    real, fake, epochs = (numbered(samples, kind) for kind in ("real", "fake", "epoch"))
    if not real or not (generated := [*epochs.values(), *fake.values()]):
        return []
    pair = {"real": real[max(real)], "generated": fake.get(max(real), generated[-1])}
    return [(name, uri("png", path.read_bytes())) for name, path in pair.items()]
