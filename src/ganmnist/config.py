"""The public knobs: their types, their ranges, and what is said when a value fits neither.

This module and everything it imports stay free of torch, so that a typing mistake is answered
at once.
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

from ganmnist.devices import check_request
from ganmnist.errors import UserError

log = logging.getLogger(__name__)


def knob(
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
    metric: str = knob("logged scalar that train() returns to a sweeper", "val_fid")
    trust: list[str] = MISSING
    resume: str | None = knob("go on with a run: its folder, or auto (newest)", "auto")
    checkpoint: Any = MISSING
    folder: Any = MISSING
    model: Any = MISSING
    family: Any = MISSING
    latent: Any = MISSING
    objective: Any = MISSING
    optimizer: Any = MISSING
    data: Any = MISSING
    datamodule: Any = MISSING
    gan: Any = MISSING
    terms: Any = field(default_factory=dict)
    stabilizer: Any = field(default_factory=dict)
    schedule: Any = field(default_factory=dict)
    trainer: Any = MISSING
    metrics: Any = MISSING
    callbacks: Any = None
    logger: Any = None


@dataclass
class Trained:
    """Which generator is meant."""

    run: str | None = knob("folder of a run", "logs/train/2026-01-01_12-00-00")
    ckpt: str | None = knob("or a checkpoint file", "best.ckpt")
    which: str = knob("checkpoint: best (by val_fid) or last", "last", choices=("best", "last"))
    weights: str = knob("raw (as trained) or ema (averaged)", "ema", choices=("raw", "ema"))
    device: str = knob("where to compute", "cuda")
    trust: list[str] = MISSING


@dataclass
class Evaluate(Trained):
    """What conf/evaluate.yaml is checked against."""

    images: str | None = knob("instead: an npz with images (N, 28, 28), uint8", "images.npz")
    n: int | None = knob("generated images; null: as in training", "10000", minimum=1)
    out: str | None = knob("where to write; null: metrics.json in the run", "metrics.json")
    data: Any = MISSING
    metrics: Any = MISSING


@dataclass
class Generate(Trained):
    """What conf/generate.yaml is checked against."""

    n: int | None = knob("images; null: 64, or ten of each label", "100", minimum=1)
    labels: list[int] | None = knob("of a conditional GAN: 0,1,2; null: all", "0,1,2", minimum=0)
    interpolate: str | None = knob("walks x steps between pairs of latents", "8x10")
    out: str = knob("a picture (.png) or arrays (.npz)", "digits.npz")
    seed: int = knob("of the latents", "0", minimum=0, below=2**32)


COMMANDS = {"train": Train, "evaluate": Evaluate, "generate": Generate}
KNOBS = {
    command: {f.name: f for f in dataclasses.fields(schema) if f.metadata}
    for command, schema in COMMANDS.items()
}


KINDS = {"int": "a whole number", "list[int]": "whole numbers"}
KINDS |= {"float": "a number", "str": "a text"}


def listed(word: str, command: str) -> str:
    """labels=0,1,2 as Hydra writes a list; it would take that for a sweep."""
    name, _, value = word.partition("=")
    is_list = name in KNOBS[command] and str(KNOBS[command][name].type).startswith("list")
    return f"{name}=[{value}]" if is_list and re.fullmatch(r"\d[\d,]*", value) else word


def expected(name: str, command: str) -> str:
    """What a knob takes, in words: "a whole number of at least 1, such as epochs=20"."""
    knob = KNOBS[command][name]
    type_, _, optional = str(knob.type).partition(" | ")
    kind = KINDS[type_]
    for bound, words in (("minimum", "of at least"), ("above", "above"), ("below", "below")):
        if math.isfinite(knob.metadata[bound]):
            kind += f" {words} {knob.metadata[bound]}"
    if knob.metadata["choices"]:
        kind = " or ".join(knob.metadata["choices"])
    if optional:
        kind += ", or null"
    return f"{kind}, such as {name}={knob.metadata['example']}"


def check_ranges(config: DictConfig, command: str) -> None:
    """Raises UserError for a knob outside its range."""
    for name, knob in KNOBS[command].items():
        value = config[name]
        data = knob.metadata
        if value is None:
            continue
        if isinstance(value, str):
            fits = value in (data["choices"] or (value,))
        else:
            numbers = value if isinstance(value, Sequence) else [value]
            fits = all(data["minimum"] <= x < data["below"] and x > data["above"] for x in numbers)
        if not fits:
            takes = expected(name, command)
            raise UserError(f"{name}={value} is out of range: {name} takes {takes}.")


def one_of(config: DictConfig, *names: str) -> str:
    """The one of these settings that is given."""
    given = [name for name in names if config[name] is not None]
    if len(given) != 1:
        said = f"not {' and '.join(given)} together" if given else "none is given"
        raise UserError(f"Choose one of {', '.join(f'{name}=...' for name in names)}: {said}.")
    return str(config[given[0]])


def check(config: DictConfig) -> None:
    """Raises UserError for a training that no machine could do."""
    check_ranges(config, "train")
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


def check_types(node: Any, place: str = "", find: Callable[[str], Any] = get_object) -> None:
    """Raises UserError for a plain setting of another type than its constructor declares.

    YAML reads `no` as a text, which Python would take for true. `find` turns a `_target_` into
    what it names.
    """
    if isinstance(node, Mapping):
        declared = signature(find(node["_target_"])).parameters if "_target_" in node else {}
        for name, value in node.items():
            at = f"{place}.{name}".lstrip(".")
            if name in declared:
                kinds = annotation(declared[name]).split(" | ")
                if set(kinds) <= PLAIN.keys() and not any(is_a(value, kind) for kind in kinds):
                    raise UserError(f"{at}={value}: this takes a {' or a '.join(kinds)}.")
            check_types(value, at, find)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_types(value, f"{place}.{i}", find)


def resolve_norm(config: DictConfig) -> None:
    """Replaces every norm=auto by a name.

    A loss term that needs the gradient of each image asks for layer norm in D, a stabilizer that
    divides weights by their norm for none (`discriminator_norm` of their classes). Otherwise it is
    the network's own, the default of its constructor.
    """
    networks = [*with_auto_norm(config)]
    if not networks:
        return
    gan: Any = OmegaConf.to_container(config.gan, resolve=True)
    asked = {getattr(part, "discriminator_norm", None): part for part in parts_of(gan)}
    norm = next((norm for norm in ("none", "layer") if norm in asked), None)
    if norm and not any(node.get("norm") == "auto" for node in nodes(gan["discriminator"])):
        norm = None  # this family's D is another network
    if norm:
        name = asked[norm].__name__
        log.info("model.discriminator.norm=auto: %s, because %s needs it.", norm, name)
    for network in networks:
        own = signature(get_object(network._target_)).parameters["norm"].default
        network.norm = norm or own


def with_auto_norm(node: DictConfig) -> Iterator[DictConfig]:
    """The networks of a configuration that have norm=auto, each once, not by references to it."""
    if node._is_none() or node._is_missing():
        return
    for name in map(str, node):
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        if name == "norm" and node[name] == "auto":
            yield node
        elif isinstance(node[name], DictConfig):
            yield from with_auto_norm(node[name])


def parts_of(node: Any) -> Iterator[Any]:
    """What every `_target_` in a tree of settings names."""
    return (get_object(part["_target_"]) for part in nodes(node) if "_target_" in part)


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


def is_a(value: object, kind: str) -> bool:
    """Whether a value of YAML is one of a Python type; a bool is no number."""
    return isinstance(value, PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))


def register_schema() -> None:
    for command, schema in COMMANDS.items():
        ConfigStore.instance().store(name=f"{command}_schema", node=schema)


def describe_knobs(command: str) -> str:
    """The knobs of a command as lines of --help."""
    knobs = KNOBS[command].items()
    return "\n".join(f"  {name:<11} {knob.metadata['help']}" for name, knob in knobs)
