"""What a user can do something about, told apart from what is a bug of ours."""

import re


class UserError(Exception):
    """A mistake of the user's: a wrong value, a missing file, an impossible combination.

    Its message is one sentence that names the value and the way out. Entry points print it
    without a stack trace and exit with code 2.
    """


class Hurry(SystemExit):
    """Ctrl-C for the second time: what is saved is saved, and nothing is drawn."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether it says that a GPU's memory (two ways), a CPU's or Python's has come to its end."""
    said = "out of memory|_ALLOC_FAILED|can't allocate memory|MemoryError"
    return re.search(said, f"{type(error).__name__}: {error}") is not None
