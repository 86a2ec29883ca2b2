"""The loss plot, and the number of images of a long run."""

import gc
import math
from array import array
from pathlib import Path

import numpy as np
import pytest
from helpers.gan import fit, small_gan
from matplotlib.figure import Figure
from PIL import Image

from ganmnist.callbacks import Scalars, scalars
from ganmnist.reporting.images import Subsampler
from ganmnist.reporting.plots import limits, plot_losses, smooth


def test_limits_include_zero_and_exclude_outliers() -> None:
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
def test_losses_that_are_not_finite_are_left_out(
    d: list[float], g: list[float], tmp_path: Path
) -> None:
    batches = {
        f"train/{network}/loss": array("d", [x for pair in enumerate(values, 1) for x in pair])
        for network, values in (("d", d), ("g", g))
    }
    epochs = {"epoch/d/loss": [1.0, math.nan], "epoch/g/loss": [math.nan] * 2}
    plot_losses(tmp_path / "losses.png", batches, epochs, (1.4, 0.7), title="any")
    with Image.open(tmp_path / "losses.png") as image:
        image.load()
    assert [path.name for path in tmp_path.iterdir()] == ["losses.png"]


@pytest.mark.parametrize("count", [0, 1, 5, 9, 11, 100, 1000])
def test_subsampler_keeps_the_first_and_the_newest(count: int) -> None:
    subsampler: Subsampler[int] = Subsampler(5)
    for item in range(count):
        subsampler.add(item)
        assert len(subsampler.kept) <= 10
    items = subsampler.items()
    assert len(items) == min(count, 5)
    assert items == sorted(set(items))
    if count:
        assert (items[0], items[-1], subsampler.seen) == (0, count - 1, count)
    gaps = np.diff(items)
    assert len(gaps) == 0 or gaps.max() <= 2 * max(1, count / 4)


def test_figures_of_a_long_run_are_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalars, "PLOT_SECONDS", -1.0)  # a plot after every epoch
    gc.collect()
    gc.disable()
    try:
        fit(small_gan(), epochs=4, callbacks=[Scalars(tmp_path, 1, 100)])
        alive = sum(type(thing) is Figure for thing in gc.get_objects())
    finally:
        gc.enable()
    assert alive == 1  # that of the end of the run
