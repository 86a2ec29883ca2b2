"""python -m ganmnist.train: compose, seed, instantiate, fit, summarise.

Heavy imports wait inside the functions, so that --help and mistakes are answered at once.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ganmnist import cli, sweep
from ganmnist.config import check, check_types
from ganmnist.errors import UserError
from ganmnist.paths import whole

if TYPE_CHECKING:
    import lightning as L

    from ganmnist.data import DataModule
    from ganmnist.gan import GAN

log = logging.getLogger(__name__)


def main() -> None:
    cli.run(job, "train")


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
        UserError: something was asked for that cannot be had.
        KeyboardInterrupt: Ctrl-C, after everything has been written.
    """
    began = time.perf_counter()
    summary: dict[str, Any] = {"task": config.task, "status": "failed", "error": ""}
    try:
        admit(config)
        with refusals():
            trainer, gan, data = build(config)
        summary |= {"data": data.dataset.name}
        try:
            trainer.fit(gan, datamodule=data)
        except SystemExit:  # how Lightning leaves after Ctrl-C, once callbacks have tidied up
            raise KeyboardInterrupt from None
        finally:
            summary |= outcome(trainer, gan, data)
        summary["status"] = "finished"
    except KeyboardInterrupt:
        summary["status"] = "interrupted"
        raise
    except UserError as error:
        summary["error"] = str(error)
        raise
    except Exception as error:
        summary["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        value = summary.get("scalars", {}).get(config.metric)
        if value is None and summary["status"] == "finished":
            known = ", ".join(summary["scalars"]) or "none"
            log.warning("metric=%s was not logged by this run (%s).", config.metric, known)
        seconds = round(time.perf_counter() - began, 1)
        summary |= {"metric": config.metric, "value": value, "seconds": seconds}
        if is_rank_zero():
            write_json(Path(config.folder) / "summary.json", summary)
    return math.nan if value is None else value


@contextmanager
def refusals() -> Iterator[None]:
    """Makes a UserError of what constructors refuse; a bug keeps its trace."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError | ValueError | MisconfigurationException):
            raise UserError(" ".join(str(cause).split())) from error
        if isinstance(cause, TypeError) and re.search(r"__init__\(\) (got|missing)", str(cause)):
            raise UserError(" ".join(str(error).split())) from error
        raise


def build(config: DictConfig) -> tuple[L.Trainer, GAN, DataModule]:
    """The trainer, the model and the data of a run, checked against each other."""
    import lightning as L
    from lightning.pytorch.callbacks import ProgressBar

    from ganmnist.environment import describe

    quiet_lightning()
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)
    check_types(settings)
    L.seed_everything(config.seed, verbose=False)
    callbacks = [c for c in instantiate(config.callbacks or {}).values() if c is not None]
    trainer = instantiate(
        config.trainer,
        callbacks=callbacks,
        logger=list(instantiate(config.logger or {}).values()),
        default_root_dir=config.folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
    )
    if not is_rank_zero():
        logging.getLogger().setLevel(logging.ERROR)

    data = instantiate(config.datamodule)
    data.prepare_data()
    data.setup()
    gan = instantiate(config.gan)
    gan.save_hyperparameters(settings)
    check_shapes(gan, data)
    try:
        gan.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise UserError(f"The optimisers cannot be built: {error}.") from error

    device = trainer.strategy.root_device
    if is_rank_zero():
        environment = describe(device, data.dataset.name, data.dataset.checksum)
        write_json(Path(config.folder) / "env.json", environment)
    players = (("G", gan.generator), ("D", gan.discriminator))
    sizes = [f"{who} {sum(p.numel() for p in net.parameters()):,}" for who, net in players]
    log.info(
        "%s, %s training images; %s parameters; %s x %d; %s",
        *(data.dataset.name, f"{len(data.train.x):,}", " and ".join(sizes)),
        *(device.type, trainer.world_size, config.folder),
    )
    return trainer, gan, data


def check_shapes(gan: GAN, data: DataModule) -> None:
    """Raises UserError where the generator makes other images than the data are."""
    made = tuple(gan.sample(1).shape[1:])
    if made != data.shape:
        raise UserError(
            f"The generator makes images of shape {made}, but those of {data.dataset.name} have "
            f"{data.shape}: change model.generator, or datamodule.image_size and data.channels."
        )


def outcome(trainer: L.Trainer, gan: GAN, data: DataModule) -> dict[str, Any]:
    """What a run came to: its last scalars and how far it got."""
    images = gan.batches_seen * data.batch_size * trainer.world_size
    scalars = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {
        "epochs": trainer.current_epoch,
        "batches_seen": gan.batches_seen,
        "images_seen": images,
        "scalars": scalars,
    }


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


def write_json(path: Path, content: dict[str, Any]) -> None:
    with whole(path) as part:
        part.write_text(json.dumps(finite(content), indent=2) + "\n")


def finite(content: Any) -> Any:
    """The same with null for NaN and infinities, which JSON has no words for."""
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, list):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


if __name__ == "__main__":
    main()
