"""The schemas of the commands: types, ranges and descriptions of their settings.

This module and its imports do not import torch, so that mistakes are reported within a second.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


def setting(
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
class TrainSchema:
    """The schema of conf/train.yaml."""

    name: str = setting("first part of the run's folder, logs/NAME/...", "my_idea")
    epochs: int = setting("passes over the training images", "20", minimum=1)
    lr: float = setting("learning rate of D and G", "2e-4", above=0)
    batch_size: int = setting("images per batch and process", "64", minimum=1)
    latent_dim: int = setting("size of the latents", "100", minimum=1)
    ema: float | None = setting(
        "decay of the moving average of G, or null", "0.999", above=0, below=1
    )
    seed: int = setting("seed of all random numbers", "0", minimum=0, below=2**32)
    print_every: int = setting("batches between printed lines", "200", minimum=1)
    sample_every: int = setting("batches between saved images", "200", minimum=1)
    log_every: int = setting("batches averaged into one row of TensorBoard", "50", minimum=1)
    optimized_metric: str = setting("logged scalar that train() returns to a sweeper", "val_fid")
    trusted_modules: list[str] = MISSING
    resume: str | None = setting(
        "folder of a run to continue, or auto (the newest unfinished)", "auto"
    )
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
class TrainedSchema:
    """Settings that choose a trained generator."""

    run: str | None = setting("folder of a run", "logs/train/2026-01-01_12-00-00")
    ckpt: str | None = setting("instead: a checkpoint file", "best.ckpt")
    which: str = setting("best (lowest monitored metric) or last", "last", choices=("best", "last"))
    weights: str = setting("raw, or ema (moving average)", "ema", choices=("raw", "ema"))
    device: str = setting("cpu, cuda or cuda:N", "cuda")
    trusted_modules: list[str] = MISSING


@dataclass
class EvaluateSchema(TrainedSchema):
    """The schema of conf/evaluate.yaml."""

    images: str | None = setting("instead: a .npz file with uint8 images (N, 28, 28)", "images.npz")
    n: int | None = setting("generated images; null: as in training", "10000", minimum=1)
    out: str | None = setting("output file; null: metrics.json in the run", "metrics.json")
    data: Any = MISSING
    metrics: Any = MISSING


@dataclass
class GenerateSchema(TrainedSchema):
    """The schema of conf/generate.yaml."""

    n: int | None = setting("images; null: 64, or ten of each label", "100", minimum=1)
    labels: list[int] | None = setting(
        "labels for a conditional GAN; null: all", "0,1,2", minimum=0
    )
    interpolate: str | None = setting("ROWSxSTEPS images between pairs of latents", "8x10")
    out: str = setting("output file: .png (a grid) or .npz (arrays)", "digits.npz")
    seed: int = setting("seed of the latents", "0", minimum=0, below=2**32)


SCHEMAS = {"train": TrainSchema, "evaluate": EvaluateSchema, "generate": GenerateSchema}
SETTINGS = {
    command: {f.name: f for f in dataclasses.fields(schema) if f.metadata}
    for command, schema in SCHEMAS.items()
}


KINDS = {"int": "a whole number", "list[int]": "whole numbers"}
KINDS |= {"float": "a number", "str": "a string"}


def describe_type(name: str, command: str) -> str:
    """The valid values in words: "a whole number of at least 1, such as epochs=20"."""
    setting = SETTINGS[command][name]
    type_, _, optional = str(setting.type).partition(" | ")
    kind = KINDS[type_]
    for bound, words in (("minimum", "of at least"), ("above", "above"), ("below", "below")):
        if math.isfinite(setting.metadata[bound]):
            kind += f" {words} {setting.metadata[bound]}"
    if setting.metadata["choices"]:
        kind = " or ".join(setting.metadata["choices"])
    if optional:
        kind += ", or null"
    return f"{kind}, such as {name}={setting.metadata['example']}"


def register_schema() -> None:
    for command, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{command}_schema", node=schema)
