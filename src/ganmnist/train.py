"""ganmnist train: builds a run, trains, and writes its summary.

torch and Lightning are imported inside the functions: help and errors appear within a second.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ganmnist.runs import command_line, processes, resume, sweep
from ganmnist.runs.build import as_user_errors, build
from ganmnist.runs.checks import check_training
from ganmnist.runs.folders import conf_dir, lock_dir, remove_refused, require_no_run
from ganmnist.runs.summary import RunSummary, results
from ganmnist.utils.errors import UserError, is_out_of_memory
from ganmnist.utils.files import (
    WriteErrors,
    record_write_error,
    tolerate_write_errors,
    write_json,
    write_yaml,
)

if TYPE_CHECKING:
    import lightning as L

    from ganmnist.data import DataModule
    from ganmnist.gan import GAN

log = logging.getLogger(__name__)

AUTO = "ganmnist.data.Auto"  # data=auto


def main(args: Sequence[str] | None = None) -> None:
    command_line.run(job, "train", args)


def job(config: DictConfig) -> float:
    """One run, or one job of a sweep. Other jobs continue after a job that fails."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.RUN:
        return train(config)
    overrides, choices = hydra.overrides.task, hydra.runtime.choices
    try:
        return train(config, partial(sweep.check_job, overrides=overrides, choices=choices))
    except KeyboardInterrupt:
        sweep.finish(hydra.sweep.dir)
        raise
    except UserError as error:
        log.error("%s", error)
    except Exception:
        log.exception("This job failed.")
    return math.nan


def train(config: DictConfig, validate: Callable[[DictConfig], None] = check_training) -> float:
    """Trains with a configuration and returns the scalar that `optimized_metric` names.

    summary.json, with the status, is written after an interruption or a failure, too; the report
    also, unless Ctrl-C came twice. A run that is refused before the training leaves no folder; a
    refused job of a sweep has the error in its summary.json.

    Args:
        config: the configuration of conf/train.yaml.
        validate: checks it, and raises UserError.

    Raises:
        UserError: a setting is invalid, or a file could not be written.
        KeyboardInterrupt: Ctrl-C, after everything has been written.
    """
    folder = Path(config.folder)
    if "torch" not in sys.modules and os.environ.get("LOCAL_RANK", "0") == "0":
        log.info("%s: loading PyTorch ...", folder)  # takes seconds
    with (
        lock_dir(folder) if processes.is_rank_zero() else nullcontext(),
        tolerate_write_errors() as write_errors,
    ):
        if not config.resume and processes.is_rank_zero():
            require_no_run(folder, *resume.RUN_FILES)
        value = train_locked(folder, config, validate, write_errors)
    check_written(write_errors, folder)  # the summary and the report, too
    return value


def train_locked(
    folder: Path,
    config: DictConfig,
    validate: Callable[[DictConfig], None],
    write_errors: WriteErrors,
) -> float:
    """`train` after the folder is locked. `write_errors` collects the files that are missing."""
    summary = RunSummary(config)
    may_write = not config.resume  # a refused resume leaves summary.json unchanged
    trained = False
    had_overrides = (folder / resume.STARTED).exists()

    def on_train_start(trainer: L.Trainer, gan: GAN, data: DataModule) -> None:
        nonlocal may_write, trained
        may_write = trained = True
        if processes.is_rank_zero():
            write_environment(folder, config, trainer, data)
            write_yaml(folder / "config.yaml", dict(gan.hparams))
            if config.resume:
                resume.save_overrides(folder, HydraConfig.get().overrides.task)

    def write_summary(**entries: Any) -> None:
        if processes.is_rank_zero() and may_write:
            summary.write(folder / "summary.json", **entries)

    try:
        with summary.record_outcome():
            validate(config)
            with as_user_errors():
                trainer, gan, data = build(config)
            found, asked = data.dataset.name, OmegaConf.select(config, "data._target_")
            summary.add(data=found, stand_in_data=asked == AUTO and found != "MNIST")
            append_on_train_start(trainer, lambda: on_train_start(trainer, gan, data))
            checkpoint = Path(config.resume) / resume.LAST if config.resume else None
            try:
                with processes.exit_together(
                    trainer, folder, on_worker_lost=lambda error: write_summary(error=error)
                ):
                    fit(trainer, gan, data, checkpoint)
            finally:
                summary.add(**results(trainer, gan, data))
            summary.add(status="incomplete")  # stays if `check_written` raises
            if had_overrides and processes.is_rank_zero():
                save_lost_overrides(folder)
            summary.add(missing={str(path): why for path, why in write_errors.items()})
            check_written(write_errors, folder)
    except UserError:
        if not (trained or config.resume or is_sweep_job()) and processes.is_rank_zero():
            may_write = False
            remove_refused(folder, config.name)
        raise
    finally:
        if config.metrics.get("table", True):  # not with metrics=none
            summary.warn_if_value_missing()
        write_summary()
        if processes.is_rank_zero() and may_write and config.callbacks:
            if not summary.forced_exit:
                write_report(folder)
            if trained:
                print_closing(summary, folder)
    return math.nan if summary.value is None else summary.value


def is_sweep_job() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def append_on_train_start(trainer: L.Trainer, function: Callable[[], None]) -> None:
    """Calls a function at the start of the training, after all callbacks, which may refuse it."""
    from lightning.pytorch.callbacks import LambdaCallback

    last_callback = LambdaCallback(on_train_start=lambda trainer, gan: function())
    trainer.callbacks.append(last_callback)  # type: ignore[attr-defined]


def write_environment(
    folder: Path, config: DictConfig, trainer: L.Trainer, data: DataModule
) -> None:
    """Writes env.json."""
    from ganmnist.runs.environment import describe

    file = folder / "env.json"
    earlier = file if config.resume else None
    device, dataset = trainer.strategy.root_device, data.dataset
    content = describe(device, trainer.precision, dataset.name, dataset.checksum, earlier)
    write_json(file, content)


def save_lost_overrides(folder: Path) -> None:
    """Saves the overrides for a resume if their file was deleted during the run."""
    file = folder / resume.STARTED
    if not file.exists():
        record_write_error(file, "it was deleted during the run")
        resume.save_overrides(folder, HydraConfig.get().overrides.task)


def fit(trainer: L.Trainer, gan: GAN, data: DataModule, checkpoint: Path | None) -> None:
    """Trains, from a checkpoint if there is one.

    Raises:
        KeyboardInterrupt: Ctrl-C, or a signal of a cluster's scheduler.
        UserError: out of memory.
    """
    try:
        trainer.fit(gan, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:  # of Lightning after Ctrl-C, and of `Interrupt`
        raise KeyboardInterrupt from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"batch_size={data.batch_size} does not fit into the memory of this device. Use "
            f"batch_size={max(data.batch_size // 2, 1)} with gan.accumulate=2 for the same "
            "number of images per step."
        ) from error


def check_written(write_errors: WriteErrors, folder: Path) -> None:
    """Raises UserError if files of a run are missing."""
    if write_errors:
        path, why = next(iter(write_errors.items()))
        more = f" and {len(write_errors) - 1} more files" if len(write_errors) > 1 else ""
        raise UserError(
            f"{path}{more} could not be written ({why}). Free some space and continue with "
            f"resume={folder}."
        )


def print_closing(summary: RunSummary, folder: Path) -> None:
    """Prints how the run ended, unless it is a job of a sweep, which ends with a table."""
    from ganmnist.reporting.closing import closing_lines

    if is_sweep_job():
        return
    example = f"{summary.entries['name']}_cured"
    has_remedy = (conf_dir() / "experiment" / f"{example}.yaml").is_file()
    remedy = f"ganmnist train experiment={example}" if has_remedy else ""
    for line in closing_lines(summary.content, folder, remedy):
        log.info("%s", line)


def write_report(folder: Path) -> None:
    """Writes report.html. An error is logged, because the run itself is complete."""
    try:
        from ganmnist.reporting import report

        report.write(folder)
    except Exception:
        log.exception("report.html could not be written.")


if __name__ == "__main__":
    main()
