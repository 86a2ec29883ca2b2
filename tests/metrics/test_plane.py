"""Metrics of points in the plane against closed forms."""

import math
from pathlib import Path

import pytest
import torch
from helpers.features import reference_set
from torch import Tensor

from ganmnist.data import Digits, Grid, Mixture, Ring
from ganmnist.metrics import FeatureBatch, ModesCaptured, PlaneEvaluator
from ganmnist.metrics.plane import PointFeatures, count_modes
from ganmnist.utils.errors import UserError

TWO_MODES = Mixture([[-1.0, 0.0], [1.0, 0.5]], std=0.1, scale=0.5, n=2_000)
RING = Ring().centers
ONE_MODE_JSD = (math.log(16 / 9) + math.log(2 / 9) / 8 + 7 * math.log(2) / 8) / 2


def features_of(points: list[tuple[float, float]] | Tensor, data: Mixture) -> FeatureBatch:
    x = data.scale * torch.as_tensor(points, dtype=torch.float64)
    return PointFeatures(data)(x[..., None, None])


def test_features_are_the_points_and_logits_are_log_densities() -> None:
    batch = features_of([(1.0, 0.5), (-1.0, 0.2)], TWO_MODES)
    torch.testing.assert_close(batch.features, torch.tensor([[1.0, 0.5], [-1.0, 0.2]]).double())
    assert batch.predicted_classes.tolist() == [[1], [0]]
    assert batch.logits[1, 0, 0].item() == pytest.approx(-2)  # two standard deviations
    assert batch.logits[0, 0, 1].item() == pytest.approx(0)


@pytest.mark.parametrize(
    ("points", "modes", "high_quality", "jsd"),
    [
        (RING, 8, 1, 0),
        (RING[[3]].repeat(5, 1), 1, 1, ONE_MODE_JSD),
        (torch.zeros(4, 2), 0, 0, math.log(2)),
        (torch.cat([RING[:4], torch.zeros(4, 2)]), 4, 0.5, None),
        (torch.tensor([[2 + 2.99 * 0.02, 0.0]]), 1, 1, None),
        (torch.tensor([[2 + 3.01 * 0.02, 0.0]]), 0, 0, None),
        (torch.tensor([[2.0, 0.0]]) + 2.2 * 0.02, 0, 0, None),  # inside the square, not the circle
    ],
)
def test_modes_quality_and_divergence(
    points: Tensor, modes: int, high_quality: float, jsd: float | None
) -> None:
    values = count_modes(features_of(points, Ring()))
    assert (values["modes"], values["high_quality"]) == (modes, high_quality)
    if jsd is not None:
        assert values["jsd"] == pytest.approx(jsd, abs=1e-12)


@pytest.mark.parametrize("data", [Ring(), Grid()], ids=lambda data: data.name)
def test_real_points_have_all_modes_and_the_quality_of_gaussians(data: Mixture) -> None:
    _, test = data.load()
    values = count_modes(PointFeatures(data)(test.x))
    share = 1 - math.exp(-(3**2) / 2)
    assert values["modes"] == len(data.centers)
    error = math.sqrt(share * (1 - share) / len(test.x))
    assert abs(values["high_quality"] - share) < 5 * error
    assert 0 < values["jsd"] < 1 - share


def test_the_table_has_the_values_of_real_points() -> None:
    real = reference_set(test=features_of(TWO_MODES.centers, TWO_MODES))
    values = ModesCaptured()(features_of(TWO_MODES.centers[[0]], TWO_MODES), real)
    assert (values["modes"], values["real_modes"]) == (1, 2)
    assert (values["high_quality"], values["real_high_quality"]) == (1, 1)
    assert values["real_jsd"] == 0


def test_data_other_than_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="metrics=plane"):
        PlaneEvaluator({}).build_extractor(Digits(tmp_path), "cpu")
