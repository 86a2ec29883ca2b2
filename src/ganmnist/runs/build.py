"""Builds the trainer, the GAN and the data of a run, and checks them against each other."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ganmnist.runs import processes
from ganmnist.runs.arguments import check_arguments
from ganmnist.runs.instantiate import find_target, instantiate
from ganmnist.runs.norm import resolve_norm
from ganmnist.runs.precision import resolve_precision
from ganmnist.utils.errors import UserError

if TYPE_CHECKING:
    import lightning as L

    from ganmnist.data import DataModule
    from ganmnist.gan import GAN
    from ganmnist.runs.resume import Checkpoint

log = logging.getLogger(__name__)

AUTO = "ganmnist.data.Auto"  # data=auto


def build(
    settings: dict[str, Any],
    checkpoint: Checkpoint | None = None,
    allowed: Sequence[str] | None = None,
) -> tuple[L.Trainer, GAN, DataModule]:
    """The trainer, the GAN and the data of a run, checked against each other.

    Args:
        settings: the plain settings of a run. Every `auto` is replaced by its value.
        checkpoint: the checkpoint that continues.
        allowed: the modules that the settings may name, if they are read from a file; None: all.

    Raises:
        UserError: a part refuses its settings, or the parts do not fit each other.
    """
    import lightning as L
    from lightning.pytorch.callbacks import Callback, ProgressBar
    from lightning.pytorch.loggers import Logger

    from ganmnist.callbacks.checkpoint import AtomicCheckpointIO
    from ganmnist.data import DataModule
    from ganmnist.gan import GAN
    from ganmnist.runs.checkpoints import check_continues, check_size
    from ganmnist.utils.hooks import Ordered

    quiet_lightning()
    find = partial(find_target, allowed=allowed)
    resolve_norm(settings, find)
    resolve_precision(settings["trainer"])
    trainer_settings = {k: v for k, v in settings["trainer"].items() if k != "_target_"}
    # Checked last: they repeat other nodes by interpolation, and an error names the original node,
    # such as optimizer.d.lr, not family.optimizers.d.lr.
    repeating = ("family", "datamodule", "callbacks")
    ordered = sorted(settings.items(), key=lambda item: item[0] in repeating)
    check_arguments(settings["trainer"], "trainer")
    check_arguments(dict(ordered) | {"trainer": trainer_settings}, find=find)
    L.seed_everything(settings["seed"], verbose=False)
    built = instantiate(settings["callbacks"] or {}, allowed)
    callbacks = [callback for callback in built.values() if callback is not None]
    loggers = [*instantiate(settings["logger"] or {}, allowed).values()]
    check_kinds("callbacks", callbacks, Callback)
    check_kinds("logger", loggers, Logger)
    callbacks.sort(key=lambda callback: callback.order if isinstance(callback, Ordered) else 0)
    trainer: L.Trainer = find_target(settings["trainer"]["_target_"])(
        **instantiate(trainer_settings, allowed),
        callbacks=callbacks,
        logger=loggers,
        default_root_dir=settings["folder"],
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
    )
    if trainer.world_size > 1:
        processes.check_folder(settings["folder"])
    if not processes.is_rank_zero():
        logging.getLogger().setLevel(logging.ERROR)

    data = instantiate(settings["datamodule"], allowed)
    check_kinds("datamodule", [data], DataModule)
    data.prepare_data()
    data.setup()
    data.check_size(trainer.world_size)
    if checkpoint:
        check_size(settings["family"], checkpoint, allowed)
    gan = instantiate(settings["family"], allowed)
    check_kinds("family", [gan], GAN)
    dataset = type(data.dataset)  # data=auto has chosen its data set by now
    is_auto = settings["data"]["_target_"] == AUTO
    settings.setdefault("stand_in_data", is_auto and data.dataset.name != "MNIST")
    settings["data"]["_target_"] = f"{dataset.__module__}.{dataset.__qualname__}"
    settings["checksum"] = data.dataset.checksum
    gan.save_hyperparameters(settings)
    if checkpoint:
        check_continues(checkpoint, settings, trainer, gan, data)
    check_shapes(gan, data)
    try:
        gan.configure_optimizers()  # a trial: Lightning's error would not name the setting
    except (IndexError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"optimizer: the optimizers cannot be built ({reason}). Change optimizer.d or "
            "optimizer.g. The betas of Adam are two numbers with a point, such as [0.0,0.99]."
        ) from error

    networks = (("G", gan.generator), ("D", gan.discriminator))
    sizes = [f"{name} {sum(p.numel() for p in net.parameters()):,}" for name, net in networks]
    log.info(
        "%s, %s training images; %s parameters; %s x %d; %s",
        *(data.dataset.name, f"{len(data.train.x):,}", " and ".join(sizes)),
        *(trainer.strategy.root_device.type, trainer.world_size, settings["folder"]),
    )
    return trainer, gan, data


def check_kinds(setting: str, parts: Sequence[object], kind: type) -> None:
    """Raises UserError if a part is of another class."""
    for part in parts:
        if not isinstance(part, kind):
            name = type(part).__name__
            raise UserError(f"{setting}: a {name} is not a {kind.__name__}. Correct its _target_.")


def check_shapes(gan: GAN, data: DataModule) -> None:
    """Raises UserError if the networks do not fit the data or each other."""
    check_labels(gan, data)
    try:
        shape = tuple(gan.sample(1).shape[1:])
    except RuntimeError as error:
        raise UserError(
            f"model.generator does not accept the latents ({' '.join(str(error).split())}). Change "
            "model.generator or latent."
        ) from error
    if shape != data.shape:
        raise UserError(
            f"model.generator returns images of shape {shape}, but those of {data.dataset.name} "
            f"have {data.shape}. Change model.generator, or data.image_size and data.channels."
        )
    if data.batch_size > 1024:  # slow; an error of the device's memory is reported later
        return
    try:
        dry_run(gan, data.batch_size)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"model.discriminator does not accept {data.batch_size} images of shape {shape} "
            f"({' '.join(str(error).split())}). Change model.discriminator or batch_size."
        ) from error


def dry_run(gan: GAN, n: int) -> None:
    """Runs D on its real and its fake inputs, both of n generated images. Its errors propagate."""
    from ganmnist.utils.batch import Batch
    from ganmnist.utils.modules import eval_no_grad

    z, y = gan.sampler.prior(n)
    batch = Batch(gan.sample(z, y), y)
    with eval_no_grad(gan):
        for inputs in (gan.real_inputs(batch, z), gan.fake_inputs(batch, z)):
            gan.discriminator(inputs)


def check_labels(gan: GAN, data: DataModule) -> None:
    """Raises UserError if the networks expect another number of classes than the data have."""
    for setting, n in gan.expected_classes.items():
        if n != data.n_classes:
            raise UserError(
                f"{setting}={n}: {data.dataset.name} has {data.n_classes} classes. Use "
                f"{setting}={data.n_classes}."
            )


def quiet_lightning() -> None:
    """Hides the lines that Lightning prints at every start. Warnings about the run stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than")
    # Under DDP the scalars are those of rank 0, because all ranks would wait for an average.
    warnings.filterwarnings("ignore", "It is recommended to use .*sync_dist")
    warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
    # Weights of one channel have the same memory layout with both strides.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")


@contextmanager
def as_user_errors() -> Iterator[None]:
    """Turns Lightning's errors about settings into UserErrors. Bugs pass."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error
