"""Refuses settings on the command line that no part of the run uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

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
IGNORED = "datamodule.intervals"  # only ends chunks of batches: not a use of the intervals


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
            if override.value() == "none" or is_group_used(tree, place_of(override), used):
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


def place_of(override: Override) -> str:
    """Where the choice of a group stands in the configuration."""
    return override.package or override.key_or_group.replace("/", ".")


def is_group_used(tree: Any, place: str, used: set[str]) -> bool:
    """Whether the walk reaches a `_target_` at `place`, or there is none."""
    targets = [p for p in paths_in(tree) if p.endswith("._target_") and p.startswith(f"{place}.")]
    return not targets or any(target in used for target in targets)


def overlap(a: str, b: str) -> bool:
    """Whether two paths are equal or one lies inside the other."""
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def used_paths(tree: Any) -> set[str]:
    """The paths of a tree of settings that are reached from the roots."""
    used: set[str] = set()

    def visit(path: str) -> None:
        if path in used or path == IGNORED:
            return
        used.add(path)
        path, node = follow(tree, path)
        used.add(path)
        if isinstance(node, str):
            for reference in references(node, path):
                visit(reference)
        for name in children(node):
            visit(f"{path}.{name}")

    for root in ROOTS:
        visit(root)
    return used


def follow(tree: Any, path: str) -> tuple[str, Any]:
    """A path without references on the way, and its node; None if there is no such node.

    With `family: {latent: ${latent}}`, family.latent.dim is latent.dim.
    """
    parts = path.split(".")
    node = tree
    for i, part in enumerate(parts):
        node = children(node).get(part)
        here = ".".join(parts[: i + 1])
        if isinstance(node, str) and i + 1 < len(parts) and (to := references(node, here)):
            return follow(tree, ".".join([*to[:1], *parts[i + 1 :]]))
    return path, node


def children(node: Any) -> dict[str, Any]:
    if isinstance(node, Mapping):
        return {str(name): value for name, value in node.items()}
    return {str(i): value for i, value in enumerate(node)} if isinstance(node, list) else {}


def references(text: str, path: str) -> list[str]:
    """The paths that the interpolations of a string name; `path` is that of the string.

    A leading dot is relative, as in OmegaConf: `${.a}` is beside the text.
    """
    found = []
    for points, name in re.findall(r"\$\{(\.*)([\w.-]+)\}", text):
        above = path.split(".")[: -len(points)] if points else []
        found.append(".".join([*above, name]))
    return found


def source(tree: Any, path: str) -> str:
    """The setting that a path takes its value from: itself, unless it is one reference."""
    _, node = follow(tree, path)
    to = references(node, path) if isinstance(node, str) else []
    return source(tree, to[0]) if len(to) == 1 and node == f"${{{to[0]}}}" else path


def last_name(path: str) -> str:
    return path.rpartition(".")[2]


def paths_in(node: Any, path: str = "") -> Iterator[str]:
    """All paths inside a node."""
    for name, value in children(node).items():
        inner = f"{path}.{name}".lstrip(".")
        yield inner
        yield from paths_in(value, inner)


def settings_in(tree: Any) -> Iterator[str]:
    """The paths of plain values. References to whole nodes are left out."""
    for path in paths_in(tree):
        _, node = follow(tree, path)
        to = references(node, path) if isinstance(node, str) and node.endswith("}") else []
        is_node = isinstance(node, Mapping) or (to and children(follow(tree, to[0])[1]))
        if not is_node and not last_name(path).startswith("_"):
            yield path


def suggest(key: str, paths: Iterable[str]) -> str:
    """The most similar path with the same last name, or nothing."""
    same_name = [path for path in paths if last_name(path) == last_name(key)]
    return next(iter(get_close_matches(key, same_name, n=1, cutoff=0.5)), "")
