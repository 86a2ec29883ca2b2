"""A checkpoint that continues: its state is checked before anything is loaded.

A state that does not fit would end in a stack trace in the middle of the run, or in a crash of
PyTorch's optimizers, which do not compare the shapes of their own state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from packaging.version import Version
from torch import Tensor

from ganmnist.runs.instantiate import instantiate
from ganmnist.runs.loading import restore, translate_load_errors
from ganmnist.runs.resume import Checkpoint
from ganmnist.runs.typed_settings import OF_TRAINING, refuse_changes
from ganmnist.utils.errors import UserError

if TYPE_CHECKING:
    import lightning as L

    from ganmnist.data import DataModule
    from ganmnist.gan import GAN


def check_continues(
    checkpoint: Checkpoint,
    settings: Mapping[str, Any],
    trainer: L.Trainer,
    gan: GAN,
    data: DataModule,
) -> None:
    """Compares a checkpoint with the run that continues it, and restores the GAN.

    Raises:
        UserError: the training would change, its state does not fit, or it has all its epochs.
    """
    path, content = checkpoint.path, checkpoint.content
    with translate_load_errors(path, content):
        check_training_unchanged(content["hyper_parameters"], settings)
        restore(gan, content)
        check_position(gan, data.batches_per_epoch(trainer))
        check_microbatches(gan, data)
        check_optimizers(gan, content["optimizer_states"])
        check_callbacks(trainer, content)
    done = gan.state.epochs_seen
    # A run that was stopped during its last evaluation repeats the end of its last epoch.
    at_end = gan.state.batches_seen == gan.state.epoch_start
    if done >= settings["epochs"] + (at_end and not checkpoint.finished):
        raise UserError(
            f"{path} is already trained for {done} epochs. Train longer with epochs={2 * done}, or "
            f"measure it with ganmnist evaluate run={checkpoint.run} which=last."
        )


def check_training_unchanged(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises UserError if the training would change: the data, or the devices."""
    then, now = compared(saved), compared(settings)
    changed = [(name, then[name], now[name]) for name in then if then[name] != now[name]]
    root, root_now = saved["data"].get("root"), settings["data"]["root"]
    if saved["checksum"] != settings["checksum"] and root != root_now:
        raise UserError(
            f"data.root={root_now} has other data than the run had. If {root} is yours, add "
            f"data.root={root} to the command line."
        )
    refuse_changes(changed)


def compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What may differ after the typed settings have been applied, and must not."""
    trainer = settings["trainer"]
    gpus = trainer.get("gpus")
    names = {f"trainer.{name}": trainer.get(name) for name in OF_TRAINING}
    processes = gpus if isinstance(gpus, int) and gpus > 0 else trainer.get("devices")
    return {**names, "processes": processes, "the data's checksum": settings["checksum"]}


def check_position(gan: GAN, batches_per_epoch: int) -> None:
    """Raises ValueError if the counters do not fit the number of batches of an epoch."""
    state = gan.state
    into_epoch = state.batches_seen - state.epoch_start
    if state.epoch_start != state.epochs_seen * batches_per_epoch or into_epoch > batches_per_epoch:
        raise ValueError(
            f"batch {state.batches_seen} of epoch {state.epochs_seen + 1} with "
            f"{batches_per_epoch} batches per epoch"
        )


def check_microbatches(gan: GAN, data: DataModule) -> None:
    """Raises ValueError if the batches collected for an iteration are no batches of the data."""
    n = data.batch_size * (2 if data.second_batch else 1)
    for batch in gan.state.microbatches:
        x, y, z = batch
        if not (
            isinstance(x, Tensor)
            and isinstance(y, Tensor)
            and z is None
            and (x.dtype, tuple(x.shape)) == (torch.float32, (n, *data.shape))
            and (y.dtype, tuple(y.shape)) == (torch.int64, (n,))
            and 0 <= y.min() <= y.max() < data.n_classes
        ):
            raise ValueError("a batch collected for gan.accumulate has another shape")


def check_optimizers(gan: GAN, states: Any) -> None:
    """Compares the states of the optimizers with those after one step.

    Raises:
        ValueError: another number of optimizers, another name, shape or type.
    """
    optimizers = gan.configure_optimizers()
    if not isinstance(states, list) or len(states) != len(optimizers):
        raise ValueError("it does not have the states of both optimizers")
    for name, optimizer, state in zip("dg", optimizers, states, strict=True):
        expected = state_after_a_step(optimizer)
        place = f"optimizer {name}"
        groups, own_groups = expected["param_groups"], state["param_groups"]
        if [group["params"] for group in own_groups] != [group["params"] for group in groups]:
            raise ValueError(f"{place} has other parameters")
        check_alike(f"{place}, settings", own_groups, groups)
        scheduled = ("lr", "betas", "momentum") if gan.schedules else ()
        for one, other in zip(own_groups, groups, strict=True):
            for key, value in one.items():
                numbers = value if isinstance(value, list | tuple) else [value]
                limit = 1.0 if key in ("betas", "momentum") else 1e6
                fits = key in scheduled and all(0 <= number < limit for number in numbers)
                if value != other[key] and not fits:
                    raise ValueError(f"{place}, {key} is {value}")
        for index, own in state["state"].items():  # empty before the first step
            check_alike(f"{place}, parameter {index}", own, expected["state"][index])


def state_after_a_step(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of a copy of an optimizer after a step with gradients of zero."""
    copy = deepcopy(optimizer)
    for group in copy.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    copy.step()
    return copy.state_dict()


def check_alike(place: str, found: Any, expected: Any) -> None:
    """Raises ValueError if two trees differ in names, types, or in shapes of tensors."""
    if isinstance(expected, Tensor) and isinstance(found, Tensor):
        same = found.shape == expected.shape and found.dtype == expected.dtype
        # An expanded tensor has less memory than its shape says. Fused optimizers write past it.
        forms = (torch.contiguous_format, *([torch.channels_last] if found.ndim == 4 else []))
        whole = any(found.is_contiguous(memory_format=form) for form in forms)
        if not same or found.layout != torch.strided or found.device.type != "cpu" or not whole:
            raise ValueError(f"{place} has shape {tuple(found.shape)}, {found.dtype}")
        return
    if isinstance(expected, bool | str | None) and found != expected:
        raise ValueError(f"{place} is {found}")
    if type(found) is not type(expected) and not is_number(found, expected):
        raise ValueError(f"{place} is a {type(found).__name__}")
    for name, one, other in pairs(found, expected):
        check_alike(f"{place}, {name}", one, other)


def is_number(*values: Any) -> bool:
    return all(type(value) in (int, float) for value in values)


def pairs(found: Any, expected: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The names and values of two mappings or sequences.

    Raises:
        ValueError: they have other names, or another length.
    """
    if isinstance(expected, dict):
        if found.keys() != expected.keys():
            raise ValueError(f"other names than {', '.join(map(str, expected))}")
        yield from ((name, found[name], expected[name]) for name in expected)
    elif isinstance(expected, list | tuple):
        if len(found) != len(expected):
            raise ValueError(f"{len(found)} values instead of {len(expected)}")
        yield from ((i, *both) for i, both in enumerate(zip(found, expected, strict=True)))


def check_callbacks(trainer: L.Trainer, content: Mapping[str, Any]) -> None:
    """Loads the states of the callbacks once, before the training. Their errors propagate."""
    is_old = Version(content["pytorch-lightning_version"]) < Version("2")
    if is_old or not is_number(content["epoch"], content["global_step"]):
        raise ValueError("it has no counters of Lightning 2")
    if content["lr_schedulers"] != [] or "loops" in content:
        raise ValueError("it has the state of schedulers or loops of Lightning")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        state = content["callbacks"].get(callback.state_key)
        if state is not None:
            callback.load_state_dict(deepcopy(state))


def check_size(
    family: dict[str, Any], checkpoint: Checkpoint, allowed: Sequence[str] | None
) -> None:
    """Builds the networks without memory, and compares them with the weights.

    Settings of a file could ask for networks that fit no memory.

    Raises:
        UserError: other weights.
    """
    with translate_load_errors(checkpoint.path, checkpoint.content):
        try:
            with torch.device("meta"):
                gan = instantiate(family, allowed)
        except RuntimeError as error:
            if "meta" in str(error):  # a part reads its weights, as spectral norm does
                return
            raise
        check_weights(gan, checkpoint.content["state_dict"])


def check_weights(gan: GAN, weights: Any) -> None:
    """Raises ValueError if a GAN has weights of other names or shapes."""
    own = gan.state_dict()
    expected = {name: tuple(value.shape) for name, value in own.items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    for name in dict.fromkeys([*expected, *found]):
        if found.get(name) != expected.get(name):
            raise ValueError(f"{name} has {found.get(name)}, not {expected.get(name)}")
        if weights[name].dtype != own[name].dtype or weights[name].device.type != "cpu":
            raise ValueError(f"{name} has another type, {weights[name].dtype}")
