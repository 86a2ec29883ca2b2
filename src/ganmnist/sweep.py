"""A multirun: one data set for all its jobs, and one table of them at its end."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from ganmnist.config import check
from ganmnist.console import console
from ganmnist.errors import UserError
from ganmnist.files import whole


def start(config: DictConfig) -> None:
    """Decides what `data=auto` means before any job starts, so that all jobs see the same.

    Where the jobs differ in their data, each decides for itself.

    Raises:
        UserError: no job could run.
    """
    check_job(config)
    overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    swept = [o.key_or_group for o in overrides if o.is_sweep_override()]
    if any(key.partition(".")[0] == "data" for key in swept):
        return
    if str(OmegaConf.select(config, "data._target_")) == "ganmnist.data.Auto":
        from ganmnist.data import Auto

        Auto(config.data.root, config.data.channels).resolve()


def check_job(config: DictConfig) -> None:
    """Raises UserError for what no run can have, and for a job on several devices.

    The processes on the other devices would start the sweep as well.
    """
    check(config)
    for name in ("gpus", "devices", "num_nodes"):
        value = config.trainer.get(name)
        if isinstance(value, int) and value > 1:
            raise UserError(
                f"trainer.{name}={value}: a job of a sweep has one device; run it by itself, or "
                f"give each job a process of its own with a Hydra launcher."
            )


def finish(folder: str | Path) -> int:
    """Writes sweep.csv, prints it as a table, and says how many jobs did not finish."""
    rows = [read_job(job) for job in sorted(Path(folder).iterdir(), key=job_number) if job.is_dir()]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with whole(Path(folder) / "sweep.csv") as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)

    # Overrides that all jobs share are left to the file: they would crowd out those that differ.
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
    """A job's row: its number, its overrides, what became of it."""
    overrides = OmegaConf.load(folder / ".hydra" / "overrides.yaml")
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
