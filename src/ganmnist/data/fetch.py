"""Checks the network, and lets one process at a time write a data set."""

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
    """Requests all URLs at once. None if one responds, otherwise the first reason of failure.

    Args:
        urls: at least one. Nothing is downloaded.
        timeout: seconds to wait.
    """
    results: SimpleQueue[str | None] = SimpleQueue()

    def request(url: str) -> None:
        try:
            urlopen(url, timeout=timeout).close()
        except (OSError, HTTPException) as error:
            results.put(f"{url}: {error}")
        else:
            results.put(None)

    # A socket's timeout does not cover the lookup of its name, which may hang for minutes. Daemon
    # threads do not delay the exit of the program.
    for url in urls:
        Thread(target=request, args=(url,), daemon=True).start()
    deadline = monotonic() + timeout
    reasons: list[str] = []
    while len(reasons) < len(urls):
        try:
            reason = results.get(timeout=max(0.0, deadline - monotonic()))
        except Empty:
            return f"no response from {urls[0]} within {timeout:g} s"
        if reason is None:
            return None
        reasons.append(reason)
    return reasons[0]


@contextmanager
def locked_tempdir(root: Path, name: str) -> Iterator[Path]:
    """Holds the lock of `name` in `root`, and yields a temporary folder.

    One process at a time is inside; others wait. The temporary folder is on root's file system, and
    os.replace moves files from it into root atomically.

    Raises:
        OSError: `root` cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (
        FileLock(root / f".{name}.lock"),
        TemporaryDirectory(prefix=f".{name}.", dir=root) as folder,
    ):
        yield Path(folder)
