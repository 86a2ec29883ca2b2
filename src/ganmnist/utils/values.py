"""Checks of values: those of a file that somebody else may have written, and of intervals."""

from types import NoneType
from typing import Any

LARGEST = 1e30  # of the values in a chart


def is_plain(node: Any) -> bool:
    """Whether a tree has nothing but containers, texts, numbers, booleans and None.

    Huge whole numbers do not count: they overflow in calculations.
    """
    try:
        if isinstance(node, dict):
            return all(isinstance(key, str) and is_plain(value) for key, value in node.items())
        if isinstance(node, list):
            return all(map(is_plain, node))
        if isinstance(node, str):
            node.encode()
            return True
    except (RecursionError, UnicodeEncodeError):  # it contains itself; half of a character
        return False
    return type(node) in (bool, float, NoneType) or (type(node) is int and abs(node) < 2**63)


def check_interval(name: str, value: int | None) -> None:
    """Raises ValueError for a number of batches or epochs that is not at least 1, or None."""
    if value is not None and value < 1:
        raise ValueError(f"{name}={value}: choose 1 or more")
