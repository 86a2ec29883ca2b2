"""Sweeps: one data set for all jobs, and a table of the jobs at the end."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from ganmnist.reporting.console import console
from ganmnist.runs.checks import check_training
from ganmnist.runs.unused import check_used
from ganmnist.utils.errors import UserError
from ganmnist.utils.files import atomic_write, read_yaml


def start(config: DictConfig) -> None:
    """Checks the common settings and resolves `data=auto` once, for all jobs.

    With a sweep over data sets, each job resolves its own.

    Raises:
        UserError: no job could run.
    """
    parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    swept = [override.key_or_group for override in parsed if override.is_sweep_override()]
    choices = config.hydra.runtime.choices
    # A job with another choice of a group may use other settings.
    overrides = [] if any(key in choices for key in swept) else config.hydra.overrides.task
    check_job(config, overrides, choices)
    if any(key.partition(".")[0] == "data" for key in swept):
        return
    if str(OmegaConf.select(config, "data._target_")) == "ganmnist.data.Auto":
        from ganmnist.data import Auto

        Auto(config.data.root, config.data.channels).resolve()  # kept in the environment


def check_job(config: DictConfig, overrides: Iterable[str], choices: Mapping[str, Any]) -> None:
    """Raises UserError for settings that are invalid, unused, or ask for several devices.

    With several devices, the processes on the other devices would start the sweep again.

    Args:
        config: the configuration of the job.
        overrides: its overrides.
        choices: the choice of every group.
    """
    check_training(config)
    check_used(config, overrides, choices)
    for name in ("gpus", "devices", "num_nodes"):
        value = config.trainer.get(name)
        if isinstance(value, int) and value > 1:
            raise UserError(
                f"trainer.{name}={value}: a job of a sweep has one device. Use trainer.{name}=1, "
                "or start one run without -m."
            )


def finish(folder: str | Path) -> int:
    """Writes sweep.csv and prints it as a table. Returns how many jobs did not finish."""
    rows = [read_job(job) for job in sorted(Path(folder).iterdir(), key=job_number) if job.is_dir()]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(Path(folder) / "sweep.csv") as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)

    # The printed table leaves out overrides that are equal in all jobs.
    results = columns.index("status")
    shown = [
        name
        for i, name in enumerate(columns)
        if name == "job" or i >= results or len({row.get(name) for row in rows}) > 1
        if name != "error"
    ]
    table = Table(*shown, title=f"{len(rows)} jobs in {folder}")
    for row in rows:
        table.add_row(*(show(row.get(name)) for name in shown))
    console.print(table, soft_wrap=False)
    for row in rows:
        if "error" in row:
            console.print(f"job {row['job']}: {row['error']}", markup=False, highlight=False)
    return sum(row["status"] != "finished" for row in rows)


def job_number(folder: Path) -> int:
    number = folder.name.partition("_")[0]
    return int(number) if number.isdigit() else -1


def read_job(folder: Path) -> dict[str, object]:
    """A row of the table: the job's number, overrides, status and result."""
    overrides = read_yaml(folder / ".hydra/overrides.yaml")
    row: dict[str, object] = {"job": job_number(folder)}
    row |= {key: value for key, _, value in (str(text).partition("=") for text in overrides)}
    try:
        summary = json.loads((folder / "summary.json").read_text())
    except FileNotFoundError:
        return row | {"status": "died"}
    row |= {"status": summary["status"], summary["metric"]: summary["value"]}
    row |= {"seconds": summary["seconds"]}
    if summary["error"]:
        row["error"] = summary["error"]
    return row


def show(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
