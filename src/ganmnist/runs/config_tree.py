"""Paths in the unresolved configuration, and their interpolations.

A path is the name of a setting, such as model.generator.widths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any


def overlap(a: str, b: str) -> bool:
    """Whether two paths are equal or one lies inside the other."""
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def follow(tree: Any, path: str) -> tuple[str, Any]:
    """Resolves the interpolations along a path. Returns the path and its node; None: no such node.

    With `family: {latent: ${latent}}`, family.latent.dim is latent.dim.
    """
    parts = path.split(".")
    node = tree
    for i, part in enumerate(parts):
        node = children(node).get(part)
        here = ".".join(parts[: i + 1])
        if isinstance(node, str) and i + 1 < len(parts) and (to := interpolations(node, here)):
            return follow(tree, ".".join([*to[:1], *parts[i + 1 :]]))
    return path, node


def children(node: Any) -> dict[str, Any]:
    if isinstance(node, Mapping):
        return {str(name): value for name, value in node.items()}
    return {str(i): value for i, value in enumerate(node)} if isinstance(node, list) else {}


def interpolations(text: str, path: str) -> list[str]:
    """The paths that the interpolations of a string name; `path` is that of the string.

    A leading dot is relative, as in OmegaConf: `${.a}` is beside the text.
    """
    found = []
    for points, name in re.findall(r"\$\{(\.*)([\w.-]+)\}", text):
        above = path.split(".")[: -len(points)] if points else []
        found.append(".".join([*above, name]))
    return found


def source(tree: Any, path: str) -> str:
    """The setting that a path takes its value from: itself, unless it is one interpolation."""
    _, node = follow(tree, path)
    to = interpolations(node, path) if isinstance(node, str) else []
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
    """The paths of plain values. Interpolations of whole nodes are left out."""
    for path in paths_in(tree):
        _, node = follow(tree, path)
        to = interpolations(node, path) if isinstance(node, str) and node.endswith("}") else []
        is_node = isinstance(node, Mapping) or (to and children(follow(tree, to[0])[1]))
        if not is_node and not last_name(path).startswith("_"):
            yield path


def suggest(key: str, paths: Iterable[str]) -> str:
    """The most similar path with the same last name, or nothing."""
    same_name = [path for path in paths if last_name(path) == last_name(key)]
    return next(iter(get_close_matches(key, same_name, n=1, cutoff=0.5)), "")


def is_reference(value: Any) -> bool:
    return "${" in str(value)


def select(node: Any, path: str) -> Any:
    """The node at a path of plain settings; None: there is none."""
    for part in path.split("."):
        node = children(node).get(part)
    return node


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The paths and values of a tree of settings. A list is a value."""
    for name, value in node.items():
        inner = f"{path}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            yield from leaves(value, inner)
        else:
            yield inner, value
