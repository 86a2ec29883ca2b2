"""Loggers: metrics.csv and TensorBoard.

Any logger of Lightning works. The optional methods of a logger are in utils/hooks.py.
"""

from __future__ import annotations

import csv
import logging
import math
import os
import re
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ganmnist.reporting.metric_info import is_metric
from ganmnist.utils.files import atomic_replace, collect_write_errors
from ganmnist.utils.values import LARGEST

log = logging.getLogger(__name__)

Row = dict[str, float]


class MetricsCSV(Logger):
    """metrics.csv: every logged scalar, one row per step.

    All rows are in memory, about 1 kB each. They are appended to the file. New columns, and further
    scalars of a step that is in the file, rewrite it atomically. The newest row waits for more
    scalars until the next row or `flush`.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.columns, self.rows = read_rows(self.path)
        self.in_file = -math.inf  # newest step in the file, if that is known to be intact
        self.saved = -1  # newest step without unsaved scalars

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Does nothing: the settings have files of their own."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.log_rows({step or 0: dict(metrics)})

    @rank_zero_only
    def log_rows(self, rows: Mapping[int, Row]) -> None:
        """Adds rows by step. Rows of one step are merged."""
        for step, row in rows.items():
            self.rows.setdefault(step, {}).update(row)
            self.saved = min(self.saved, step - 1)
        self.write(max(self.rows, default=0) - 1)

    @rank_zero_only
    def flush(self) -> None:
        self.write(max(self.rows, default=0), durable=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()

    @rank_zero_only
    def truncate_after(self, step: int) -> dict[int, Row]:
        """Removes the rows after a step. Returns the others by step."""
        self.rows = {n: row for n, row in self.rows.items() if n <= step}
        self.in_file, self.saved = -math.inf, -1
        if step and not self.rows:
            log.warning("%s: no rows until batch %s. The file starts anew.", self.path, f"{step:,}")
        self.flush()
        return dict(self.rows)

    def write(self, newest: int, durable: bool = False) -> None:
        """Writes the rows until a step. Rows that cannot be written wait for the next call."""
        new = {n: row for n, row in self.rows.items() if self.saved < n <= newest}
        if not new:
            return
        names = sorted({name for row in new.values() for name in row})
        columns = [*dict.fromkeys(["step", *self.columns, *names])]
        intact = self.in_file == self.saved and columns == self.columns and self.path.exists()
        self.in_file = -math.inf  # an error may leave a torn row
        with collect_write_errors(self.path):
            if intact:
                with self.path.open("a", newline="") as file:
                    write_rows(file, columns, new)
                    file.flush()
                    if durable:
                        os.fsync(file.fileno())
            else:
                rows = {n: row for n, row in self.rows.items() if n <= newest}
                replace = atomic_replace(self.path, durable=True)
                with replace as part, part.open("w", newline="") as file:
                    csv.writer(file).writerow(columns)
                    write_rows(file, columns, rows)
            self.columns, self.in_file, self.saved = columns, newest, newest


def write_rows(file: TextIO, columns: list[str], rows: Mapping[int, Row]) -> None:
    csv.DictWriter(file, columns).writerows({"step": n, **row} for n, row in rows.items())


def read_rows(path: Path) -> tuple[list[str], dict[int, Row]]:
    """The columns and the rows by step of a metrics.csv, without torn rows.

    Both are empty if there is no such file, or if it has lost its content in a power loss.
    """
    try:
        text = path.read_text(errors="replace")
        columns, *lines = [*csv.reader(text[: text.rfind("\n") + 1].splitlines())] or [[]]
    except (OSError, csv.Error):  # no file, or a field of 131,072 characters
        return [], {}
    if columns[:1] != ["step"]:
        return [], {}
    rows: dict[int, Row] = {}
    for fields in lines:
        with suppress(ValueError, OverflowError):
            step, *values = [number(text) if text else None for text in fields]
            if len(fields) == len(columns) and step is not None:
                row = zip(columns[1:], values, strict=True)
                rows[int(step)] = {name: value for name, value in row if value is not None}
    return columns, rows


def number(text: str) -> float:
    """A number of metrics.csv. ValueError for anything else, and for one that charts overflow."""
    value = int(text) if text.isdigit() and len(text) < 16 else float(text)
    if LARGEST < abs(value) < math.inf:
        raise ValueError(text)
    return value


# Names of scalars in TensorBoard, which sorts its groups by name: losses, D's outputs, quality. The
# metrics of the HPARAMS tab, `Result/...`, are scalars of one step.
TAGS = (
    (r"train/d/loss", "Losses/D"),
    (r"train/g/loss", "Losses/G"),
    (r"epoch/d/loss", "Losses per epoch/D"),
    (r"epoch/g/loss", "Losses per epoch/G"),
    (r"train/d/real_(prob|logit)", r"Outputs of D/real \1"),
    (r"train/d/fake_(prob|logit)", r"Outputs of D/fake \1"),
    (r"epoch/d/advantage", "Outputs of D/advantage per epoch"),
    (r"metrics/(.*)", r"Quality/\1"),
    (r"train/images_per_s", "Speed/images per s"),
    (r"train/(d|g)/(.*)", r"Terms of the losses/\1 \2"),
    (r"epoch/.*", ""),  # the means of rows that are shown
)
CHARTS = {
    "GAN": {
        "losses": ["Multiline", ["^Losses/"]],
        "D on real and fake images": ["Multiline", ["^Outputs of D/(real|fake)"]],
        "losses per epoch": ["Multiline", ["^Losses per epoch/"]],
        "val_fid": ["Multiline", ["^Quality/.*val_fid"]],
    }
}


def tag_of(name: str) -> str:
    """The name of a scalar in TensorBoard; empty if TensorBoard does not show it."""
    for pattern, tag in TAGS:
        if match := re.fullmatch(pattern, name):
            return match.expand(tag)
    return name


class TensorBoard(TensorBoardLogger):
    """TensorBoard with images, progress.gif, and the curves of D and G in one chart."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        super().__init__(folder.parent, name="", version=folder.name, default_hp_metric=False)
        self.path = folder
        self.has_layout = False
        self.settings: dict[str, str | int | float] = {}
        self.final: Row = {}

    @rank_zero_only
    def truncate_after(self, step: int) -> dict[int, Row]:
        """Hides scalars after a step. Returns no rows."""
        self.experiment.close()
        self._experiment = None
        self._kwargs["purge_step"] = step + 1  # for the next writer
        return {}

    @rank_zero_only
    def flush(self) -> None:
        with collect_write_errors(self.path):
            self.experiment.flush()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        single = {n: value for n, value in metrics.items() if n.startswith(("final/", "best/"))}
        self.final |= {n: value for n, value in single.items() if n.startswith("final/")}
        with collect_write_errors(self.path):
            if not self.has_layout:
                self.experiment.add_custom_scalars(CHARTS)
                self.has_layout = True
            named = {tag_of(n): value for n, value in metrics.items() if n not in single}
            rest = {tag: value for tag, value in named.items() if tag}
            try:
                super().log_metrics(rest, step)
            except ValueError as error:  # Lightning raises it for every error of the writer
                raise error.__cause__ or error from None

    @rank_zero_only
    def log_image(self, key: str, images: list[Image.Image], step: int | None = None) -> None:
        from torchvision.transforms.functional import pil_to_tensor

        with collect_write_errors(self.path):
            for image in images:
                self.experiment.add_image(key, pil_to_tensor(image), step)

    @rank_zero_only
    def log_animation(self, key: str, path: Path, step: int | None = None) -> None:
        """Writes the bytes of a GIF as an image. This needs no video encoder."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(path) as gif:
            width, height = gif.size
        image = Summary.Image(
            height=height, width=width, colorspace=1, encoded_image_string=path.read_bytes()
        )
        summary = Summary(value=[Summary.Value(tag=key, image=image)])
        with collect_write_errors(self.path):
            self.experiment._get_file_writer().add_summary(summary, step)

    @rank_zero_only
    def log_final_hparams(self, settings: dict[str, str | int | float], step: int) -> None:
        """Keeps the settings. They become a row of the HPARAMS tab with the final metrics."""
        self.settings, self.step = settings, step

    @rank_zero_only
    def finalize(self, status: str) -> None:
        settings, self.settings = self.settings, {}
        with collect_write_errors(self.path):
            if settings:
                # The name is a folder. "." is this one; other names add a run.
                where = {"run_name": ".", "global_step": self.step}
                self.experiment.add_hparams(settings, fid_first(self.final), **where)
            super().finalize(status)


def fid_first(final: Row) -> Row:
    """The final metrics under their names in TensorBoard, FID first; losses if there are none.

    Values of real images are left out.
    """
    values = {key.removeprefix("final/"): value for key, value in final.items()}
    references = ("fid_floor", "val_fid_floor", "real_.*", "nn_accuracy_untrained", "l1_input")
    metrics = {
        key: value
        for key, value in values.items()
        if not key.endswith("/loss") and not any(is_metric(key, name) for name in references)
    }
    keys = sorted(metrics or values, key=lambda key: not is_metric(key.removesuffix("_ema"), "fid"))
    return {f"Result/{key}": values[key] for key in keys}


def hparams_of(settings: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The settings of a run, and the classes of its parts, for TensorBoard's HPARAMS tab."""
    names = ("lr", "batch_size", "epochs", "latent_dim", "ema", "seed", "name")
    plain = {name: settings[name] for name in names if settings.get(name) is not None}
    parts = {"model": settings["model"]["generator"], "objective": settings["objective"]}
    parts |= {"family": settings["family"], "discriminator": settings["family"]["discriminator"]}
    parts |= {"optimizer": settings["optimizer"]["d"]}
    targets = {name: part["_target_"].removeprefix("ganmnist.") for name, part in parts.items()}
    lists = {name: " ".join(settings[name] or ()) for name in ("penalty", "stabilizer", "schedule")}
    return plain | targets | lists
