"""KL divergence of the classes against closed forms."""

import math

import torch
from helpers.features import predicting, reference_set

from ganmnist.metrics import ClassKL


def test_two_classes() -> None:
    real = reference_set(test=predicting([0, 1, 1, 0]))
    values = ClassKL()(predicting([0, 0, 0, 1]), real)
    expected = {"class_kl": 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)}
    torch.testing.assert_close(values, expected)


def test_one_digit_alone_has_ln_10() -> None:
    real = reference_set(test=predicting(torch.arange(50) % 10))
    torch.testing.assert_close(ClassKL()(predicting([7] * 20), real), {"class_kl": math.log(10)})


def test_equal_frequencies_have_0() -> None:
    """Also with absent classes, other numbers of images, and several digits per image."""
    real = reference_set(test=predicting([3, 3, 5]))
    for classes in ([5, 3, 3], [3, 5] * 2 + [3] * 2, [[3, 3, 5]], [[3, 5, 3], [3, 3, 5]]):
        assert ClassKL()(predicting(classes), real) == {"class_kl": 0}


def test_a_class_without_real_images_makes_it_infinite() -> None:
    real = reference_set(test=predicting([3, 3, 5]))
    assert ClassKL()(predicting([3, 4]), real) == {"class_kl": math.inf}
