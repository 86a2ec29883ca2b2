"""The built digits: their form, their labels and their reproducibility."""

import pytest
import torch
from helpers.idx import assert_same_images
from torch import Tensor

from ganmnist.data import Images, digits


def test_counts_and_types(built: tuple[Images, Images]) -> None:
    train, test = built
    assert (train.x.shape, train.x.dtype) == ((3000, 1, 28, 28), torch.uint8)
    assert (train.y.shape, train.y.dtype) == ((3000,), torch.int64)
    assert (test.x.shape, test.y.shape) == ((297, 1, 28, 28), (297,))
    assert sorted(test.y.bincount().tolist()) == [29] * 3 + [30] * 7
    assert len(train.y.unique()) == 10


def test_undistorted_digits_fill_the_box_of_20_pixels(built: tuple[Images, Images]) -> None:
    train, test = built
    for x in (test.x, train.x[:1500]):
        frame = x.clone()
        frame[..., 4:24, 4:24] = 0
        assert not frame.any()
        box = x[:, 0, 4:24, 4:24] > 0
        longer_side = torch.maximum(box.any(1).sum(1), box.any(2).sum(1))
        assert longer_side.max() == 20
        assert longer_side.float().mean() > 19.5
    assert train.x[1500:, 0, :4].any()  # distorted copies may leave the box


def test_gray_values_have_the_moments_of_mnist(built: tuple[Images, Images]) -> None:
    for images in built:
        x = images.x.double() / 255
        assert (x.amin().item(), x.amax().item()) == (0, 1)  # white on black
        torch.testing.assert_close(x.mean().item(), 0.1307, atol=0.01, rtol=0)
        torch.testing.assert_close(x.std().item(), 0.3081, atol=0.015, rtol=0)


def nearest_label(x: Tensor, reference: Images) -> Tensor:
    distances = torch.cdist(x.flatten(1).float(), reference.x.flatten(1).float())
    return reference.y[distances.argmin(1)]


def test_digits_are_recognizable_and_copies_keep_their_label(
    built: tuple[Images, Images],
) -> None:
    train, test = built
    originals = Images(train.x[:1500], train.y[:1500])
    assert (nearest_label(test.x, originals) == test.y).float().mean() > 0.95
    copies, labels = train.x[1500:], train.y[1500:]
    assert torch.equal(labels, originals.y)
    assert (nearest_label(copies, originals) == labels).float().mean() > 0.9
    assert (copies != originals.x).flatten(1).any(1).all()


def test_training_and_test_originals_are_disjoint(built: tuple[Images, Images]) -> None:
    labels = digits._originals()[1]
    train, test = digits._split(labels, torch.Generator().manual_seed(digits.VERSION))
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(1797))
    assert torch.equal(labels[train], built[0].y[:1500])
    assert torch.equal(labels[test], built[1].y)
    test_images = {image.numpy().tobytes() for image in built[1].x}
    assert not test_images & {image.numpy().tobytes() for image in built[0].x}


def test_the_digits_are_a_function_of_the_version(
    built: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.get_rng_state()
    train, test = digits.build(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(train[0][:3000], built[0].x)  # fewer copies are a prefix of more
    assert_same_images((built[0], Images(*test)), built)
    assert not torch.equal(train[0][3000:], built[0].x[1500:])
    monkeypatch.setattr(digits, "VERSION", digits.VERSION + 1)
    assert not torch.equal(digits.build(1)[1][0], built[1].x)
