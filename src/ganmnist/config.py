"""The public knobs: their types, their ranges, and what is said when a value fits neither.

This module and everything it imports stay free of torch, so that a typing mistake is answered
at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.utils import get_object
from omegaconf import MISSING, DictConfig

from ganmnist.devices import check_request
from ganmnist.errors import UserError


def knob(
    help: str,
    example: str,
    minimum: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> Any:
    """A required setting; its value comes from conf/train.yaml."""
    metadata: dict[str, Any] = {"help": help, "example": example}
    metadata |= {"minimum": minimum, "above": above, "below": below}
    return field(default=MISSING, metadata=metadata)


@dataclass
class Config:
    """What conf/train.yaml and every override of it are checked against."""

    task: str = knob("first part of the run's folder, logs/<task>/...", "my_idea")
    epochs: int = knob("passes over the training images", "20", minimum=1)
    lr: float = knob("learning rate of both players", "2e-4", above=0)
    batch_size: int = knob("images a batch, per process", "64", minimum=1)
    latent_dim: int = knob("size of the latent vector", "100", minimum=1)
    ema: float | None = knob(
        "decay of the averaged generator, or null for none", "0.999", above=0, below=1
    )
    seed: int = knob("of everything random", "0", minimum=0, below=2**32)
    every: int = knob("batches between printed lines and pictures", "200", minimum=1)
    log_every: int = knob("batches between rows sent to the loggers", "50", minimum=1)
    metric: str = knob("logged scalar that train() returns to a sweeper", "epoch/d/advantage")
    folder: Any = MISSING
    model: Any = MISSING
    objective: Any = MISSING
    optimizer: Any = MISSING
    data: Any = MISSING
    datamodule: Any = MISSING
    gan: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = None
    logger: Any = None


KNOBS = {f.name: f for f in dataclasses.fields(Config) if f.metadata}


def expected(name: str) -> str:
    """What a knob takes, in words: "a whole number of at least 1, such as epochs=20"."""
    knob = KNOBS[name]
    type_, _, optional = str(knob.type).partition(" | ")
    kind = {"int": "a whole number", "float": "a number", "str": "a text"}[type_]
    for bound, words in (("minimum", "of at least"), ("above", "above"), ("below", "below")):
        if math.isfinite(knob.metadata[bound]):
            kind += f" {words} {knob.metadata[bound]}"
    if optional:
        kind += ", or null"
    return f"{kind}, such as {name}={knob.metadata['example']}"


def check(config: DictConfig) -> None:
    """Raises UserError for a knob outside its range, and for devices that no machine has."""
    for name, knob in KNOBS.items():
        value = config[name]
        if isinstance(value, str) or value is None:
            continue
        data = knob.metadata
        if not (data["minimum"] <= value < data["below"] and value > data["above"]):
            raise UserError(f"{name}={value} is out of range: {name} takes {expected(name)}.")
    trainer = config.trainer
    if "gpus" in trainer:  # somebody's own may be told otherwise
        check_request(trainer.gpus, trainer.accelerator, trainer.devices, trainer.precision)


PLAIN: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "None": (type(None),),
}


def check_types(node: Any, place: str = "") -> None:
    """Raises UserError for a plain setting of another type than its constructor declares.

    YAML reads `no` as a text, which Python would take for true.
    """
    if isinstance(node, Mapping):
        declared = signature(get_object(node["_target_"])).parameters if "_target_" in node else {}
        for name, value in node.items():
            at = f"{place}.{name}".lstrip(".")
            if name in declared:
                kinds = annotation(declared[name]).split(" | ")
                if set(kinds) <= PLAIN.keys() and not any(is_a(value, kind) for kind in kinds):
                    raise UserError(f"{at}={value}: this takes a {' or a '.join(kinds)}.")
            check_types(value, at)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_types(value, f"{place}.{i}")


def annotation(parameter: Parameter) -> str:
    declared = parameter.annotation
    return declared if isinstance(declared, str) else getattr(declared, "__name__", str(declared))


def is_a(value: object, kind: str) -> bool:
    """Whether a value of YAML is one of a Python type; a bool is no number."""
    return isinstance(value, PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))


def register_schema() -> None:
    ConfigStore.instance().store(name="schema", node=Config)


def describe_knobs() -> str:
    """The knobs as lines of --help."""
    return "\n".join(f"  {name:<11} {KNOBS[name].metadata['help']}" for name in KNOBS)
