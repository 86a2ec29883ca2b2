"""Where scalars and pictures go besides the run's own files.

A logger of Lightning's works as it is: it gets the mean of every window of batches. One that has
`log_rows` gets every batch, one that has `log_image` the pictures (the signature is that of
Lightning's W&B logger), one that has `log_animation` the GIF, and one that has `log_settings` the
settings of a run that has come to its end.
"""

from __future__ import annotations

import csv
import io
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ganmnist.paths import whole

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
        self.last: dict[int, Row] = {}  # the newest row waits: more may come for its step
        self.end: int | None = None  # where the newest row begins, if it is in the file
        if self.path.exists():
            with self.path.open(newline="") as file:
                self.columns = next(csv.reader(file), [])

    @rank_zero_only
    def rewind(self, step: int) -> dict[int, Row]:
        """Forgets what came after a step, and half a row; returns the rows there are, by step."""
        rows: dict[int, Row] = {}
        for fields in self.read():
            if len(fields) == len(self.columns) and int(fields["step"]) <= step:
                row = {name: number(text) for name, text in fields.items() if text}
                rows[int(row.pop("step"))] = row
        if self.columns:
            self.rewrite(rows)
        if step in rows:
            self.last = {step: rows[step]}
            self.end = self.path.stat().st_size - len(self.text(self.last))
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
            self.last.setdefault(step, {}).update(row)
        done = dict(self.last)
        if done:
            newest = max(done)
            self.last = {newest: done.pop(newest)}
        self.append(done)

    @rank_zero_only
    def flush(self) -> None:
        """Writes the newest row too, which is written again once there is more of it."""
        self.end = self.append(self.last)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()

    def append(self, rows: Mapping[int, Row]) -> int | None:
        """Writes rows after those that are done, and says where they begin.

        In one go, so that whoever is killed meanwhile leaves the newest row as it was or as it is.
        """
        if not rows:
            return self.end
        start, self.end = self.end, None
        new = {name for row in rows.values() for name in row} - set(self.columns)
        if new:
            done = [*self.read()]
            if start is not None:
                done.pop()  # the newest, which comes again
            self.columns = [*(self.columns or ["step"]), *sorted(new)]
            self.rewrite({int(fields.pop("step")): fields for fields in done} | dict(rows))
            return self.path.stat().st_size - len(self.text(rows))
        with self.path.open("r+b") as file:
            start = file.seek(0, os.SEEK_END) if start is None else file.seek(start)
            file.write(self.text(rows))
            file.truncate()
        return start

    def read(self) -> Iterator[dict[str, str]]:
        if self.columns:
            with self.path.open(newline="") as file:
                for fields in csv.reader(file):
                    if fields != self.columns:
                        yield dict(zip(self.columns, fields, strict=False))

    def rewrite(self, rows: Mapping[int, Mapping[str, Any]]) -> None:
        with whole(self.path) as part:
            part.write_bytes(",".join(self.columns).encode() + b"\r\n" + self.text(rows))

    def text(self, rows: Mapping[int, Mapping[str, Any]]) -> bytes:
        """Rows as lines of the file."""
        lines = io.StringIO(newline="")
        csv.DictWriter(lines, self.columns).writerows({"step": n, **rows[n]} for n in rows)
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
        self.experiment.flush()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self.has_layout:
            self.experiment.add_custom_scalars(CHARTS)
            self.has_layout = True
        final = {name: value for name, value in metrics.items() if name.startswith("final/")}
        self.final |= final  # come with the settings, in `finalize`
        super().log_metrics({name: metrics[name] for name in metrics if name not in final}, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Image.Image], step: int | None = None) -> None:
        from torchvision.transforms.functional import pil_to_tensor

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
        self.experiment._get_file_writer().add_summary(summary, step)

    @rank_zero_only
    def log_settings(self, settings: dict[str, str | int | float], step: int) -> None:
        """Makes the run a row of the HPARAMS tab, next to all its scalars named `final/...`."""
        self.settings, self.step = settings, step

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.settings:
            settings, self.settings = self.settings, {}
            # The run's name is a folder; "." is this one, where others would open one of their own.
            self.experiment.add_hparams(settings, self.final, run_name=".", global_step=self.step)
        super().finalize(status)
