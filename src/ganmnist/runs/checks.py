"""Checks of the settings of a command, before torch is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from ganmnist.runs.arguments import has_type
from ganmnist.runs.hardware import check_request
from ganmnist.runs.schema import SETTINGS, describe_type
from ganmnist.utils.errors import UserError

Settings = DictConfig | Mapping[str, Any]  # a configuration, or plain settings


def check_ranges(settings: Settings, command: str) -> None:
    """Raises UserError for a setting outside its range."""
    for name, option in SETTINGS[command].items():
        value = settings[name]
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


def check_types(settings: Mapping[str, Any]) -> None:
    """Raises UserError for a public setting of another type, in plain settings of a file."""
    for name, option in SETTINGS["train"].items():
        kinds = str(option.type).split(" | ")
        if not any(has_type(settings[name], kind) for kind in kinds):
            raise UserError(
                f"{name}={settings[name]}: {name} takes {describe_type(name, 'train')}."
            )


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


def check_training(settings: Settings) -> None:
    """Raises UserError for settings that are invalid on every machine."""
    check_ranges(settings, "train")
    if not re.fullmatch(r"[^/\\]*[^/\\.][^/\\]*", settings["name"]):
        raise UserError(f"name={settings['name']}: this is the name of one folder. Use letters.")
    trainer, clip = settings["trainer"], settings["gan"].get("clip")
    max_epochs = trainer.get("max_epochs", settings["epochs"])
    if max_epochs != settings["epochs"]:
        raise UserError(f"trainer.max_epochs={max_epochs}: use epochs={max_epochs} instead.")
    if trainer.get("precision") == "16-mixed" and clip is not None:
        raise UserError(
            f"gan.clip={clip}: trainer.precision=16-mixed scales the gradients. Use "
            "trainer.precision=bf16-mixed, or gan.clip=null."
        )
    if "gpus" in trainer:  # a user's own trainer may have other settings
        names = ("gpus", "accelerator", "devices", "precision")
        check_request(*(trainer[name] for name in names))
