"""The processes of one run under DDP: where one dies the others end as well, and say why."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING

from ganmnist.errors import UserError
from ganmnist.resume import LAST

if TYPE_CHECKING:
    import lightning as L

PARENT = "GANMNIST_PARENT"  # set for the processes that a run starts: who did
PATIENCE = 15.0  # seconds for a process to come out of what it does once another has died
HARMLESS = (None, 0, 130)  # alive, finished, interrupted


def check_folder(folder: str) -> None:
    """Raises UserError for a name that Lightning's command for the other processes cannot hold."""
    if '"' in folder:
        raise UserError(
            f"{folder}: a run of several processes can have no double quote in its folder's name: "
            "choose another hydra.run.dir, or one process."
        )


@contextmanager
def together(trainer: L.Trainer, folder: Path, last_words: Callable[[str], None]) -> Iterator[None]:
    """Trains as one of several processes that end together.

    last_words: told why, where a process that waits for a dead one in vain has to be cut off.

    Raises:
        UserError: another process has died.
    """
    if trainer.world_size == 1:
        yield
        return
    if trainer.local_rank == 0:
        os.environ[PARENT] = str(os.getpid())
    ranks = Ranks(trainer, folder)
    if loss := ranks.loss():
        raise UserError(loss)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            ranks.adopt()
            if (loss := ranks.loss()) and not over.wait(PATIENCE):
                last_words(loss)
                ranks.end()
                print(f"ganmnist: {loss}", file=sys.stderr, flush=True)
                os._exit(2)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except BaseException as error:
        loss = ranks.await_loss() if is_broken_off(error) else ""
        ranks.end()
        if loss:
            raise UserError(loss) from error
        raise
    finally:
        over.set()


def is_broken_off(error: BaseException) -> bool:
    """Whether an error may come of another process's end."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or "/gloo/" in str(error)


class Ranks:
    """The processes that this one has started, or the one that has started it.

    Those of a cluster's launcher are that one's to look after.
    """

    def __init__(self, trainer: L.Trainer, folder: Path) -> None:
        self.trainer = trainer
        self.folder = folder
        self.children: list[Popen[bytes]] = []

    def loss(self) -> str:
        """What is to be said of a process that has died, if one has."""
        if self.trainer.local_rank > 0:
            if os.environ.get(PARENT) in (None, str(os.getppid())):
                return ""
            return self.describe(self.trainer.global_rank - self.trainer.local_rank, "died")
        for rank, child in enumerate(self.children, self.trainer.global_rank + 1):
            code = child.poll()
            if code not in HARMLESS:
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                return self.describe(rank, f"ended with {how}")
        return ""

    def adopt(self) -> None:
        """Takes the children from Lightning, which would kill this process too, without a word."""
        started = getattr(self.trainer.strategy.launcher, "procs", [])
        if not self.children and len(started) == self.trainer.num_devices - 1:
            self.children = [*started]
            started.clear()

    def describe(self, rank: int, what: str) -> str:
        there = (self.folder / LAST).is_file()
        way = f"go on with resume={self.folder}" if there else "start again, nothing was saved yet"
        of = f"rank {rank} of {self.trainer.world_size}"
        return f"A process ({of}) {what}, so the run was stopped: {way}."

    def await_loss(self) -> str:
        """The same for a process that should have died just now."""
        until = time.monotonic() + PATIENCE
        while not (loss := self.loss()) and time.monotonic() < until:
            time.sleep(0.1)
        return loss

    def end(self) -> None:
        for child in self.children:
            child.kill()
