"""Reachability of mirrors."""

import inspect
from threading import Event

import pytest

from ganmnist.data import fetch
from ganmnist.data.fetch import unreachable


def test_a_failed_request_returns_its_reason(offline: list[str]) -> None:
    reason = unreachable(["http://a.invalid/", "http://b.invalid/"])
    assert reason is not None
    assert "refused" in reason
    assert set(offline) == {"http://a.invalid/", "http://b.invalid/"}


def test_a_hanging_lookup_ends_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    released = Event()

    class Response:
        def close(self) -> None: ...

    def urlopen(url: str, timeout: float) -> Response:
        if "hangs" in url:
            released.wait()
        return Response()

    monkeypatch.setattr(fetch, "urlopen", urlopen)
    try:
        reason = unreachable(["http://hangs.invalid/"], timeout=0.01)
        assert reason is not None
        assert "http://hangs.invalid/" in reason
        assert unreachable(["http://hangs.invalid/", "http://a.invalid/"]) is None
    finally:
        released.set()
    assert inspect.signature(unreachable).parameters["timeout"].default == 15
