"""Checks of the settings of a command, before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from ganmnist.runs.hardware import check_request
from ganmnist.runs.schema import SETTINGS, describe_type
from ganmnist.utils.errors import UserError


def check_ranges(config: DictConfig, command: str) -> None:
    """Raises UserError for a setting outside its range."""
    for name, option in SETTINGS[command].items():
        value = config[name]
        data = option.metadata
        if value is None:
            continue
        if isinstance(value, str):
            fits = value in (data["choices"] or (value,))
        else:
            numbers = value if isinstance(value, Sequence) else [value]
            fits = all(data["minimum"] <= x < data["below"] and x > data["above"] for x in numbers)
        if not fits:
            takes = describe_type(name, command)
            raise UserError(f"{name}={value} is out of range: {name} takes {takes}.")


def require_one(config: DictConfig, *names: str) -> str:
    """The value of the only one of these settings that is given.

    Raises:
        UserError: none is given, or several.
    """
    given = [name for name in names if config[name] is not None]
    if len(given) != 1:
        problem = f"{' and '.join(given)} exclude each other" if given else "none is given"
        raise UserError(f"Choose one of {', '.join(f'{name}=...' for name in names)}: {problem}.")
    return str(config[given[0]])


def check_training(config: DictConfig) -> None:
    """Raises UserError for settings that are invalid on every machine."""
    check_ranges(config, "train")
    trainer = config.trainer
    max_epochs = trainer.get("max_epochs", config.epochs)
    if max_epochs != config.epochs:
        raise UserError(f"trainer.max_epochs={max_epochs}: use epochs={max_epochs} instead.")
    if trainer.get("precision") == "16-mixed" and config.gan.get("clip") is not None:
        raise UserError(
            f"gan.clip={config.gan.clip}: trainer.precision=16-mixed scales the gradients. Use "
            "trainer.precision=bf16-mixed, or gan.clip=null."
        )
    if "gpus" in trainer:  # a user's own trainer may have other settings
        check_request(trainer.gpus, trainer.accelerator, trainer.devices, trainer.precision)
