"""Fixtures: small MNIST files, a network that fails or responds, and built digits."""

from urllib.error import URLError

import pytest
import torchvision
from helpers.idx import Mirror, md5_of, tiny_files

from ganmnist.data import MNIST, Images, datasets, digits, fetch


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Small files whose checksums MNIST accepts during the test."""
    files = tiny_files()
    monkeypatch.setattr(MNIST, "md5", md5_of(files))
    return files


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request fails at once. Returns the requested URLs."""
    requested: list[str] = []

    def fail(url: str, timeout: float) -> None:
        requested.append(url)
        raise URLError("refused")

    monkeypatch.setattr(fetch, "urlopen", fail)
    return requested


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tiny: dict[str, bytes]) -> Mirror:
    """A reachable mirror with the small files."""
    mirror = Mirror("MNIST/raw", tiny)
    monkeypatch.setattr(torchvision.datasets, "MNIST", mirror)
    monkeypatch.setattr(datasets, "unreachable", lambda urls: None)
    return mirror


@pytest.fixture(scope="session")
def built() -> tuple[Images, Images]:
    """The digits with two copies of each original."""
    train, test = digits.build(2)
    return Images(*train), Images(*test)


@pytest.fixture
def builds(built: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Building the digits returns `built` at once. Returns the requested numbers of copies."""
    calls: list[int] = []

    def build(copies: int) -> tuple[Images, Images]:
        calls.append(copies)
        return built

    monkeypatch.setattr(digits, "build", build)
    return calls
