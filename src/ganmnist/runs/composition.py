"""Composes the configuration of a command line, with Hydra."""

from __future__ import annotations

import logging.config
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from operator import add, mul
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from ganmnist.runs.folders import conf_dir, slug, unique_dir
from ganmnist.runs.help import describe_groups, describe_settings
from ganmnist.runs.schema import register_schema
from ganmnist.utils.errors import UserError
from ganmnist.utils.files import read_yaml


def setup() -> None:
    """Registers the schemas of the commands, and the resolvers of the configuration files."""
    register_schema()
    resolvers: dict[str, Callable[..., Any]] = {
        "unique_dir": unique_dir,
        "slug": slug,
        "plus": add,
        "times": mul,
        "settings": describe_settings,
        "groups": describe_groups,
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def parse(args: Sequence[str]) -> list[Override]:
    """The overrides of a command line.

    Raises:
        UserError: a word is no override, or a sweep without -m.
    """
    arguments = get_args_parser().parse_args([*args])
    try:
        overrides = OverridesParser.create().parse_overrides(arguments.overrides)
    except OverrideParseException as error:
        raise UserError(
            f"{error.override}: this does not have the form setting=value. Write a list as [1,2], "
            "and put a string with special characters in 'quotes'."
        ) from error
    if not arguments.multirun:
        for override in overrides:
            if override.is_sweep_override():
                raise UserError(
                    f"{override.input_line}: several values are a sweep, which needs -m. Write a "
                    "list as [1,2]."
                )
    return overrides


def compose_words(config_name: str, words: Sequence[str], args: Sequence[str]) -> DictConfig:
    """The unresolved configuration of some words.

    args: the command line, which may name a folder of configuration files.
    """
    folder = get_args_parser().parse_args([*args]).config_dir
    return compose_once(config_name, tuple(words), folder and os.path.abspath(folder))


@cache
def compose_once(config_name: str, words: tuple[str, ...], own_conf: str | None) -> DictConfig:
    """`compose_words`, whose result is not to be changed."""
    search = [f"hydra.searchpath=['file://{own_conf}']"] if own_conf else []
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(config_name, [*words, *search])


def compose_groups(config_name: str, parsed: Sequence[Override]) -> Any:
    """The unresolved configuration with the group choices of the command line alone."""
    groups = [o for o in parsed if (conf_dir() / o.key_or_group).is_dir()]
    words = [str(o.input_line) for o in groups if not o.is_sweep_override()]
    return OmegaConf.to_container(compose_words(config_name, words, sys.argv[1:]), resolve=False)


def configure_logging(path: Path) -> None:
    """Prints log records, and appends them to a file, as Hydra does for a run."""
    content = read_yaml(conf_dir() / "hydra/job_logging/ganmnist.yaml")
    content["handlers"]["file"]["filename"] = str(path)
    logging.config.dictConfig(content)


def plain(settings: Any) -> Any:
    """A configuration as plain containers, with its interpolations resolved."""
    return OmegaConf.to_container(settings, resolve=True)
