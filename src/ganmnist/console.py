"""The terminal: one console for printed lines, the progress bar and tables alike."""

from __future__ import annotations

import logging
from contextlib import suppress

from rich.console import Console

console = Console(soft_wrap=True, highlight=False)

STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}


class ConsoleHandler(logging.Handler):
    """Prints log records above a live progress bar instead of through it.

    That nobody can read them, since the disk or the terminal behind is gone, ends no training.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, SystemExit):  # rich leaves where a pipe is closed
            console.print(self.format(record), style=STYLES.get(record.levelno), markup=False)
