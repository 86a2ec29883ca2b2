"""Properties of all metrics, and the reference set."""

import math

import pytest
import torch
from helpers.data import RandomImages
from helpers.features import feature_batch, normal, reference_set
from torch import Tensor

from ganmnist.metrics import (
    FID,
    KID,
    PRDC,
    ClassKL,
    FeatureBatch,
    InceptionScore,
    Memorization,
    Metric,
    Modes,
    ReferenceSet,
)

TABLE = [
    FID(),
    KID(subsets=3, subset_size=20),
    InceptionScore(),
    PRDC(),
    ClassKL(),
    Memorization(),
    Modes(),
]
every_metric = pytest.mark.parametrize("metric", TABLE, ids=lambda metric: type(metric).__name__)


def random_batches() -> tuple[FeatureBatch, ReferenceSet]:
    names = ("test", "validation", "train")
    return feature_batch(normal(200, 4)), reference_set(
        **{name: feature_batch(normal(200, 4)) for name in names}
    )


@every_metric
def test_a_metric_is_repeatable_and_keeps_the_global_generator(metric: Metric) -> None:
    fake, real = random_batches()
    before = torch.get_rng_state()
    first = metric(fake, real)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert metric(fake, real) == first
    assert all(type(value) is float and math.isfinite(value) for value in first.values())


@every_metric
def test_a_metric_does_not_change_its_inputs(metric: Metric) -> None:
    fake, real = random_batches()
    sides = [fake, *vars(real).values()]
    before = [[tensor.clone() for tensor in side[:3]] for side in sides]
    metric(fake, real)
    torch.testing.assert_close([list(side[:3]) for side in sides], before, rtol=0, atol=0)


@every_metric
def test_a_metric_does_not_wait_for_other_processes(
    metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one process measures. By default torchmetrics gathers from all."""
    fake, real = random_batches()
    expected = metric(fake, real)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert metric(fake, real) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_metric
def test_a_metric_of_features_on_a_gpu(metric: Metric) -> None:
    fake, real = random_batches()
    on_gpu = reference_set(
        **{n: FeatureBatch(*(t.cuda() for t in batch)) for n, batch in vars(real).items()}
    )
    actual = metric(FeatureBatch(*(tensor.cuda() for tensor in fake)), on_gpu)
    torch.testing.assert_close(actual, metric(fake, real))


# The reference set


def test_features_of_real_images_are_computed_once() -> None:
    data = RandomImages(27)
    train, test = data.load()
    sizes = []

    def extractor(images: Tensor) -> FeatureBatch:
        sizes.append(len(images))
        return feature_batch(images.flatten(1).double())

    real = ReferenceSet(extractor, data, train, test, 5)
    for _ in range(2):
        assert {tuple(row) for row in real.test.features.tolist()} == rows(test.x)
        assert {tuple(row) for row in real.train.features.tolist()} == rows(train.x)
        chosen = {tuple(row) for row in real.validation.features.tolist()}
        assert len(chosen) == 5
        assert chosen < rows(train.x)
    assert sizes == [16, 27, 5]


def rows(images: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in images.flatten(1).double().tolist()}
