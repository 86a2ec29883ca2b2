"""Sweeps: all jobs are composed and saved first, then run one after the other in own processes.

FOLDER/jobs/NNN.yaml has the plain settings of a job. `resume=FOLDER` reads these files: it skips
finished jobs, continues interrupted ones, and runs the others. sweep.csv has a row per job.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ganmnist.reporting.console import console
from ganmnist.runs.checks import check_training
from ganmnist.runs.child import prepare_to_fork, run_in_child
from ganmnist.runs.folders import JOBS
from ganmnist.runs.processes import announce_loading
from ganmnist.runs.resume import finished
from ganmnist.runs.unused import check_used
from ganmnist.utils.errors import UserError
from ganmnist.utils.files import atomic_write, read_json, read_yaml, write_yaml
from ganmnist.utils.signals import STOPPED, signal_name
from ganmnist.utils.values import is_plain

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """A job: its number, the name of its folder, its overrides, and its plain settings.

    error: why it cannot run; empty: it can.
    """

    number: int
    folder: str
    overrides: list[str]
    settings: dict[str, Any]
    error: str = ""


# A fresh run, or one that continues: gets the job and its folder, and returns an exit code.
RunJob = Callable[[Job, Path], int]


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
        prepare_to_fork()
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


def runs_here(config: DictConfig) -> bool:
    """Whether the sweep is Hydra's own, and not that of a plugin."""
    return all(
        str(config.hydra[part]._target_).rpartition(".")[2].startswith("Basic")
        for part in ("launcher", "sweeper")
    )


def plan(config: DictConfig) -> list[Job]:
    """Composes all jobs of a sweep, and writes their files.

    Raises:
        HydraException: a value of the sweep does not exist.
    """
    loader = GlobalHydra.instance().config_loader()
    parsed = OverridesParser.create(loader).parse_overrides(list(config.hydra.overrides.task))
    combinations = [*chain.from_iterable(BasicSweeper.split_arguments(parsed, None))]
    log.info("Composing %d jobs ...", len(combinations))
    jobs = [compose_job(config, number, words) for number, words in enumerate(combinations)]
    sweep = Path(config.hydra.sweep.dir).absolute()
    part = sweep / f".{JOBS}.part"  # the folder appears with all jobs or not at all
    for job in jobs:
        content = {name: value for name, value in job._asdict().items() if name != "number"}
        write_yaml(part / job_file(sweep, job.number).name, content)
    part.rename(sweep / JOBS)
    return jobs


def compose_job(config: DictConfig, number: int, overrides: list[str]) -> Job:
    """Composes one job as Hydra's launcher does.

    Raises:
        UserError: its folder is not inside of the sweep.
    """
    job = GlobalHydra.instance().config_loader().load_sweep_config(config, overrides)
    with open_dict(job), read_write(job.hydra.runtime):
        job.hydra.job.id, job.hydra.job.num = str(number), number
        HydraConfig.instance().set_config(job)
        sweep, folder = Path(job.hydra.sweep.dir).absolute(), str(job.hydra.sweep.subdir)
        check_folder(folder)
        job.hydra.runtime.output_dir = str(sweep / folder)
        HydraConfig.instance().set_config(job)
        hydra = job.pop("hydra")
    settings: Any = {}
    error = ""
    try:
        check_job(job, overrides, hydra.runtime.choices)
        settings = OmegaConf.to_container(job, resolve=True)
    except UserError as refused:
        error = str(refused)
    return Job(number, folder, overrides, settings, error)


def check_folder(name: str) -> None:
    """Raises UserError if a name is not that of a folder inside of the sweep."""
    is_inside = Path(name).name == name and name not in ("", "..", JOBS)
    if not is_inside or "\0" in name or len(os.fsencode(name)) > 255:
        raise UserError(
            f"hydra.sweep.subdir={name[:99]!r}: this is not the name of one folder inside of the "
            "sweep. Leave it out."
        )


def job_file(sweep: Path, number: int) -> Path:
    return sweep / JOBS / f"{number:03d}.yaml"


def read_jobs(sweep: Path) -> list[Job]:
    """The jobs of a sweep by number.

    Raises:
        UserError: a file is damaged.
    """
    if not (paths := sorted((sweep / JOBS).glob("*.yaml"))):
        raise UserError(f"{sweep / JOBS} has no jobs. Start a new sweep.")
    return [read_job(path) for path in paths]


def read_job(path: Path) -> Job:
    """One job. Its file may come from somebody else.

    Raises:
        UserError: the file is damaged.
    """
    try:
        content = read_yaml(path)
        job = Job(int(path.stem), *(content[name] for name in Job._fields[1:]))
        if not isinstance(job.settings, dict) or not isinstance(job.error, str):
            raise ValueError("its settings are wrong")
        check_folder(job.folder)
        if not is_plain(content):
            raise ValueError("it has other values than numbers and texts")
        return job._replace(overrides=[str(word) for word in job.overrides])
    except (OSError, ValueError, TypeError, KeyError, UserError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is not the file of a job ({reason}). Start a new sweep."
        ) from error


def run_jobs(sweep: Path, jobs: Sequence[Job], run: RunJob) -> int:
    """Runs the jobs that are not finished, and writes sweep.csv after each of them.

    A job that fails does not stop the others. Returns how many jobs did not finish.

    Raises:
        KeyboardInterrupt: Ctrl-C or another signal, after the table has been printed.
    """
    waiting = [job for job in jobs if not job.error and not finished(sweep / job.folder)]
    log.info("%s: %d of %d jobs to run.", sweep, len(waiting), len(jobs))
    announce_loading(sweep)
    prepare_to_fork()
    same = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    try:
        for i, job in enumerate(waiting, 1):
            write_table(sweep, jobs)
            own = " ".join(word for word in job.overrides if word not in same)
            log.info("Job %d of %d: %s", i, len(waiting), own)
            code = run_in_child(partial(run, job, sweep / job.folder))
            if code == STOPPED:
                raise KeyboardInterrupt
            if code < 0:
                log.error("Job %d died (%s).", job.number, signal_name(-code))
    finally:
        rows = write_table(sweep, jobs)
        print_table(sweep, rows)
    return sum(row["status"] != "finished" for row in rows)


def finish(folder: str | Path) -> int:
    """Writes and prints the table of a sweep by a plugin. Returns how many jobs did not finish."""
    names = [path.name for path in Path(folder).iterdir() if (path / OVERRIDES).is_file()]
    overrides = {name: read_yaml(Path(folder) / name / OVERRIDES) for name in names}
    numbered = sorted((job_number(name), name) for name in names)
    jobs = [Job(number, name, overrides[name], {}) for number, name in numbered]
    rows = write_table(Path(folder), jobs)
    print_table(Path(folder), rows)
    return sum(row["status"] != "finished" for row in rows)


OVERRIDES = ".hydra/overrides.yaml"


def job_number(name: str) -> int:
    number = name.partition("_")[0]
    return int(number) if number.isdecimal() else -1


def write_table(sweep: Path, jobs: Sequence[Job]) -> list[dict[str, object]]:
    """Writes sweep.csv. Returns its rows."""
    rows = [row_of(job, sweep / job.folder) for job in jobs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    encoding: Any = {"encoding": "utf-8", "errors": "replace"}
    with atomic_write(sweep / "sweep.csv") as part, part.open("w", newline="", **encoding) as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return rows


def row_of(job: Job, folder: Path) -> dict[str, object]:
    """A row of the table: the job's number, overrides, status and result."""
    row: dict[str, object] = {"job": job.number}
    row |= {key: value for key, _, value in (word.partition("=") for word in job.overrides)}
    if job.error:
        return row | {"status": "failed", "error": job.error}
    try:
        summary = read_json(folder / "summary.json")
        row |= {"status": summary["status"], str(summary["metric"]): summary["value"]}
        row |= {"seconds": summary["seconds"]}
        return row | ({"error": summary["error"]} if summary["error"] else {})
    except FileNotFoundError:
        return row | {"status": "died" if folder.exists() else "not started"}
    except (OSError, ValueError, KeyError, TypeError):
        return row | {"status": "damaged"}


def print_table(sweep: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Prints the rows. Overrides that are equal in all jobs are left out."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    results = columns.index("status")
    shown = [
        name
        for i, name in enumerate(columns)
        if name == "job" or i >= results or len({row.get(name) for row in rows}) > 1
        if name != "error"
    ]
    # A Text shows brackets, which rich would take for its markup.
    table = Table(*map(escape, shown), title=Text(f"{len(rows)} jobs in {sweep}"))
    for row in rows:
        table.add_row(*(Text(show(row.get(name))) for name in shown))
    console.print(table, soft_wrap=False)
    for row in rows:
        if "error" in row:
            console.print(f"job {row['job']}: {row['error']}", markup=False, highlight=False)


def show(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
