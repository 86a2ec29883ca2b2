"""Checks of the settings of a run, before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from ganmnist.runs.hardware import check_request
from ganmnist.runs.schema import OPTIONS, describe_type
from ganmnist.utils.errors import UserError


def check_ranges(config: DictConfig, command: str) -> None:
    """Raises UserError for a setting outside its range."""
    for name, option in OPTIONS[command].items():
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


def check(config: DictConfig) -> None:
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


PLAIN: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "None": (type(None),),
}


def check_arguments(node: Any, place: str = "", find: Callable[[str], Any] = get_object) -> None:
    """Compares settings with the constructors that receive them.

    On the command line, Hydra reads `no` as a string, which is true in Python.

    Args:
        node: plain settings.
        place: their path in the configuration.
        find: returns what a `_target_` names.

    Raises:
        UserError: a constructor has no such argument, or declares another type.
    """
    if isinstance(node, Mapping):
        target = node.get("_target_")
        declared = signature(find(target)).parameters if target else {}
        accepts_all = any(p.kind is Parameter.VAR_KEYWORD for p in declared.values())
        for name, value in node.items():
            at = f"{place}.{name}".lstrip(".")
            if name in declared:
                kinds = annotation(declared[name]).split(" | ")
                if set(kinds) <= PLAIN.keys() and not any(has_type(value, kind) for kind in kinds):
                    raise UserError(f"{at}={value}: this takes a {' or a '.join(kinds)}.")
            elif target and not accepts_all and name not in ("_target_", "_partial_"):
                raise UserError(
                    f"{at}={value}: {target} has no argument {name!r}. Available: "
                    f"{', '.join(declared)}."
                )
            check_arguments(value, at, find)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_arguments(value, f"{place}.{i}", find)


def annotation(parameter: Parameter) -> str:
    declared = parameter.annotation
    return declared if isinstance(declared, str) else getattr(declared, "__name__", str(declared))


def has_type(value: object, kind: str) -> bool:
    """Whether a value has a type of PLAIN. A bool is not a number."""
    return isinstance(value, PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
