"""Errors of the user, as opposed to bugs."""

import re


class UserError(Exception):
    """A wrong value, a missing file or an impossible combination of settings.

    The message names the setting and its value, the problem and the fix. A command prints it
    without a stack trace and exits with code 2.
    """


class ForcedExit(SystemExit):
    """Ctrl-C for the second time: no plots, no report."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU (two messages), the CPU's allocator or Python has no memory left."""
    pattern = "out of memory|_ALLOC_FAILED|can't allocate memory|MemoryError"
    return re.search(pattern, f"{type(error).__name__}: {error}") is not None
