"""The loss plot, whatever the losses are."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganmnist.plots import limits, plot_losses, smooth


def test_limits_hold_zero_and_all_but_outliers() -> None:
    values = np.linspace(1, 2, 1001)
    low, high = limits(values)
    assert low == 0
    assert 2 < high < 2.3
    low, high = limits(-values)  # Wasserstein losses
    assert -2.3 < low < -2
    assert 0 <= high < 0.3
    assert limits(np.append(values, 1000.0))[1] < 2.3
    low, high = limits(np.array([]))
    assert low == 0 < high


def test_smooth_is_a_running_mean() -> None:
    assert smooth(np.array([1.0, 2.0, 6.0, 4.0]), 2).tolist() == [1.5, 4.0, 5.0]


@pytest.mark.parametrize(
    ("d", "g"),
    [
        ([1.0, math.nan, math.inf], [0.5, math.nan, math.nan]),
        ([math.nan] * 3, [-math.inf] * 3),
        ([1.0, 2.0, 3.0], []),
    ],
)
def test_losses_that_are_not_numbers_are_left_out(
    d: list[float], g: list[float], tmp_path: Path
) -> None:
    batches = {
        f"train/{player}/loss": dict(enumerate(values, start=1))
        for player, values in (("d", d), ("g", g))
    }
    epochs = {"epoch/d/loss": [1.0, math.nan], "epoch/g/loss": [math.nan] * 2}
    plot_losses(tmp_path / "losses.png", batches, epochs, (1.4, 0.7), title="any")
    with Image.open(tmp_path / "losses.png") as picture:
        picture.load()
    assert [path.name for path in tmp_path.iterdir()] == ["losses.png"]
