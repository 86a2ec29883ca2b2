"""Where scalars and pictures go besides the run's own files.

A logger of Lightning's works as it is: it gets the mean of every window of batches. One that has
`log_rows` gets every batch, one that has `log_image` the pictures (the signature is that of
Lightning's W&B logger), one that has `log_animation` the GIF, and one that has `log_settings` the
settings of a run that has come to its end.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ganmnist.files import replaced, writing

log = logging.getLogger(__name__)

Row = dict[str, float]


class MetricsCSV(Logger):
    """metrics.csv: every logged scalar, one row a step, rows appended as they come.

    Lightning's own CSVLogger deletes the file of a run that it finds in its folder; this one
    continues it.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.columns: list[str] = []
        self.waiting: dict[int, Row] = {}  # the newest row: more may come for its step
        self.done = 0  # bytes of the file up to it
        if self.path.exists():
            with self.path.open(newline="", errors="replace") as file:
                columns = next(csv.reader(file), [])
            if "step" in columns:  # not where a machine has lost power, and the file its content
                self.columns, self.done = columns, self.path.stat().st_size

    @rank_zero_only
    def rewind(self, step: int) -> dict[int, Row]:
        """Forgets what came after a step, and half a row; returns the rows there are, by step."""
        rows: dict[int, Row] = {}
        for fields in self.read():
            n = fields.pop("step", "")
            if len(fields) == len(self.columns) - 1 and n.isdigit() and int(n) <= step:
                rows[int(n)] = {name: number(text) for name, text in fields.items() if text}
        if step and not rows:
            log.warning("%s has lost its rows: this run's figures begin here.", self.path)
        self.waiting = {n: row for n, row in rows.items() if n == step}
        if self.columns:
            self.rewrite(self.columns, {n: row for n, row in rows.items() if n < step})
        return rows

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict | Namespace, *args: Any, **kwargs: Any) -> None:
        """Settings are in .hydra/ already."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.log_rows({step or 0: dict(metrics)})

    @rank_zero_only
    def log_rows(self, rows: Mapping[int, Row]) -> None:
        """Takes rows keyed by step; scalars of one step share a row, also if they come apart."""
        for step, row in rows.items():
            self.waiting.setdefault(step, {}).update(row)
        newest = max(self.waiting, default=0)
        done = {n: row for n, row in self.waiting.items() if n < newest}
        with writing(self.path):  # else they wait until they can be
            self.done = self.append(done)
            self.waiting = {n: row for n, row in self.waiting.items() if n not in done}

    @rank_zero_only
    def flush(self) -> None:
        """Writes the newest row too, which is written again once there is more of it."""
        with writing(self.path):
            self.append(self.waiting)
            if self.path.exists():
                with self.path.open("rb") as file:
                    os.fsync(file.fileno())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()

    def append(self, rows: Mapping[int, Row]) -> int:
        """Writes rows that wait after those that are done; says where they end.

        In one go, so that whoever is killed meanwhile leaves the newest row as it was or as it is.
        """
        if not rows:
            return self.done
        new = {name for row in self.waiting.values() for name in row} - set(self.columns)
        if new or not self.path.exists():
            old = self.read()
            columns = [*(self.columns or ["step"]), *sorted(new)]
            self.rewrite(columns, {int(fields.pop("step")): fields for fields in old})
            return self.done + len(as_text(rows, columns))
        text = as_text(rows, self.columns)
        with self.path.open("r+b") as file:
            file.seek(self.done)
            file.write(text)
            file.truncate()
        return self.done + len(text)

    def read(self) -> list[dict[str, str]]:
        """The rows that are done."""
        if not self.columns:
            return []
        if not self.path.exists():
            log.warning("%s was deleted, so its rows until now are lost.", self.path)
            return []
        text = self.path.read_bytes()[: self.done].decode(errors="replace")
        _, *rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))  # a row may be cut
        return [dict(zip(self.columns, fields, strict=False)) for fields in rows]

    def rewrite(self, columns: list[str], rows: Mapping[int, Mapping[str, Any]]) -> None:
        """Makes a file of these columns and rows that are done, and of those that wait."""
        content = ",".join(columns).encode() + b"\r\n" + as_text(rows, columns)
        with replaced(self.path, durable=True) as part:
            part.write_bytes(content + as_text(self.waiting, columns))
        self.columns, self.done = columns, len(content)


def as_text(rows: Mapping[int, Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Rows by step as lines of the file."""
    lines = io.StringIO(newline="")
    csv.DictWriter(lines, columns).writerows({"step": n, **rows[n]} for n in rows)
    return lines.getvalue().encode()


def number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


CHARTS = {
    "GAN": {
        "losses": ["Multiline", ["^train/d/loss$", "^train/g/loss$"]],
        "D(x) and D(G(z))": [
            "Multiline",
            ["^train/d/real_(prob|logit)$", "^train/d/fake_(prob|logit)$"],
        ],
        "losses per epoch": ["Multiline", ["^epoch/d/loss$", "^epoch/g/loss$"]],
        "val_fid": ["Multiline", ["^metrics/.*val_fid"]],
    }
}


class TensorBoard(TensorBoardLogger):
    """TensorBoard with pictures, the GIF, and both players' curves in one chart."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        super().__init__(folder.parent, name="", version=folder.name, default_hp_metric=False)
        self.path = folder
        self.has_layout = False
        self.settings: dict[str, str | int | float] = {}
        self.final: Row = {}

    @rank_zero_only
    def rewind(self, step: int) -> dict[int, Row]:
        """Hides what was logged after a step; it has no rows to give back."""
        self.experiment.close()
        self._experiment = None
        self._kwargs["purge_step"] = step + 1  # of the next writer
        return {}

    @rank_zero_only
    def flush(self) -> None:
        with writing(self.path):
            self.experiment.flush()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        final = {name: value for name, value in metrics.items() if name.startswith("final/")}
        self.final |= final  # come with the settings, in `finalize`
        with writing(self.path):
            if not self.has_layout:
                self.experiment.add_custom_scalars(CHARTS)
                self.has_layout = True
            rest = {name: metrics[name] for name in metrics if name not in final}
            try:
                super().log_metrics(rest, step)
            except ValueError as error:  # Lightning's, whatever the writer has met
                raise error.__cause__ or error from None

    @rank_zero_only
    def log_image(self, key: str, images: list[Image.Image], step: int | None = None) -> None:
        from torchvision.transforms.functional import pil_to_tensor

        with writing(self.path):
            for image in images:
                self.experiment.add_image(key, pil_to_tensor(image), step)

    @rank_zero_only
    def log_animation(self, key: str, path: Path, step: int | None = None) -> None:
        """Shows a GIF by its bytes, which needs no video encoder."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(path) as gif:
            width, height = gif.size
        picture = Summary.Image(
            height=height, width=width, colorspace=1, encoded_image_string=path.read_bytes()
        )
        summary = Summary(value=[Summary.Value(tag=key, image=picture)])
        with writing(self.path):
            self.experiment._get_file_writer().add_summary(summary, step)

    @rank_zero_only
    def log_settings(self, settings: dict[str, str | int | float], step: int) -> None:
        """Makes the run a row of the HPARAMS tab, next to all its scalars named `final/...`."""
        self.settings, self.step = settings, step

    @rank_zero_only
    def finalize(self, status: str) -> None:
        settings, self.settings = self.settings, {}
        with writing(self.path):
            if settings:
                # The run's name is a folder; "." is this one, where others would open their own.
                where = {"run_name": ".", "global_step": self.step}
                self.experiment.add_hparams(settings, self.final, **where)
            super().finalize(status)
