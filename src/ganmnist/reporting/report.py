"""report.html: a run on one page, without other files and without network.

It is built from the files in the folder of the run. Sections without files are left out, so a run
that ended early has a report as well. Its Content-Security-Policy forbids all requests.
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
from hashlib import sha256
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment

from ganmnist.reporting import images, plots
from ganmnist.reporting.closing import STAND_IN, duration, other_warnings, quality
from ganmnist.reporting.images import subsample
from ganmnist.reporting.metric_info import (
    describe,
    find,
    find_info,
    is_metric,
    is_number,
    reference,
)
from ganmnist.utils.files import atomic_write, read_json, read_yaml
from ganmnist.utils.values import LARGEST, is_plain

FRAMES = 60  # largest number of images of the slider
OPTIONS = ("epochs", "batch_size", "lr", "latent_dim", "ema", "seed")
WEIGHTS = {"raw": "trained weights", "ema": "EMA weights"}  # EMA: moving average of the weights


def write(folder: Path) -> None:
    """Writes report.html into the folder of a run."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "duration": duration_of}
    template = Path(__file__).with_suffix(".html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(contents(Path(folder)))
    page = allow_own_code(page)
    with atomic_write(Path(folder) / "report.html") as part:
        # A command-line argument may be no valid UTF-8.
        part.write_text(page, encoding="utf-8", errors="replace")


def allow_own_code(page: str) -> str:
    """Sets the hashes of the page's own style and script, the only ones that a browser accepts."""
    for name in ("style", "script"):
        code = re.search(f"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = b64encode(sha256(code[1].encode()).digest()).decode() if code else ""
        allowed = f"'sha256-{digest}'" if code else "'none'"
        page = page.replace(f"HASH-OF-{name.upper()}", allowed, 1)
    return page


def contents(folder: Path) -> dict[str, Any]:
    """The variables of the template, which leaves out empty ones."""
    summary, env = (load(folder / f"{name}.json", dict) for name in ("summary", "env"))
    # The values of the run; Hydra's file has those before `auto` was resolved.
    config = load(folder / "config.yaml", dict) or load(folder / ".hydra/config.yaml", dict)
    options = get(summary, "settings", dict) | config
    metrics = get(summary, "metrics", dict)
    command = [str(word) for word in get(env, "command", list)]
    overrides = [str(word) for word in load(folder / ".hydra/overrides.yaml", list)]
    return {
        "name": summary.get("name") or config.get("name") or folder.resolve().name,
        "date": started(folder),
        "summary": summary,
        "data": summary.get("data") or get(env, "data", dict).get("name"),
        "options": {name: plain(options[name]) for name in OPTIONS if name in options},
        "verdict": verdict(summary, metrics),
        "warnings": other_warnings([*map(str, get(summary, "warnings", list))])[:5],
        "stand_in": STAND_IN if summary.get("stand_in_data") is True else "",
        "settings": settings(config, env),
        **charts(read_curves(folder / "metrics.csv"), summary, find(metrics, "val_fid_floor")),
        "table": metrics_table(metrics),
        "frames": frames(folder / "samples"),
        "pair": real_and_generated(folder / "samples"),
        "histogram": histogram(get(metrics, "class_histogram", dict)),
        "extra_images": extra_images(folder / "samples"),
        "env": env,
        "revision": get(env, "git", str).partition("+"),
        "command": shlex.join(command),
        # The command of a sweep does not name the job.
        "job": shlex.join(overrides) if set(overrides) - set(command) else "",
    }


def load(path: Path, kind: type) -> Any:
    """The content of a JSON or YAML file; empty if unreadable or of another type."""
    try:
        content = read_json(path) if path.suffix == ".json" else read_yaml(path)
    except (OSError, ValueError):
        return kind()
    return content if isinstance(content, kind) and is_plain(content) else kind()


def get(mapping: Mapping[str, Any], name: str, kind: type) -> Any:
    """A value of a mapping; empty if missing or of another type."""
    value = mapping.get(name)
    return value if isinstance(value, kind) else kind()


def read_curves(path: Path) -> plots.Curves:
    """The finite values of metrics.csv: column -> step (for metrics: epoch) -> value."""
    columns: dict[str, dict[float, float]] = defaultdict(dict)
    with (
        suppress(OSError, csv.Error),
        path.open(newline="", encoding="utf-8", errors="replace") as file,
    ):
        for row in csv.DictReader(file):
            row.pop(None, None)  # fields of a torn row that has too many
            for name in filter(row.get, row):
                with suppress(KeyError, TypeError, ValueError):  # a torn row
                    x = row["epoch" if name.startswith("metrics/") else "step"]
                    at, value = float(x), float(row[name])
                    if all(abs(number) < LARGEST for number in (at, value)):
                        columns[name][at] = value
    return columns


def started(folder: Path) -> str:
    """The start of the run: from the name of its folder, otherwise the time of env.json."""
    path = "/".join(folder.resolve().parts[-2:])  # a job of a sweep is one folder deeper
    if match := re.search(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-\d\d", path):
        return f"{match[1]} {match[2]}:{match[3]}"
    env = folder / "env.json"
    return f"{datetime.fromtimestamp(env.stat().st_mtime):%Y-%m-%d %H:%M}" if env.exists() else ""


# Text and numbers


def number(value: Any) -> str:
    """A number with four digits; a dash for anything else."""
    if not is_number(value):
        return "\N{EN DASH}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration_of(seconds: Any) -> str:
    return duration(seconds) if is_number(seconds) else number(seconds)


def aligned(values: Sequence[Any]) -> list[str]:
    """Numbers with equal decimals: four digits for the largest, at most five decimals."""
    largest = max((abs(v) for v in values if is_number(v)), default=0)
    decimals = min(max(0, 3 - math.floor(math.log10(largest))), 5) if largest else 0
    return [f"{v:,.{decimals}f}" if is_number(v) else number(v) for v in values]


def verdict(summary: Mapping[str, Any], metrics: dict[str, Any]) -> list[str]:
    """The quality of the last and of the best weights, otherwise the optimized metric."""
    with suppress(AttributeError, KeyError, TypeError, ValueError):  # a damaged summary.json
        if lines := [*quality(metrics)]:
            return lines
    value, key = summary.get("value"), str(summary.get("metric"))
    return [describe(key, {"raw": value}, metrics)] if is_number(value) else []


def settings(config: dict[str, Any], env: dict[str, Any]) -> dict[str, str]:
    """The parts of the run, as far as they are known."""
    gan, model, trainer = (get(config, part, dict) for part in ("gan", "model", "trainer"))
    family, optimizers = get(config, "family", dict), get(config, "optimizer", dict)
    # Parts that the family sets itself. The others are those of the model and the objective.
    shared = [model.get("generator"), model.get("discriminator"), config.get("objective")]
    parts_of_family = ("generator", "discriminator", "encoder", "objective")
    own = [part for part in map(family.get, parts_of_family) if part not in shared]
    same = optimizers.get("d") == optimizers.get("g")
    revision, _, changes = get(env, "git", str).partition("+")
    latent = family.get("latent")
    parts = {
        "generator": model.get("generator"),
        "discriminator": model.get("discriminator"),
        "objective": config.get("objective"),
        "family": [part for part in own if isinstance(part, dict)],
        "penalties": [*get(config, "penalty", dict).values()],
        "auxiliary losses": [*get(family, "auxiliary", dict).values()],
        "stabilizers": [*get(config, "stabilizer", dict).values()],
        "schedules": [*get(config, "schedule", dict).values()],
        "optimizer" if same else "optimizer of D": optimizers.get("d"),
        "optimizer of G": None if same else optimizers.get("g"),
        "latents": latent if isinstance(latent, dict) else config.get("latent"),
        "training step": {k: v for k, v in gan.items() if k != "_target_"},
        "precision": trainer.get("precision"),
        "device": ", ".join(map(str, get(env, "device", dict).values())),
        "git": revision[:12] + ", with changes" * bool(changes),
    }
    return {name: summarize(part) for name, part in parts.items() if part}


def summarize(part: Any) -> str:
    """A part of the configuration in one line: its target and its own plain values."""
    if isinstance(part, list):
        return "; ".join(map(summarize, part))
    if not isinstance(part, dict):
        return plain(part)
    target = str(part.get("_target_", "")).removeprefix("ganmnist.")
    values = {name: plain(v) for name, v in part.items() if v not in (None, [])}
    # Nested parts and references to other settings (${...}) are left out.
    own = [f"{k}={v}" for k, v in values.items() if "{" not in v and not str(k).startswith("_")]
    return " ".join(filter(None, [target, *own]))


def plain(value: Any) -> str:
    """A string unchanged, other values as JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, separators=(",", ":"), default=str)
    except (TypeError, ValueError):  # a key that is no string, or a huge number
        return ""


class TableRow(NamedTuple):
    """A metric in the table."""

    key: str
    meaning: str
    direction: str
    reference: str
    values: list[str]


def metrics_table(metrics: dict[str, Any]) -> dict[str, Any]:
    """The table: metrics down; last and best weights, trained and EMA, across."""
    final, best = (get(metrics, part, dict) for part in ("final", "best"))
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
    known: dict[str, Any] = dict(chain.from_iterable(part.items() for part in (*parts, metrics)))
    rows = []
    for key in dict.fromkeys(chain(*parts)):
        if not is_metric(key, "(fid_floor|val_fid_floor)"):  # the reference of another row
            info = find_info(key)
            values = aligned([part.get(key) for part in parts])
            rows.append(TableRow(key, info.meaning, info.direction, reference(info, known), values))
    criteria = {k: v for k, v in best.items() if k not in ("epoch", *WEIGHTS) and is_number(v)}
    return {
        "spans": Counter(title for title, *_ in columns),
        "columns": [name for _, name, _ in columns],
        "rows": rows,
        "chosen_by": [describe(k, {"raw": v}, metrics) for k, v in criteria.items()],
        "protocol": get(metrics, "protocol", dict),
    }


# Charts and images


def uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def charts(
    curves: plots.Curves, summary: Mapping[str, Any], floor: Any
) -> dict[str, list[tuple[str, str]]]:
    """The titles and charts of two sections. Charts without values are left out."""

    def chart(title: str, unit: str, names: dict[str, str], **scale: Any) -> list[tuple[str, str]]:
        named = {name: find(curves, column) or {} for name, column in names.items()}
        if not any(named.values()):
            return []
        return [(title, uri("svg+xml", plots.curves(named, unit, **scale)))]

    losses = {"D": "train/d/loss", "G": "train/g/loss"}
    outputs = {"D(x), real": "train/d/real_prob", "D(G(z)), generated": "train/d/fake_prob"}
    logits = {name: column.replace("prob", "logit") for name, column in outputs.items()}
    fid = {"trained weights": "val_fid", "EMA weights": "val_fid_ema"}
    entropy = {"trained weights": "val_class_entropy", "EMA weights": "val_class_entropy_ema"}
    modes = {"trained weights": "modes", "EMA weights": "modes_ema"}
    quality = {"trained weights": "high_quality", "EMA weights": "high_quality_ema"}
    real = [("real images", floor)] if is_number(floor) else []
    even = [("equally frequent classes", math.log(10))]
    levels = zip("DG", get(summary, "equilibrium", list), strict=False)
    equilibrium = [(f"{name} at equilibrium", level) for name, level in levels if is_number(level)]
    return {
        "training": [
            *chart("Losses", "batches", losses, levels=equilibrium),
            *chart("Mean output of D", "batches", outputs, ends=(0, 1)),
            *chart("Mean logit of D", "batches", logits),
        ],
        "validation": [
            *chart("val_fid (lower is better)", "epochs", fid, levels=real, log=True),
            *chart(
                "val_class_entropy (higher is better)", "epochs", entropy, levels=even, zero=False
            ),
            *chart("modes (higher is better)", "epochs", modes),
            *chart("high_quality (higher is better)", "epochs", quality, ends=(0, 1)),
        ],
    }


def histogram(counts: dict[str, Any]) -> str:
    """A chart of the shares of the classes among generated and test images."""
    kinds = {kind: get(counts, kind, list) for kind in ("generated", "test")}
    known = {k: v for k, v in kinds.items() if all(map(is_number, v)) and sum(v)}
    shares = {kind: [value / sum(values) for value in values] for kind, values in known.items()}
    return uri("svg+xml", plots.bars(shares)) if shares else ""


def numbered(folder: Path, kind: str) -> dict[int, Path]:
    """The files KIND_NUMBER.png of a folder by number, in order."""
    found = {path: re.fullmatch(rf"{kind}_(\d+)", path.stem) for path in folder.glob("*.png")}
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))


def frames(samples: Path) -> list[tuple[int, str]]:
    """Epochs and their grids of the same latents.

    Gray images keep 16 levels, enough for digits, and half of the bytes. Color images keep 64
    colors.
    """
    found = []
    for n, path in subsample([*numbered(samples, "epoch").items()], FRAMES):
        with suppress(OSError):
            image = images.read(path)
            if image.mode == "L":
                few = image.point(lambda level: level // 16 * 17)
            else:
                few = image.convert("RGB").quantize(64)
            few.save(encoded := BytesIO(), "png")
            found.append((n, uri("png", encoded.getvalue())))
    return found


def extra_images(samples: Path) -> dict[str, str]:
    """Images without a number: nearest neighbors, and the family's own grids."""
    series = re.compile(r"(real|fake|epoch)_\d+")
    single = sorted(path for path in samples.glob("*.png") if not series.fullmatch(path.stem))
    return {path.stem: content for path in single if (content := picture(path))}


def picture(path: Path) -> str:
    """An image file as it is; empty if it is not an image."""
    with suppress(OSError):
        images.read(path)
        return uri("png", path.read_bytes())
    return ""


def real_and_generated(samples: Path) -> list[tuple[str, str]]:
    """The last real batch, and the images generated at the same batch or the last ones."""
    real, fake, epochs = (numbered(samples, kind) for kind in ("real", "fake", "epoch"))
    if not real or not (generated := [*epochs.values(), *fake.values()]):
        return []
    pair = {"real": real[max(real)], "generated": fake.get(max(real), generated[-1])}
    return [(name, content) for name, path in pair.items() if (content := picture(path))]
