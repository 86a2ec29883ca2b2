"""Builds objects from plain settings.

`_target_` names a class or a function, which gets the other settings as arguments.
`_partial_: true` returns a factory. Nothing else is special: unlike in Hydra's `instantiate`,
`${...}` is a string here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from types import FunctionType
from typing import Any

from ganmnist.utils.errors import UserError

# Classes that settings from a file may name. Their constructors take plain values.
OWN = (
    *("callbacks", "data", "families", "gan", "losses", "metrics", "networks"),
    *("reporting.loggers", "stabilizers", "utils.schedules", "utils.training_options"),
)
TRUSTED = (*(f"ganmnist.{name}" for name in OWN), "torch.optim")


def instantiate(node: Any, allowed: Sequence[str] | None = None) -> Any:
    """Builds every `_target_` in a tree of settings, from the innermost to the outermost.

    Args:
        node: plain settings.
        allowed: the modules that a `_target_` may name; None: all, for settings of the command
            line.

    Raises:
        UserError: a `_target_` is not allowed, or refuses its arguments.
        TypeError: a bug in a constructor, only for settings of the command line.
    """
    if isinstance(node, list):
        return [instantiate(item, allowed) for item in node]
    if not isinstance(node, dict):
        return node
    settings = {key: instantiate(value, allowed) for key, value in node.items()}
    target = settings.pop("_target_", None)
    if target is None:
        return settings
    make = find_target(target, allowed)
    if settings.pop("_partial_", False):
        return partial(make, **settings)
    try:
        return make(**settings)
    except ValueError as error:
        if allowed is None:
            raise UserError(" ".join(str(error).split())) from error
        raise cannot_build(target, error) from error
    except TypeError as error:
        if allowed is None:
            raise
        raise cannot_build(target, error) from error


def cannot_build(target: Any, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300]
    return UserError(
        f"{target} cannot be built from its settings ({reason}). Change or remove them."
    )


def find_target(target: Any, allowed: Sequence[str] | None = None) -> Any:
    """The class or function that a `_target_` names.

    Modules that are not allowed are not imported, because an import runs their code. An allowed
    name must be defined in its module: a class, or in the user's own modules also a function.

    Raises:
        UserError: there is no such class or function, or it is not allowed.
    """
    if allowed is None:
        return find_any(str(target))
    module, _, name = str(target).rpartition(".")
    found = None
    if is_in(module, allowed):
        try:
            found = getattr(import_module(module), name, None)
        except ImportError:
            found = None
    defined_in = getattr(found, "__module__", None)
    is_known = isinstance(found, type) or (
        isinstance(found, FunctionType) and not is_in(str(defined_in), TRUSTED)
    )
    if not is_known or not is_in(str(defined_in), allowed):
        raise UserError(
            f"The settings name {target}, which is not a class of ganmnist. If you trust its "
            f"module, add trusted_modules=[{module}]."
        )
    return found


def find_any(target: str) -> Any:
    """The object of a dotted name. Errors inside of a user's module propagate.

    Raises:
        UserError: there is none.
    """
    from hydra.utils import get_object

    try:
        return get_object(target)
    except ImportError as error:
        cause = error.__cause__ or error
        if not isinstance(cause, ImportError | AttributeError):
            raise
        raise UserError(
            f"_target_={target}: there is no such class. Correct the name, or start ganmnist in "
            "the folder of its module."
        ) from error


def is_in(module: str, packages: Sequence[str]) -> bool:
    """Whether a module is one of these packages, or inside of one."""
    return any(f"{module}.".startswith(f"{package}.") for package in packages)
