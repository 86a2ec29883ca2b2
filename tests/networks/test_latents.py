"""Priors of latents, and labels of generated images."""

from typing import Any

import pytest
import torch
from helpers.gan import small_gan
from helpers.networks import small_conditional_gan

from ganmnist.networks.latents import Labels

close = torch.testing.assert_close


def test_labels_repeat_in_ascending_order() -> None:
    assert Labels(3)(7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert Labels(10, [7, 1])(5).tolist() == [7, 1, 7, 1, 7]


def test_grids_have_one_column_per_class_and_at_most_ten() -> None:
    assert [labels.columns for labels in (Labels(3), Labels(1000), Labels(10, [7, 1]))] == [
        3,
        10,
        2,
    ]


@pytest.mark.parametrize(
    ("settings", "name"),
    [((0,), "n_classes=0"), ((3, [3]), "labels"), ((3, [-1]), "labels"), ((3, []), "labels")],
)
def test_unknown_labels_are_refused(settings: tuple[Any, ...], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Labels(*settings)


def test_the_sampler_of_a_conditional_gan_repeats_the_labels() -> None:
    gan = small_conditional_gan()
    z, y = gan.sampler.prior(13, torch.Generator().manual_seed(1))
    assert y.tolist() == [*range(10), 0, 1, 2]
    close(gan.sample(z, y), torch.cat([gan.sample(z[:4], y[:4]), gan.sample(z[4:], y[4:])]))
    assert small_gan().sampler.prior(3)[1] is None
