"""A run: builds its parts, trains, and writes its summary and report.

torch and Lightning are imported inside the functions: errors of settings appear within a second.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganmnist.runs import processes, resume
from ganmnist.runs.build import as_user_errors, build
from ganmnist.runs.checks import check_training
from ganmnist.runs.folders import conf_dir, lock_dir, remove_refused, require_no_run
from ganmnist.runs.resume import Checkpoint
from ganmnist.runs.summary import RunSummary, results
from ganmnist.utils.errors import UserError, is_out_of_memory
from ganmnist.utils.files import WriteErrors, tolerate_write_errors, write_json, write_yaml

if TYPE_CHECKING:
    import lightning as L

    from ganmnist.data import DataModule
    from ganmnist.gan import GAN

log = logging.getLogger(__name__)


def train(
    settings: dict[str, Any],
    check: Callable[[], None] | None = None,
    checkpoint: Checkpoint | None = None,
    allowed: Sequence[str] | None = None,
    in_sweep: bool = False,
) -> float:
    """Trains, and returns the scalar that `optimized_metric` names.

    summary.json, with the status, is written after an interruption or a failure, too; the report
    also, unless Ctrl-C came twice. A run that is refused before the training leaves no folder; a
    refused job of a sweep has the error in its summary.json.

    Args:
        settings: the plain settings of conf/train.yaml.
        check: further checks of the settings. It raises UserError.
        checkpoint: the checkpoint that continues; None: a new run.
        allowed: the modules that the settings may name, if they are read from a file; None: all.
        in_sweep: the run is a job of a sweep.

    Raises:
        UserError: a setting is invalid, or a file could not be written.
        KeyboardInterrupt: Ctrl-C, after everything has been written.
    """
    folder = Path(settings["folder"])
    processes.announce_loading(folder)
    with (
        lock_dir(folder) if processes.is_rank_zero() else nullcontext(),
        tolerate_write_errors() as write_errors,
    ):
        if not checkpoint and processes.is_rank_zero():
            require_no_run(folder, *resume.RUN_FILES)
        run = Run(settings, checkpoint, allowed, in_sweep, write_errors)
        value = run.train(check or (lambda: None))
    check_written(write_errors, folder)  # the summary and the report, too
    return value


class Run:
    """A run in its locked folder: it builds, trains, and writes the results.

    Args:
        settings, checkpoint, allowed, in_sweep: as for `train`.
        write_errors: collects the files that are missing.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        checkpoint: Checkpoint | None,
        allowed: Sequence[str] | None,
        in_sweep: bool,
        write_errors: WriteErrors,
    ) -> None:
        self.settings = settings
        self.checkpoint = checkpoint
        self.allowed = allowed
        self.in_sweep = in_sweep
        self.write_errors = write_errors
        self.folder = Path(settings["folder"])
        self.summary = RunSummary(settings)
        self.may_write = checkpoint is None  # a refused resume leaves summary.json unchanged
        self.trained = False

    def train(self, check: Callable[[], None]) -> float:
        """`train` after the folder is locked."""
        try:
            with self.summary.record_outcome():
                check_training(self.settings)
                check()
                self.build_and_fit()
        except UserError:
            refused = not (self.trained or self.checkpoint or self.in_sweep)
            if refused and processes.is_rank_zero():
                self.may_write = False
                remove_refused(self.folder, self.settings["name"])
            raise
        finally:
            self.finish()
        return math.nan if self.summary.value is None else self.summary.value

    def build_and_fit(self) -> None:
        with as_user_errors():
            trainer, gan, data = build(self.settings, self.checkpoint, self.allowed)
        stand_in = self.settings["stand_in_data"]
        self.summary.add(data=data.dataset.name, stand_in_data=stand_in)
        append_on_train_start(trainer, lambda: self.on_train_start(trainer, gan, data))
        path = self.checkpoint.path if self.checkpoint else None
        try:
            with processes.exit_together(
                trainer, self.folder, on_worker_lost=lambda error: self.write_summary(error=error)
            ):
                fit(trainer, gan, data, path)
        finally:
            self.summary.add(**results(trainer, gan, data))
        self.summary.add(status="incomplete")  # stays if `check_written` raises
        self.summary.add(missing={str(path): why for path, why in self.write_errors.items()})
        check_written(self.write_errors, self.folder)

    def on_train_start(self, trainer: L.Trainer, gan: GAN, data: DataModule) -> None:
        self.may_write = self.trained = True
        if processes.is_rank_zero():
            write_environment(self.folder, bool(self.checkpoint), trainer, data)
            write_yaml(self.folder / "config.yaml", dict(gan.hparams))

    def write_summary(self, **entries: Any) -> None:
        if processes.is_rank_zero() and self.may_write:
            self.summary.write(self.folder / "summary.json", **entries)

    def finish(self) -> None:
        """Writes the summary and the report, and prints the closing lines."""
        if self.settings["metrics"].get("table", True):  # not with metrics=none
            self.summary.warn_if_value_missing()
        self.write_summary()
        if processes.is_rank_zero() and self.may_write and self.settings["callbacks"]:
            if not self.summary.forced_exit:
                write_report(self.folder)
            if self.trained and not self.in_sweep:  # a sweep ends with a table
                print_closing(self.summary, self.folder)


def append_on_train_start(trainer: L.Trainer, function: Callable[[], None]) -> None:
    """Calls a function at the start of the training, after all callbacks, which may refuse it."""
    from lightning.pytorch.callbacks import LambdaCallback

    last_callback = LambdaCallback(on_train_start=lambda trainer, gan: function())
    trainer.callbacks.append(last_callback)  # type: ignore[attr-defined]


def write_environment(folder: Path, continues: bool, trainer: L.Trainer, data: DataModule) -> None:
    """Writes env.json. A run that continues keeps the names of its earlier CPUs."""
    from ganmnist.runs.environment import describe

    file = folder / "env.json"
    earlier = file if continues else None
    device, dataset = trainer.strategy.root_device, data.dataset
    content = describe(device, trainer.precision, dataset.name, dataset.checksum, earlier)
    write_json(file, content)


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
        saved = (folder / resume.LAST).is_file()
        fix = f"continue with resume={folder}" if saved else "start again: no checkpoint was saved"
        raise UserError(f"{path}{more} could not be written ({why}). Free some space and {fix}.")


def print_closing(summary: RunSummary, folder: Path) -> None:
    """Prints how the run ended."""
    from ganmnist.reporting.closing import closing_lines

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
