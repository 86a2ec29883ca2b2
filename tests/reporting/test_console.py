"""Log lines in the terminal."""

import logging
import os
from contextlib import suppress

import pytest
from rich.console import Console

from ganmnist.reporting.console import ConsoleHandler


@pytest.mark.parametrize("broken", ["full disk", "closed pipe"])
def test_output_that_cannot_be_written_raises_nothing(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, start = os.pipe()
    os.close(end)
    with open("/dev/full", "w") if broken == "full disk" else os.fdopen(start, "w") as file:
        monkeypatch.setattr("ganmnist.reporting.console.console", Console(file=file))
        ConsoleHandler().handle(logging.makeLogRecord({"msg": "epoch 1"}))
        with suppress(OSError):
            file.close()
