"""The schema of the configuration: types and ranges of the settings, and their checks.

This module and its imports do not import torch, so that mistakes are reported within a second.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.utils import get_object
from omegaconf import MISSING, DictConfig, OmegaConf

from ganmnist.runs.hardware import check_request
from ganmnist.utils.errors import UserError

log = logging.getLogger(__name__)


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
class Checkpoint:
    """Settings that choose a trained generator."""

    run: str | None = option("folder of a run", "logs/train/2026-01-01_12-00-00")
    ckpt: str | None = option("instead: a checkpoint file", "best.ckpt")
    which: str = option("best (lowest val_fid) or last", "last", choices=("best", "last"))
    weights: str = option("raw, or ema (moving average)", "ema", choices=("raw", "ema"))
    device: str = option("cpu, cuda or cuda:N", "cuda")
    trusted_modules: list[str] = MISSING


@dataclass
class Evaluate(Checkpoint):
    """The schema of conf/evaluate.yaml."""

    images: str | None = option("instead: a .npz file with uint8 images (N, 28, 28)", "images.npz")
    n: int | None = option("generated images; null: as in training", "10000", minimum=1)
    out: str | None = option("output file; null: metrics.json in the run", "metrics.json")
    data: Any = MISSING
    metrics: Any = MISSING


@dataclass
class Generate(Checkpoint):
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


def resolve_norm(config: DictConfig) -> None:
    """Replaces every norm=auto by a name.

    `discriminator_norm` of a loss term or a stabilizer names the norm that D needs: layer for a
    gradient of each image, none for spectral norm. Otherwise the default of the constructor stays.
    """
    networks = [*networks_with_auto_norm(config)]
    if not networks:
        return
    family: Any = OmegaConf.to_container(config.family, resolve=True)
    targets = [get_object(node["_target_"]) for node in nodes(family) if "_target_" in node]
    needed = {getattr(target, "discriminator_norm", None): target for target in targets}
    norm = next((norm for norm in ("none", "layer") if norm in needed), None)
    if norm and not any(node.get("norm") == "auto" for node in nodes(family["discriminator"])):
        norm = None  # the discriminator of this family is another network
    if norm:
        name = needed[norm].__name__
        log.info("model.discriminator.norm=auto: %s, because %s needs it.", norm, name)
    for network in networks:
        default = signature(get_object(network._target_)).parameters["norm"].default
        network.norm = norm or default


def networks_with_auto_norm(node: DictConfig) -> Iterator[DictConfig]:
    """The nodes with norm=auto. References to a node are left out, so each comes once."""
    if node._is_none() or node._is_missing():
        return
    for name in map(str, node):
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        if name == "norm" and node[name] == "auto":
            yield node
        elif isinstance(node[name], DictConfig):
            yield from networks_with_auto_norm(node[name])


def nodes(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping in a tree of settings."""
    if isinstance(node, Mapping):
        yield node
        node = [*node.values()]
    if isinstance(node, list):
        for value in node:
            yield from nodes(value)


def annotation(parameter: Parameter) -> str:
    declared = parameter.annotation
    return declared if isinstance(declared, str) else getattr(declared, "__name__", str(declared))


def has_type(value: object, kind: str) -> bool:
    """Whether a value has a type of PLAIN. A bool is not a number."""
    return isinstance(value, PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))


def register_schema() -> None:
    for command, schema in COMMANDS.items():
        ConfigStore.instance().store(name=f"{command}_schema", node=schema)


def describe_options(command: str) -> str:
    """The settings of a command as lines of --help."""
    width = max(map(len, OPTIONS[command]))
    lines = (f"  {name:<{width}} {o.metadata['help']}" for name, o in OPTIONS[command].items())
    return "\n".join(lines)
