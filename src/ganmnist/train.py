"""ganmnist train: builds a run, trains, and writes its summary.

torch and Lightning are imported inside the functions: help and errors appear within a second.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ganmnist.runs import command_line, processes, resume, sweep
from ganmnist.runs.build import build
from ganmnist.runs.config import OPTIONS, check
from ganmnist.runs.folders import lock_dir, require_no_run
from ganmnist.utils.errors import ForcedExit, UserError, is_out_of_memory
from ganmnist.utils.files import WriteErrors, record_write_error, tolerate_write_errors, write_json

if TYPE_CHECKING:
    import lightning as L

    from ganmnist.data import DataModule
    from ganmnist.gan import GAN

log = logging.getLogger(__name__)


def main(words: Sequence[str] | None = None) -> None:
    command_line.run(job, "train", words)


def job(config: DictConfig) -> float:
    """One run, or one job of a sweep. Other jobs continue after a job that fails."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.RUN:
        return train(config)
    words, choices = hydra.overrides.task, hydra.runtime.choices
    try:
        return train(config, partial(sweep.check_job, words=words, choices=choices))
    except KeyboardInterrupt:
        sweep.finish(hydra.sweep.dir)
        raise
    except UserError as error:
        log.error("%s", error)
    except Exception:
        log.exception("This job failed.")
    return math.nan


def train(config: DictConfig, validate: Callable[[DictConfig], None] = check) -> float:
    """Trains with a configuration and returns the scalar that `optimized_metric` names.

    All files of the run are written also after an interruption or a failure. summary.json has the
    status.

    Args:
        config: the configuration of conf/train.yaml.
        validate: checks it, and raises UserError.

    Raises:
        UserError: a setting is invalid, or a file could not be written.
        KeyboardInterrupt: Ctrl-C, after everything has been written.
    """
    folder = Path(config.folder)
    with (
        lock_dir(folder) if processes.is_rank_zero() else nullcontext(),
        tolerate_write_errors() as write_errors,
    ):
        if not config.resume and processes.is_rank_zero():
            require_no_run(folder, *resume.RUN_FILES)
        value = train_in(folder, config, validate, write_errors)
    check_written(write_errors, folder)
    return value


def train_in(
    folder: Path,
    config: DictConfig,
    validate: Callable[[DictConfig], None],
    write_errors: WriteErrors,
) -> float:
    """`train` after the folder is locked. `write_errors` collects the files that are missing."""
    from lightning.pytorch.callbacks import LambdaCallback

    from ganmnist.runs.environment import describe

    start_time = time.perf_counter()
    overrides = folder / resume.STARTED
    had_overrides = overrides.exists()
    settings = {name: config[name] for name in OPTIONS["train"] if name != "name"}
    summary: dict[str, Any] = {"name": config.name, "status": "failed", "error": ""}
    summary |= {"settings": settings}
    forced_exit = False
    started = not config.resume  # a refused resume leaves summary.json unchanged
    try:
        validate(config)
        with command_line.as_user_errors():
            trainer, gan, data = build(config)
        summary |= {"data": data.dataset.name}
        checkpoint = Path(config.resume) / resume.LAST if config.resume else None

        def on_train_start(*args: Any) -> None:
            nonlocal started
            started = True
            if processes.is_rank_zero():
                checksum, device = data.dataset.checksum, trainer.strategy.root_device
                file = folder / "env.json"
                earlier = file if config.resume else None
                write_json(file, describe(device, data.dataset.name, checksum, earlier))
                if config.resume:
                    resume.save_overrides(folder, HydraConfig.get().overrides.task)

        # The last callback: the others may still raise a UserError.
        last_callback = LambdaCallback(on_train_start=on_train_start)
        trainer.callbacks.append(last_callback)  # type: ignore[attr-defined]

        def on_worker_lost(error: str) -> None:
            if processes.is_rank_zero():
                write_json(folder / "summary.json", summary | {"error": error})

        try:
            with processes.exit_together(trainer, folder, on_worker_lost):
                fit(trainer, gan, data, checkpoint)
        finally:
            summary |= results(trainer, gan, data)
        summary["status"] = "incomplete"
        if had_overrides and processes.is_rank_zero() and not overrides.exists():
            record_write_error(overrides, "it was deleted during the run")
            resume.save_overrides(folder, HydraConfig.get().overrides.task)
        summary["missing"] = {str(path): why for path, why in write_errors.items()}
        check_written(write_errors, folder)
        summary["status"] = "finished"
    except KeyboardInterrupt as error:
        summary["status"] = "interrupted"
        forced_exit = isinstance(error.__cause__, ForcedExit)
        raise
    except UserError as error:
        summary["error"] = str(error)
        raise
    except Exception as error:
        summary["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        measures = bool(config.metrics.get("table", True))  # not with metrics=none
        value = find_scalar(
            summary.get("scalars", {}), config.optimized_metric, summary.get("data", "")
        )
        if value is None and measures and summary["status"] == "finished":
            available = ", ".join(summary["scalars"]) or "none"
            log.warning(
                "optimized_metric=%s: this run has no such scalar. Use one of: %s.",
                config.optimized_metric,
                available,
            )
        seconds = round(time.perf_counter() - start_time, 1)
        summary |= {"metric": config.optimized_metric, "value": value, "seconds": seconds}
        if processes.is_rank_zero() and started:
            write_json(folder / "summary.json", summary)
            if config.callbacks and not forced_exit:
                write_report(folder)
    return math.nan if value is None else value


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


def write_report(folder: Path) -> None:
    """Writes report.html. An error is logged, because the run itself is complete."""
    try:
        from ganmnist.reporting import report

        report.write(folder)
    except Exception:
        log.exception("report.html could not be written.")


def results(trainer: L.Trainer, gan: GAN, data: DataModule) -> dict[str, Any]:
    """Entries of summary.json: metrics, last scalars, epochs, batches and images."""
    from ganmnist.utils.hooks import Summary

    images = gan.state.batches_seen * data.batch_size * trainer.world_size
    scalars = {name: float(value) for name, value in trainer.callback_metrics.items()}
    metrics: dict[str, Any] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        metrics |= callback.summary if isinstance(callback, Summary) else {}
    for weights, values in metrics.get("final", {}).items():
        if weights != "epoch":
            suffix = "_ema" if weights == "ema" else ""
            scalars |= {f"final/{name}{suffix}": value for name, value in values.items()}
    return {
        "metrics": metrics,
        "epochs": trainer.current_epoch,
        "batches_seen": gan.state.batches_seen,
        "images_seen": images,
        "scalars": scalars,
    }


def find_scalar(scalars: dict[str, float], metric: str, data: str) -> float | None:
    """The scalar of this name, or the final or last value of the metric of this name."""
    from ganmnist.metrics.evaluator import key_of

    key = key_of(metric, data)
    names = (metric, f"final/{key}", f"metrics/{key}")
    return next((scalars[name] for name in names if name in scalars), None)


if __name__ == "__main__":
    main()
