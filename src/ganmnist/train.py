"""python -m ganmnist.train: compose, seed, instantiate, fit, summarise.

Heavy imports wait inside the functions, so that --help and mistakes are answered at once.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ganmnist import cli, ranks, resume, sweep
from ganmnist.config import KNOBS, check, check_types, resolve_norm
from ganmnist.errors import Hurry, UserError, is_out_of_memory
from ganmnist.files import Missing, note_missing, spared, write_json
from ganmnist.paths import held, unused

if TYPE_CHECKING:
    import lightning as L

    from ganmnist.data import DataModule
    from ganmnist.gan import GAN

log = logging.getLogger(__name__)


def main(words: Sequence[str] | None = None) -> None:
    cli.run(job, "train", words)


def job(config: DictConfig) -> float:
    """One run, or one job of a sweep, which may fail without stopping the others."""
    if HydraConfig.get().mode == RunMode.RUN:
        return train(config)
    try:
        return train(config, sweep.check_job)
    except KeyboardInterrupt:
        sweep.finish(HydraConfig.get().sweep.dir)
        raise
    except UserError as error:
        log.error("%s", error)
    except Exception:
        log.exception("This job failed.")
    return math.nan


def train(config: DictConfig, admit: Callable[[DictConfig], None] = check) -> float:
    """Trains what `config` describes, once `admit` has let it pass.

    Returns the scalar that config.metric names.

    config.folder is complete also after an interruption or a failure; summary.json says which.

    Raises:
        UserError: something was asked for that cannot be had, or a file could not be written.
        KeyboardInterrupt: Ctrl-C, after everything has been written.
    """
    folder = Path(config.folder)
    with held(folder) if is_rank_zero() else nullcontext(), spared() as missing:
        if not config.resume and is_rank_zero():
            unused(folder, *resume.SIGNS)
        value = run(config, admit, missing)
    check_written(missing, folder)
    return value


def run(config: DictConfig, admit: Callable[[DictConfig], None], missing: Missing) -> float:
    """The same, in a folder that is ours."""
    from lightning.pytorch.callbacks import LambdaCallback

    from ganmnist.environment import describe

    began = time.perf_counter()
    folder = Path(config.folder)
    noted = folder / resume.FIRST
    was_noted = noted.exists()
    settings = {name: config[name] for name in KNOBS["train"] if name != "task"}
    summary: dict[str, Any] = {"task": config.task, "status": "failed", "error": ""}
    summary |= {"settings": settings}
    hurried = False
    begun = not config.resume  # what is refused leaves the run that was to go on as it is
    try:
        admit(config)
        with cli.refusals():
            trainer, gan, data = build(config)
        summary |= {"data": data.dataset.name}
        last = Path(config.resume) / resume.LAST if config.resume else None

        def begin(*args: Any) -> None:
            nonlocal begun
            begun = True
            if is_rank_zero():
                checksum, device = data.dataset.checksum, trainer.strategy.root_device
                file = folder / "env.json"
                earlier = file if config.resume else None
                write_json(file, describe(device, data.dataset.name, checksum, earlier))
                if config.resume:
                    resume.note(folder, HydraConfig.get().overrides.task)

        after_all = LambdaCallback(on_train_start=begin)  # that may refuse
        trainer.callbacks.append(after_all)  # type: ignore[attr-defined]

        def last_words(error: str) -> None:
            if is_rank_zero():
                write_json(folder / "summary.json", summary | {"error": error})

        try:
            with ranks.together(trainer, folder, last_words):
                fit(trainer, gan, data, last)
        finally:
            summary |= outcome(trainer, gan, data)
        summary["status"] = "incomplete"
        if was_noted and is_rank_zero() and not noted.exists():
            note_missing(noted, "it has vanished with what was beside it")
            resume.note(folder, HydraConfig.get().overrides.task)
        summary["missing"] = {str(path): why for path, why in missing.items()}
        check_written(missing, folder)
        summary["status"] = "finished"
    except KeyboardInterrupt as error:
        summary["status"] = "interrupted"
        hurried = isinstance(error.__cause__, Hurry)
        raise
    except UserError as error:
        summary["error"] = str(error)
        raise
    except Exception as error:
        summary["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        value = find_scalar(summary.get("scalars", {}), config.metric, summary.get("data", ""))
        if value is None and summary["status"] == "finished":
            known = ", ".join(summary["scalars"]) or "none"
            log.warning("metric=%s was not logged by this run (%s).", config.metric, known)
        seconds = round(time.perf_counter() - began, 1)
        summary |= {"metric": config.metric, "value": value, "seconds": seconds}
        if is_rank_zero() and begun:
            write_json(folder / "summary.json", summary)
            if config.callbacks and not hurried:
                write_report(folder)
    return math.nan if value is None else value


def fit(trainer: L.Trainer, gan: GAN, data: DataModule, last: Path | None) -> None:
    """Trains, from a checkpoint if there is one.

    Raises:
        KeyboardInterrupt: Ctrl-C, or a signal of a cluster's.
        UserError: out of memory.
    """
    try:
        trainer.fit(gan, datamodule=data, ckpt_path=last, weights_only=True)
    except SystemExit as error:  # how Lightning leaves after Ctrl-C, and `Interrupt`
        raise KeyboardInterrupt from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"batch_size={data.batch_size} does not fit into the memory of this device: try "
            f"batch_size={max(data.batch_size // 2, 1)}, and gan.accumulate=2 for updates of the "
            "same size."
        ) from error


def check_written(missing: Missing, folder: Path) -> None:
    """Raises UserError if files of a run are missing."""
    if missing:
        path, why = next(iter(missing.items()))
        count = f"{len(missing)} files, the first of them {path}," if len(missing) > 1 else path
        raise UserError(
            f"{count} could not be written ({why}). What is in {folder} is whole: make room, and "
            f"resume={folder} goes on from its last checkpoint."
        )


def write_report(folder: Path) -> None:
    """report.html; that it cannot be drawn is no reason to lose a run over."""
    try:
        from ganmnist import report

        report.write(folder)
    except Exception:
        log.exception("report.html could not be written.")


def build(config: DictConfig) -> tuple[L.Trainer, GAN, DataModule]:
    """The trainer, the model and the data of a run, checked against each other."""
    import lightning as L
    from lightning.pytorch.callbacks import ProgressBar

    from ganmnist.callbacks.checkpoint import WholeFiles

    quiet_lightning()
    settings: Any = OmegaConf.to_container(config, resolve=True)
    if config.resume:
        resume.check_targets(settings, settings["trust"])
        resume.check_places(settings, Path(config.resume))
    resolve_norm(config)
    settings = OmegaConf.to_container(config, resolve=True)
    check_types(settings)
    L.seed_everything(config.seed, verbose=False)
    callbacks = [c for c in instantiate(config.callbacks or {}).values() if c is not None]
    callbacks.sort(key=lambda callback: getattr(callback, "after", 0))
    trainer = instantiate(
        config.trainer,
        callbacks=callbacks,
        logger=list(instantiate(config.logger or {}).values()),
        default_root_dir=config.folder,
        plugins=[WholeFiles()],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
    )
    if trainer.world_size > 1:
        ranks.check_folder(HydraConfig.get().run.dir)
    if not is_rank_zero():
        logging.getLogger().setLevel(logging.ERROR)

    data = instantiate(config.datamodule)
    data.prepare_data()
    data.setup()
    gan = instantiate(config.gan)
    used = type(data.dataset)  # which data=auto leaves open
    settings["data"]["_target_"] = f"{used.__module__}.{used.__qualname__}"
    settings["checksum"] = data.dataset.checksum
    gan.save_hyperparameters(settings)
    if config.resume:
        resume.check(Path(config.resume) / resume.LAST, gan, settings)
    check_shapes(gan, data)
    try:
        gan.configure_optimizers()
    except (IndexError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"The optimisers cannot be built: {reason}; change optimizer.d or optimizer.g, whose "
            "betas are two numbers with a point, such as [0.0,0.99]."
        ) from error

    players = (("G", gan.generator), ("D", gan.discriminator))
    sizes = [f"{who} {sum(p.numel() for p in net.parameters()):,}" for who, net in players]
    log.info(
        "%s, %s training images; %s parameters; %s x %d; %s",
        *(data.dataset.name, f"{len(data.train.x):,}", " and ".join(sizes)),
        *(trainer.strategy.root_device.type, trainer.world_size, config.folder),
    )
    return trainer, gan, data


def check_shapes(gan: GAN, data: DataModule) -> None:
    """Raises UserError where the networks do not suit the data or each other."""
    check_labels(gan, data)
    try:
        made = tuple(gan.sample(1).shape[1:])
    except RuntimeError as error:
        raise UserError(
            f"The generator cannot take its latents: {' '.join(str(error).split())}; change "
            "model.generator or latent."
        ) from error
    if made != data.shape:
        raise UserError(
            f"The generator makes images of shape {made}, but those of {data.dataset.name} have "
            f"{data.shape}: change model.generator, or datamodule.image_size and data.channels."
        )
    if data.batch_size > 1024:  # which would take long, and is refused elsewhere if too large
        return
    try:
        gan.rehearse(data.batch_size)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"The discriminator cannot take {data.batch_size} images of shape {made}: "
            f"{' '.join(str(error).split())}; change model.discriminator or batch_size."
        ) from error


def check_labels(gan: GAN, data: DataModule) -> None:
    """Raises UserError where a GAN knows other classes than the data have."""
    for setting, classes in gan.classes.items():
        if classes != data.classes:
            raise UserError(
                f"{setting}={classes}, but {data.dataset.name} has {data.classes} classes: choose "
                f"{setting}={data.classes}."
            )


def outcome(trainer: L.Trainer, gan: GAN, data: DataModule) -> dict[str, Any]:
    """What a run came to: its last scalars and how far it got."""
    images = gan.batches_seen * data.batch_size * trainer.world_size
    scalars = {name: float(value) for name, value in trainer.callback_metrics.items()}
    metrics: dict[str, Any] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        metrics |= getattr(callback, "summary", {})
    for weights, figures in metrics.get("final", {}).items():
        if weights != "epoch":
            ending = "_ema" if weights == "ema" else ""
            scalars |= {f"final/{name}{ending}": value for name, value in figures.items()}
    return {
        "metrics": metrics,
        "epochs": trainer.current_epoch,
        "batches_seen": gan.batches_seen,
        "images_seen": images,
        "scalars": scalars,
    }


def find_scalar(scalars: dict[str, float], metric: str, data: str) -> float | None:
    """A scalar by its name, or by that of a metric, final before validated."""
    from ganmnist.metrics.evaluator import key_of

    key = key_of(metric, data)
    names = (metric, f"final/{key}", f"metrics/{key}")
    return next((scalars[name] for name in names if name in scalars), None)


def is_rank_zero() -> bool:
    from lightning.pytorch.utilities import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0


def quiet_lightning() -> None:
    """Leaves out what Lightning says at every start; its warnings about a run stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than")
    # Under DDP the scalars are rank 0's, on purpose: to gather them would make all ranks wait.
    warnings.filterwarnings("ignore", "It is recommended to use .*sync_dist")
    warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
    # The weights of a single channel lie in the same order by either stride.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")


if __name__ == "__main__":
    main()
