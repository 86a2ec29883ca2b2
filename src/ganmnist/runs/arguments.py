"""Checks that the constructors of a run accept their settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter, signature
from typing import Any

from ganmnist.runs.instantiate import find_target
from ganmnist.utils.errors import UserError

PLAIN: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "None": (type(None),),
}
Find = Callable[[Any], Any]  # returns what a `_target_` names


def check_arguments(node: Any, place: str = "", find: Find = find_target) -> None:
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


def path_arguments(
    node: Any, find: Find = find_target, place: str = ""
) -> Iterator[tuple[dict[str, Any], str, str]]:
    """The arguments that a constructor declares as paths: their node, name and place."""
    if isinstance(node, dict):
        target = node.get("_target_")
        for name, parameter in (signature(find(target)).parameters if target else {}).items():
            if name in node and "Path" in annotation(parameter):
                yield node, name, f"{place}.{name}".lstrip(".")
        for name, value in node.items():
            yield from path_arguments(value, find, f"{place}.{name}".lstrip("."))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from path_arguments(value, find, f"{place}.{i}")


def foreign_path(place: str, value: Any) -> UserError:
    """The error for a path in a file that somebody else may have written."""
    return UserError(
        f"{place}={value}: a path is not taken from a checkpoint. If it is yours, add "
        f"{place}={value} to the command line."
    )


def annotation(parameter: Parameter) -> str:
    declared = parameter.annotation
    return declared if isinstance(declared, str) else getattr(declared, "__name__", str(declared))


def has_type(value: object, kind: str) -> bool:
    """Whether a value has a type of PLAIN. A bool is not a number."""
    return isinstance(value, PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
