"""Runs that continue, and the jobs of a sweep."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from omegaconf import DictConfig

from ganmnist.runs import processes, resume, sweep
from ganmnist.runs.composition import configure_logging, setup
from ganmnist.runs.folders import lock_dir
from ganmnist.runs.sweep import Job
from ganmnist.runs.training import train, write_report
from ganmnist.runs.typed_settings import TypedSettings
from ganmnist.utils.errors import UserError
from ganmnist.utils.signals import STOPPED

log = logging.getLogger(__name__)


def continue_run(run: Path, typed: TypedSettings, in_sweep: bool = False) -> float:
    """Continues a run from its last checkpoint. A finished run without a report gets one.

    Raises:
        UserError: as `train`, or the folder has no run that may continue.
    """
    processes.announce_loading(run)
    from ganmnist.runs.loading import translate_load_errors

    checkpoint = resume.read(run)
    saved = checkpoint.content["hyper_parameters"]
    with translate_load_errors(checkpoint.path, checkpoint.content):
        settings = resume.continued_settings(saved, typed, run, checkpoint.path)
    done = checkpoint.content.get("epochs_seen") == settings["epochs"]
    if done and checkpoint.finished and not (run / "report.html").exists():
        log.info("The run is finished. Writing its report ...")
        write_report(run)
        return math.nan
    for name, old, new in resume.typed_changes(saved, settings, typed):
        log.info("%s=%s (was %s)", name, new, old)
    return train(settings, checkpoint=checkpoint, allowed=typed.allowed, in_sweep=in_sweep)


def run_sweep(config: DictConfig) -> int:
    """Composes the jobs of a new sweep and runs them. Returns how many did not finish.

    Raises:
        HydraException: a value of the sweep does not exist.
    """
    folder = Path(config.hydra.sweep.dir).absolute()
    configure_logging(folder / "sweep.log")
    with lock_dir(folder):
        return sweep.run_jobs(folder, sweep.plan(config), new_job)


def continue_sweep(folder: Path, words: Sequence[str]) -> int:
    """Continues a sweep. Returns how many jobs did not finish.

    Args:
        folder: the folder of the sweep, which may come from somebody else.
        words: the settings that are typed beside resume=....

    Raises:
        UserError: a file of a job is damaged.
    """
    configure_logging(folder / "sweep.log")
    with lock_dir(folder):
        return sweep.run_jobs(folder, sweep.read_jobs(folder), partial(continue_job, [*words]))


def new_job(job: Job, folder: Path) -> int:
    """Runs a job, in its own process. Returns an exit code."""
    setup()  # a spawned process has not
    folder.mkdir(exist_ok=True)
    configure_logging(folder / "train.log")
    return exit_code(lambda: train(job.settings, in_sweep=True))


def continue_job(words: Sequence[str], job: Job, folder: Path) -> int:
    """Continues a job, or starts it from the settings in its file. Returns an exit code."""
    setup()
    has_checkpoint = (folder / resume.LAST).is_file()
    if not has_checkpoint:
        move_away(folder)
    folder.mkdir(exist_ok=True)
    configure_logging(folder / "train.log")

    def start() -> float:
        typed = TypedSettings.parse(words, folder)
        if has_checkpoint:
            return continue_run(folder, typed, in_sweep=True)
        file = sweep.job_file(folder.parent, job.number)
        settings = resume.continued_settings(job.settings, typed, folder, file)
        return train(settings | {"resume": None}, allowed=typed.allowed, in_sweep=True)

    return exit_code(start)


def move_away(folder: Path) -> None:
    """Renames the folder of a job that ended without a checkpoint. It starts again."""
    if folder.exists():
        free = (folder.with_name(f"{folder.name}_stopped{n}") for n in count(1))
        folder.rename(next(path for path in free if not path.exists()))


def exit_code(run: Callable[[], float]) -> int:
    """0, 2 for a mistake of the user, 130 after Ctrl-C, 1 for a bug. Logs the error."""
    try:
        run()
    except KeyboardInterrupt:
        return STOPPED
    except UserError as error:
        log.error("%s", error)
        return 2
    except Exception:
        log.exception("This job failed.")
        return 1
    return 0
