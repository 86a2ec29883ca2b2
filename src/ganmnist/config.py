"""The public knobs: their types, their ranges, and what is said when a value fits neither.

This module and everything it imports stay free of torch, so that a typing mistake is answered
at once.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig

from ganmnist.errors import UserError


def knob(help: str, example: str, minimum: float = -math.inf, above: float = -math.inf) -> Any:
    """A required setting; its value comes from conf/train.yaml."""
    metadata = {"help": help, "example": example, "minimum": minimum, "above": above}
    return field(default=MISSING, metadata=metadata)


@dataclass
class Config:
    """What conf/train.yaml and every override of it are checked against."""

    task: str = knob("first part of the run's folder, logs/<task>/...", "my_idea")
    folder: str = knob("the run's own folder; claimed by default", "logs/mine")
    epochs: int = knob("passes over the training images", "20", minimum=1)
    lr: float = knob("learning rate of both players", "2e-4", above=0)
    batch_size: int = knob("images a batch, per process", "64", minimum=1)
    latent_dim: int = knob("size of the latent vector", "100", minimum=1)
    seed: int = knob("of everything random", "0", minimum=0)
    every: int = knob("batches between printed lines and pictures", "200", minimum=1)
    log_every: int = knob("batches between rows sent to the loggers", "50", minimum=1)
    metric: str = knob("logged scalar that train() returns to a sweeper", "epoch/d/advantage")
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
    kind = {"int": "a whole number", "float": "a number", "str": "a text"}[str(knob.type)]
    if math.isfinite(knob.metadata["minimum"]):
        kind += f" of at least {knob.metadata['minimum']}"
    if math.isfinite(knob.metadata["above"]):
        kind += f" above {knob.metadata['above']}"
    return f"{kind}, such as {name}={knob.metadata['example']}"


def check(config: DictConfig) -> None:
    """Raises UserError for a knob outside its range."""
    for name, knob in KNOBS.items():
        if knob.type == "str":  # not even read: config.folder is not known before a run has begun
            continue
        value = config[name]
        low, bound = knob.metadata["minimum"], knob.metadata["above"]
        if not (low <= value < math.inf and value > bound):
            raise UserError(f"{name}={value} is out of range: {name} takes {expected(name)}.")


def register_schema() -> None:
    ConfigStore.instance().store(name="schema", node=Config)


def describe_knobs() -> str:
    """The knobs as lines of --help."""
    return "\n".join(f"  {name:<11} {KNOBS[name].metadata['help']}" for name in KNOBS)
