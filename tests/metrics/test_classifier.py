"""Training of the classifier."""

from helpers.gan import changed, snapshot

from ganmnist.data import DataModule
from ganmnist.metrics.classifier import accuracy, fit
from ganmnist.utils.pixels import to_signed_range


def test_training_is_a_function_of_the_seed_and_reaches_80_percent(digits: DataModule) -> None:
    x, y = to_signed_range(digits.train.x[:1500]), digits.train.y[:1500]
    first, again = (fit(x, y, epochs=2, batch_size=50) for _ in range(2))
    assert changed(snapshot(first), snapshot(again)) == set()
    assert not first.training
    assert accuracy(first, to_signed_range(digits.test.x), digits.test.y) > 0.8
