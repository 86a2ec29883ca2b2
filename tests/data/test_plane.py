"""Points in the plane: their Gaussians and their reproducibility."""

import math
from pathlib import Path

import pytest
import torch

from ganmnist.data import DataModule, Grid, Mixture, Ring
from ganmnist.data.datamodule import Loader
from ganmnist.utils.batch import concat_columns
from ganmnist.utils.errors import UserError

TWO_MODES = Mixture([[-1.0, 0.0], [1.0, 0.5]], std=0.1, scale=0.5, n=2_000)


def test_eight_centers_are_on_a_circle_of_radius_2() -> None:
    data = Ring()
    a, b = data.centers.double().T
    torch.testing.assert_close(a.hypot(b).float(), torch.full((8,), 2.0))
    torch.testing.assert_close(data.centers[0], torch.tensor([2.0, 0.0]))
    angles = torch.atan2(b, a).sort().values.diff().float()
    torch.testing.assert_close(angles, torch.full((7,), math.pi / 4))
    assert (data.name, data.std) == ("ring8", 0.02)


def test_25_centers_are_on_a_grid_from_minus_4_to_4() -> None:
    data = Grid()
    coordinates = (-4.0, -2.0, 0.0, 2.0, 4.0)
    expected = {(a, b) for a in coordinates for b in coordinates}
    assert {*map(tuple, data.centers.tolist())} == expected
    assert (data.name, len(data.centers), data.std) == ("grid25", 25, 0.05)


@pytest.mark.parametrize("data", [Ring(), Grid(), TWO_MODES], ids=lambda data: data.name)
def test_points_are_isotropic_gaussians_around_the_centers_of_their_labels(data: Mixture) -> None:
    """All statistics are within five standard errors."""
    for images, n in zip(data.load(), (data.n, 10_000), strict=True):
        assert (images.x.shape, images.x.dtype) == ((n, 2, 1, 1), torch.float32)
        assert images.x.abs().max() <= 1
        noise = images.x.flatten(1).double() / data.scale - data.centers[images.y]
        assert (noise.std(0) - data.std).abs().max() < 5 * data.std / math.sqrt(2 * n)
        assert noise.mean(0).abs().max() < 5 * data.std / math.sqrt(n)
        assert abs(noise.T.corrcoef()[0, 1]) < 5 / math.sqrt(n)
        share = 1 / len(data.centers)
        counts = images.y.bincount(minlength=len(data.centers))
        assert (counts / n - share).abs().max() < 5 * math.sqrt(share / n)


def test_points_are_always_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    data, again, other = Ring(), Ring(), Ring(std=0.03)
    for each in (data, again, other):
        each.prepare()
    (train, test), (train_again, test_again) = data.load(), again.load()
    assert torch.equal(train.x, train_again.x)
    assert torch.equal(test.y, test_again.y)
    assert not torch.equal(train.x[:10_000], test.x)
    other.load()
    assert data.checksum == again.checksum != other.checksum
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [("channels", 3), ("image_size", 2), ("modes", 0), ("n", 0), ("std", 0.0), ("scale", -1.0)],
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"data\.{setting}={value}"):
        Ring(**{setting: value})


def test_points_outside_the_range_of_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.scale=0\.5"):
        Ring(scale=0.5).load()


def test_batches_hold_the_points_unchanged() -> None:
    data = DataModule(Ring(n=64), batch_size=8)
    data.prepare_data()
    data.setup()
    assert data.shape == (2, 1, 1)
    loader = Loader(data.train, 8, seed=0, position=lambda: (0, 0, 0), image_size=1)
    x, y = concat_columns((batch.x, batch.y) for batch in loader)
    served, original = (
        {(*a, b) for a, b in zip(points.flatten(1).tolist(), labels.tolist(), strict=True)}
        for points, labels in ((x, y), data.train)
    )
    assert served == original
    assert len(served) == 64
