"""The console of printed lines, tables and the progress bar."""

from __future__ import annotations

import logging
from contextlib import suppress

from rich.console import Console

console = Console(soft_wrap=True, highlight=False)

STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}


class ConsoleHandler(logging.Handler):
    """Prints log records above the progress bar.

    A full disk or a closed terminal does not end the training.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, SystemExit):  # rich exits if a pipe is closed
            console.print(self.format(record), style=STYLES.get(record.levelno), markup=False)
