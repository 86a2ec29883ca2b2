"""What getting data onto a disk needs: knowing soon that there is no network, and taking turns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from time import monotonic
from urllib.request import urlopen

from filelock import FileLock


def unreachable(urls: Sequence[str], timeout: float = 15.0) -> str | None:
    """Ask all URLs at once: None as soon as one answers, else why none does.

    Args:
        urls: at least one; asked for, not downloaded.
        timeout: seconds after which silence counts as no.
    """
    answers: SimpleQueue[str | None] = SimpleQueue()

    def ask(url: str) -> None:
        try:
            urlopen(url, timeout=timeout).close()
        except (OSError, HTTPException) as error:
            answers.put(f"{url}: {error}")
        else:
            answers.put(None)

    # A socket's timeout does not cover the look-up of its name, which may hang for minutes, so
    # that the threads are daemons: abandoned when time is up, and nothing waits for them at exit.
    for url in urls:
        Thread(target=ask, args=(url,), daemon=True).start()
    deadline = monotonic() + timeout
    reasons: list[str] = []
    while len(reasons) < len(urls):
        try:
            reason = answers.get(timeout=max(0.0, deadline - monotonic()))
        except Empty:
            return f"no answer from {urls[0]} within {timeout:g} s"
        if reason is None:
            return None
        reasons.append(reason)
    return reasons[0]


@contextmanager
def workshop(root: Path, name: str) -> Iterator[Path]:
    """Hold `name`'s lock in `root`, with a scratch folder that is gone afterwards.

    One process at a time is inside, the others wait. The scratch folder is on root's own file
    system, so that os.replace moves what was made there in whole.

    Raises:
        OSError: `root` cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (
        FileLock(root / f".{name}.lock"),
        TemporaryDirectory(prefix=f".{name}.", dir=root) as scratch,
    ):
        yield Path(scratch)
