"""A function in a process of its own: a job of a sweep leaves no memory behind."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from ganmnist.utils.signals import STOPPED, active_signals

log = logging.getLogger(__name__)

# This process has imported torch for its children, and uses it for nothing else.
_prepared_to_fork = False


def prepare_to_fork() -> None:
    """Imports what a run needs, if this process has not used torch yet. Its children inherit it.

    A process with threads of PyTorch or with a CUDA context must not fork: its children would
    hang. Every child imports everything then, which takes seconds.
    """
    global _prepared_to_fork
    if sys.platform == "linux" and "torch" not in sys.modules:
        import ganmnist.callbacks
        import ganmnist.data
        import ganmnist.gan
        import ganmnist.metrics
        import ganmnist.reporting.report  # noqa: F401

        _prepared_to_fork = True


def run_in_child(function: Callable[[], int]) -> int:
    """The exit code of a function in a new process; below 0: minus the signal that killed it.

    Signals to this process go to the child.

    Raises:
        KeyboardInterrupt: there was a signal.
    """
    method = "fork" if _prepared_to_fork else "spawn"
    process: Any = get_context(method).Process(target=start, args=(function, os.getpid()))  # type: ignore[attr-defined]
    received: list[int] = []
    parent = os.getpid()

    def forward(number: int, frame: Any) -> None:
        if os.getpid() != parent:  # a forked child that has not set its own handlers yet
            os._exit(STOPPED)
        received.append(number)
        if process.pid:
            os.kill(process.pid, number)

    with handlers(forward):
        process.start()
        for number in [*received]:  # it came before the child had a process id
            os.kill(process.pid, number)
        process.join()
    if received:
        raise KeyboardInterrupt
    return int(process.exitcode)


@contextmanager
def handlers(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Replaces the handlers of the signals that end a run, in the main thread."""
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, handler) for number in active_signals()}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def start(function: Callable[[], int], parent: int) -> None:
    """Runs in the child. It leaves the terminal's group, because its parent forwards Ctrl-C."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    for number in active_signals():
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    sys.exit(function())


def end_with(parent: int) -> None:
    """Ends this process as SIGTERM does if its parent has died."""
    while os.getppid() == parent:
        time.sleep(1)
    log.warning("The sweep was killed: stopping this job.")
    os.kill(os.getpid(), signal.SIGTERM)
