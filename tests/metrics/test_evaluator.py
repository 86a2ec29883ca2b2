"""The evaluation protocol."""

from typing import Any

import pytest
from helpers.gan import small_gan

from ganmnist.data import DataModule
from ganmnist.metrics import FID, PRDC, Evaluator, ReferenceSet
from ganmnist.metrics.evaluator import key_of
from ganmnist.utils.errors import UserError


def test_the_same_weights_have_the_same_values(digits: DataModule) -> None:
    def measure() -> dict[str, float]:
        evaluator = Evaluator({"fid": FID()}, n=150, val_n=120)
        evaluator.prepare(digits)
        images = evaluator.sample(gan, evaluator.n)
        return {
            **evaluator.measure(evaluator.extractor(images)),
            **evaluator.validate(images[:120]),
            "floor": evaluator.val_fid_floor,
        }

    gan = small_gan()
    first = measure()
    gan.sample(3)  # advances the global generator
    assert measure() == first
    names = {"digits_fid", "digits_fid_floor"}
    names |= {f"digits_val_{name}" for name in ("fid", "coverage", "class_entropy")}
    assert first.keys() == {*names, "floor"}


def test_reference_sets_are_reused_by_an_equal_protocol(digits: DataModule) -> None:
    def real(n: int) -> ReferenceSet:
        evaluator = Evaluator({"fid": FID()}, n=n, val_n=120)
        evaluator.prepare(digits)
        return evaluator.real

    first, same, larger = real(150), real(150), real(250)
    assert same is first
    assert larger is not first
    assert len(larger.validation.features) == 250


def test_keys_name_other_data_than_mnist() -> None:
    assert key_of("fid", "MNIST") == "fid"
    assert key_of("modes", "StackedMNIST") == "stackedmnist_modes"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"n": 1}, r"metrics\.n=1"),
        ({"val_n": 1}, r"metrics\.val_n=1"),
        ({"n": 5}, r"n=5 .*metrics\.table\.prdc"),
    ],
)
def test_too_few_images_are_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=name):
        Evaluator({"prdc": PRDC(k=5)}, **settings)
