"""Refuses settings on the command line that no part of the run uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from ganmnist.runs.config_tree import (
    children,
    follow,
    interpolations,
    overlap,
    paths_in,
    settings_in,
    source,
    suggest,
)
from ganmnist.utils.errors import UserError

# The nodes that are built, and the settings that Python uses directly.
ROOTS = [
    "family",
    "datamodule",
    "trainer",
    "callbacks",
    "logger",
    "optimized_metric",
    "name",
    "seed",
    "folder",
    "resume",
    "trusted_modules",
]
# It names print_every and others only to end chunks of batches, which does not count as a use.
NO_USE = "datamodule.intervals"


def check_used(config: DictConfig, overrides: Iterable[str], choices: Mapping[str, Any]) -> None:
    """Refuses the first override that nothing uses.

    The walk over the interpolations starts at `ROOTS`. A key is used if the walk reaches it, a node
    above it or a node inside it. A choice of a group is used if the walk reaches a `_target_`
    inside it.

    Args:
        config: the composed configuration, with its interpolations.
        overrides: the words of the command line.
        choices: the choice of every group (hydra.runtime.choices).

    Raises:
        UserError: names the setting.
    """
    tree = OmegaConf.to_container(config, resolve=False)
    used = used_paths(tree)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_delete() or override.is_hydra_override():
            continue
        key = override.key_or_group
        group = override.get_key_element().lstrip("+")
        if group in choices:
            if override.value() == "none" or is_group_used(tree, package_of(override), used):
                continue
        elif any(overlap(key, path) for path in used):
            continue
        parts = " ".join(f"{name}={choices.get(name)}" for name in ("family", "callbacks"))
        close = suggest(key, (path for path in settings_in(tree) if path in used))
        hint = f" Did you mean {source(tree, close)}=...?" if close and group not in choices else ""
        raise UserError(
            f"{(override.input_line or key).lstrip('+')}: no part of this run ({parts}) uses "
            f"{key}. Leave it out, or choose other parts.{hint}"
        )


def package_of(override: Override) -> str:
    """The path of a group's choice in the configuration."""
    return override.package or override.key_or_group.replace("/", ".")


def is_group_used(tree: Any, package: str, used: set[str]) -> bool:
    """Whether the walk reaches a `_target_` inside `package`, or there is none."""
    targets = [p for p in paths_in(tree) if p.endswith("._target_") and p.startswith(f"{package}.")]
    return not targets or any(target in used for target in targets)


def used_paths(tree: Any) -> set[str]:
    """The paths of a tree of settings that are reached from the roots."""
    used: set[str] = set()

    def visit(path: str) -> None:
        if path in used or path == NO_USE:
            return
        used.add(path)
        path, node = follow(tree, path)
        used.add(path)
        if isinstance(node, str):
            for path_of_value in interpolations(node, path):
                visit(path_of_value)
        for name in children(node):
            visit(f"{path}.{name}")

    for root in ROOTS:
        visit(root)
    return used
