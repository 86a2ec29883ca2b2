"""Fixtures: the digits in memory."""

from pathlib import Path

import pytest

from ganmnist.data import DataModule, Digits


@pytest.fixture(scope="session")
def digits(digits_root: Path) -> DataModule:
    data = DataModule(Digits(digits_root), batch_size=1)
    data.prepare_data()
    data.setup()
    return data
