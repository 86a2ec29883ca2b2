"""Fixtures: isolation of the tests, data on disk, and a finished run."""

import os
from pathlib import Path

import pytest
import torch
from helpers.config import settings_of
from helpers.launch import BRIEF
from helpers.paths import CHECKOUT

from ganmnist.data import Auto, Digits
from ganmnist.train import train


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts with the same random numbers and without the state of earlier tests."""
    torch.manual_seed(0)
    monkeypatch.setenv(Auto.decision, "")  # noted even where unset, and so undone afterwards
    monkeypatch.delenv(Auto.decision)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder with the real MNIST files."""
    configured = os.environ.get("GANMNIST_DATA")
    for root in (configured and Path(configured), CHECKOUT / "data"):
        if root and (root / "MNIST/raw/train-images-idx3-ubyte").is_file():
            return root
    pytest.skip("GANMNIST_DATA: no MNIST files there. Set it to the folder that has them.")


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without MNIST in which the digits are 3,000 training images instead of 60,000."""
    root = tmp_path_factory.mktemp("data")
    few = Digits(root, copies=2)
    few.prepare()
    few.cache.rename(Digits(root).cache)
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """The folder of a finished run: an MLP after two batches of digits."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANMNIST_DATA", str(digits_root))
        train(settings_of(f"folder={folder}", *BRIEF, "model=mlp"))
    return folder


@pytest.fixture
def data_root(digits_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `digits_root` the GANMNIST_DATA of the test."""
    monkeypatch.setenv("GANMNIST_DATA", str(digits_root))
    return digits_root
