"""The processes of a run under DDP. If one of them dies, the others end with a message."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING

from ganmnist.runs.resume import LAST
from ganmnist.utils.errors import UserError
from ganmnist.utils.signals import STOPPED, signal_name

if TYPE_CHECKING:
    import lightning as L

log = logging.getLogger(__name__)

PARENT = "GANMNIST_PARENT"  # environment variable of child processes: the id of their parent
GRACE_PERIOD = 15.0  # seconds for a process to end by itself after another one has died
HARMLESS = (None, 0, STOPPED)  # running, finished, interrupted


def check_folder(folder: str) -> None:
    """Raises UserError for a name that Lightning's command for child processes cannot contain."""
    if '"' in folder:
        raise UserError(
            f"hydra.run.dir={folder}: with several processes the name must not contain a double "
            "quote. Choose another folder, or one process."
        )


@contextmanager
def exit_together(
    trainer: L.Trainer, folder: Path, on_worker_lost: Callable[[str], None]
) -> Iterator[None]:
    """Ends all processes of a run if one of them dies.

    on_worker_lost: called with the message before this process is ended, if it still waits for the
        dead one after the grace period.

    Raises:
        UserError: another process has died.
    """
    if trainer.world_size == 1:
        yield
        return
    if trainer.local_rank == 0:
        os.environ[PARENT] = str(os.getpid())
    workers = Workers(trainer, folder)
    if message := workers.lost():
        raise UserError(message)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            workers.take_children()
            if (message := workers.lost()) and not over.wait(GRACE_PERIOD):
                on_worker_lost(message)
                workers.kill()
                print(f"ganmnist: {message}", file=sys.stderr, flush=True)
                os._exit(2)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except BaseException as error:
        message = workers.wait_until_lost() if is_connection_error(error) else ""
        workers.kill()
        if message:
            raise UserError(message) from error
        raise
    finally:
        over.set()


def is_connection_error(error: BaseException) -> bool:
    """Whether the end of another process may be the cause."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or "/gloo/" in str(error)


class Workers:
    """The child processes of this process, or its parent.

    Processes of a cluster's launcher are not included. The launcher ends them.
    """

    def __init__(self, trainer: L.Trainer, folder: Path) -> None:
        self.trainer = trainer
        self.folder = folder
        self.children: list[Popen[bytes]] = []

    def lost(self) -> str:
        """A message about a process that has died, or nothing."""
        if self.trainer.local_rank > 0:
            if os.environ.get(PARENT) in (None, str(os.getppid())):
                return ""
            return self.describe(self.trainer.global_rank - self.trainer.local_rank, "died")
        for rank, child in enumerate(self.children, self.trainer.global_rank + 1):
            code = child.poll()
            if code not in HARMLESS:
                how = signal_name(-code) if code < 0 else f"exit code {code}"
                return self.describe(rank, f"ended with {how}")
        return ""

    def take_children(self) -> None:
        """Takes the children from Lightning, which would kill this process without a message."""
        started = getattr(self.trainer.strategy.launcher, "procs", [])
        if not self.children and len(started) == self.trainer.num_devices - 1:
            self.children = [*started]
            started.clear()

    def describe(self, rank: int, what: str) -> str:
        saved = (self.folder / LAST).is_file()
        fix = f"Continue with resume={self.folder}" if saved else "Start again: nothing was saved"
        which = f"rank {rank} of {self.trainer.world_size}"
        return f"A process ({which}) {what}, so the run was stopped. {fix}."

    def wait_until_lost(self) -> str:
        """The same message, about a process that is about to end."""
        until = time.monotonic() + GRACE_PERIOD
        while not (message := self.lost()) and time.monotonic() < until:
            time.sleep(0.1)
        return message

    def kill(self) -> None:
        for child in self.children:
            child.kill()


def is_first() -> bool:
    """Whether this process starts the others of this machine. It takes no import of torch."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def announce_loading(folder: Path) -> None:
    """Logs that PyTorch is imported next, which takes seconds."""
    if is_first() and "torch" not in sys.modules:
        log.info("%s: loading PyTorch ...", folder)


def is_rank_zero() -> bool:
    from lightning.pytorch.utilities import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0
