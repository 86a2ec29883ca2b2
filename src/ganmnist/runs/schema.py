"""The schemas of the commands: types, ranges and descriptions of their settings.

This module and its imports do not import torch, so that mistakes are reported within a second.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


def option(
    help: str,
    example: str,
    minimum: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """A required setting; its value comes from the command's YAML file."""
    metadata: dict[str, Any] = {"help": help, "example": example}
    metadata |= {"minimum": minimum, "above": above, "below": below, "choices": choices}
    return field(default=MISSING, metadata=metadata)


@dataclass
class Train:
    """The schema of conf/train.yaml."""

    name: str = option("first part of the run's folder, logs/NAME/...", "my_idea")
    epochs: int = option("passes over the training images", "20", minimum=1)
    lr: float = option("learning rate of D and G", "2e-4", above=0)
    batch_size: int = option("images per batch and process", "64", minimum=1)
    latent_dim: int = option("size of the latents", "100", minimum=1)
    ema: float | None = option(
        "decay of the moving average of G, or null", "0.999", above=0, below=1
    )
    seed: int = option("seed of all random numbers", "0", minimum=0, below=2**32)
    print_every: int = option("batches between printed lines", "200", minimum=1)
    sample_every: int = option("batches between saved images", "200", minimum=1)
    log_every: int = option("batches between rows sent to the loggers", "50", minimum=1)
    optimized_metric: str = option("logged scalar that train() returns to a sweeper", "val_fid")
    trusted_modules: list[str] = MISSING
    resume: str | None = option("folder of a run to continue, or auto (the newest)", "auto")
    checkpoint: Any = MISSING
    folder: Any = MISSING
    data: Any = MISSING
    datamodule: Any = MISSING
    model: Any = MISSING
    latent: Any = MISSING
    objective: Any = MISSING
    penalty: Any = field(default_factory=dict)
    stabilizer: Any = field(default_factory=dict)
    optimizer: Any = MISSING
    schedule: Any = field(default_factory=dict)
    gan: Any = MISSING
    family: Any = MISSING
    metrics: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = None
    logger: Any = None


@dataclass
class Trained:
    """Settings that choose a trained generator."""

    run: str | None = option("folder of a run", "logs/train/2026-01-01_12-00-00")
    ckpt: str | None = option("instead: a checkpoint file", "best.ckpt")
    which: str = option("best (lowest val_fid) or last", "last", choices=("best", "last"))
    weights: str = option("raw, or ema (moving average)", "ema", choices=("raw", "ema"))
    device: str = option("cpu, cuda or cuda:N", "cuda")
    trusted_modules: list[str] = MISSING


@dataclass
class Evaluate(Trained):
    """The schema of conf/evaluate.yaml."""

    images: str | None = option("instead: a .npz file with uint8 images (N, 28, 28)", "images.npz")
    n: int | None = option("generated images; null: as in training", "10000", minimum=1)
    out: str | None = option("output file; null: metrics.json in the run", "metrics.json")
    data: Any = MISSING
    metrics: Any = MISSING


@dataclass
class Generate(Trained):
    """The schema of conf/generate.yaml."""

    n: int | None = option("images; null: 64, or ten of each label", "100", minimum=1)
    labels: list[int] | None = option("labels for a conditional GAN; null: all", "0,1,2", minimum=0)
    interpolate: str | None = option("ROWSxSTEPS images between pairs of latents", "8x10")
    out: str = option("output file: .png (a grid) or .npz (arrays)", "digits.npz")
    seed: int = option("seed of the latents", "0", minimum=0, below=2**32)


COMMANDS = {"train": Train, "evaluate": Evaluate, "generate": Generate}
OPTIONS = {
    command: {f.name: f for f in dataclasses.fields(schema) if f.metadata}
    for command, schema in COMMANDS.items()
}


KINDS = {"int": "a whole number", "list[int]": "whole numbers"}
KINDS |= {"float": "a number", "str": "a string"}


def parse_list(word: str, command: str) -> str:
    """Turns labels=0,1,2 into a list of Hydra's, which takes this form for a sweep."""
    name, _, value = word.partition("=")
    is_list = name in OPTIONS[command] and str(OPTIONS[command][name].type).startswith("list")
    return f"{name}=[{value}]" if is_list and re.fullmatch(r"\d[\d,]*", value) else word


def describe_type(name: str, command: str) -> str:
    """The valid values in words: "a whole number of at least 1, such as epochs=20"."""
    option = OPTIONS[command][name]
    type_, _, optional = str(option.type).partition(" | ")
    kind = KINDS[type_]
    for bound, words in (("minimum", "of at least"), ("above", "above"), ("below", "below")):
        if math.isfinite(option.metadata[bound]):
            kind += f" {words} {option.metadata[bound]}"
    if option.metadata["choices"]:
        kind = " or ".join(option.metadata["choices"])
    if optional:
        kind += ", or null"
    return f"{kind}, such as {name}={option.metadata['example']}"


def register_schema() -> None:
    for command, schema in COMMANDS.items():
        ConfigStore.instance().store(name=f"{command}_schema", node=schema)


def describe_options(command: str) -> str:
    """The settings of a command as lines of --help."""
    width = max(map(len, OPTIONS[command]))
    lines = (f"  {name:<{width}} {o.metadata['help']}" for name, o in OPTIONS[command].items())
    return "\n".join(lines)
