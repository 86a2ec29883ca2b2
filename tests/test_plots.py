"""The loss plot, whatever the losses are, and the pictures of a run, however long it is."""

import gc
import math
from array import array
from pathlib import Path

import numpy as np
import pytest
from conftest import fit, small_gan
from matplotlib.figure import Figure
from PIL import Image

from ganmnist.callbacks import Scalars, scalars
from ganmnist.images import Spread
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
        f"train/{player}/loss": array("d", [x for pair in enumerate(values, 1) for x in pair])
        for player, values in (("d", d), ("g", g))
    }
    epochs = {"epoch/d/loss": [1.0, math.nan], "epoch/g/loss": [math.nan] * 2}
    plot_losses(tmp_path / "losses.png", batches, epochs, (1.4, 0.7), title="any")
    with Image.open(tmp_path / "losses.png") as picture:
        picture.load()
    assert [path.name for path in tmp_path.iterdir()] == ["losses.png"]


@pytest.mark.parametrize("count", [0, 1, 5, 9, 11, 100, 1000])
def test_a_spread_holds_few_of_many_and_shows_the_first_and_the_newest(count: int) -> None:
    spread: Spread[int] = Spread(5)
    for item in range(count):
        spread.add(item)
        assert len(spread.kept) <= 10
    shown = spread.items()
    assert len(shown) == min(count, 5)
    assert shown == sorted(set(shown))
    if count:
        assert (shown[0], shown[-1], spread.seen) == (0, count - 1, count)
    gaps = np.diff(shown)
    assert len(gaps) == 0 or gaps.max() <= 2 * max(1, count / 4)  # evenly, as far as they are kept


def test_drawings_of_a_long_run_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scalars, "REDRAW", -1.0)  # after every epoch
    gc.collect()
    gc.disable()
    try:
        fit(small_gan(), epochs=4, callbacks=[Scalars(tmp_path, 1, 100)])
        alive = sum(type(thing) is Figure for thing in gc.get_objects())
    finally:
        gc.enable()
    assert alive == 1  # the one of the run's end
