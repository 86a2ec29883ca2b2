"""Batches from memory: scaling, order, chunks, and the shares of the processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.data import RandomImages
from helpers.gan import changed, fit, small_gan
from PIL import Image
from torch import Tensor
from torchvision import transforms

from ganmnist.data import MNIST, DataModule, Images
from ganmnist.data.datamodule import Loader, epoch_order
from ganmnist.gan import GAN
from ganmnist.utils.batch import Batch
from ganmnist.utils.errors import UserError
from ganmnist.utils.pixels import to_signed_range

CPU = torch.device("cpu")


def numbered_images(n: int) -> Images:
    """n images of one pixel. Image i has the label i and the gray value i % 256."""
    y = torch.arange(n)
    return Images((y % 256).to(torch.uint8).view(-1, 1, 1, 1), y)


def make_loader(
    n: int, batch_size: int, position: tuple[int, int, int] = (0, 0, 0), **settings: Any
) -> Loader:
    return Loader(numbered_images(n), batch_size, seed=0, position=lambda: position, **settings)


def batches_of(loader: Loader) -> list[Batch]:
    """The batches of an epoch, also of a loader that yields lists."""
    items = [item if isinstance(item, list) else [item] for item in loader]
    return [batch for item in items for batch in item]


def labels_of(loader: Loader) -> list[list[int]]:
    """The numbers of the images in each batch."""
    return [batch.condition.tolist() for batch in batches_of(loader)]


def data_module(n: int, batch_size: int = 8, **settings: Any) -> DataModule:
    data = DataModule(RandomImages(n, **settings), batch_size)
    data.prepare_data()
    data.setup()
    return data


# Scaling


def test_scaling_equals_that_of_torchvision_bit_by_bit() -> None:
    """All 256 gray values, through ToTensor and Normalize with mean and deviation 0.5."""
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    x = to_signed_range(torch.from_numpy(gray).unsqueeze(0))
    torch.testing.assert_close(x, reference(Image.fromarray(gray)), rtol=0, atol=0)
    assert (x.min(), x.max()) == (-1, 1)


def test_images_keep_their_labels() -> None:
    (batch,) = batches_of(make_loader(300, 300))
    assert (batch.x.shape, batch.x.dtype) == ((300, 1, 1, 1), torch.float32)
    gray = ((batch.x.flatten() + 1) / 2 * 255).round().long()
    assert torch.equal(gray, batch.condition % 256)
    assert batch.z is None


@pytest.mark.mnist
def test_mnist_has_the_published_mean_and_deviation(mnist_root: Path) -> None:
    """0.1307 and 0.3081 in [0, 1], which are -0.7386 and 0.6162 in [-1, 1]."""
    data = DataModule(MNIST(mnist_root), 64)
    data.prepare_data()
    data.setup()
    assert (data.shape, data.n_classes) == ((1, 28, 28), 10)
    x = to_signed_range(data.train.x).double()
    torch.testing.assert_close(x.mean().item(), 2 * 0.1307 - 1, rtol=0, atol=1e-4)
    torch.testing.assert_close(x.std().item(), 2 * 0.3081, rtol=0, atol=1e-4)


# Order


def test_the_order_of_an_epoch_is_a_permutation() -> None:
    order = epoch_order(1000, seed=3, epoch=2)
    assert order.shape == (1000, 1)
    assert sorted(order.flatten().tolist()) == list(range(1000))


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    torch.manual_seed(1)
    first = epoch_order(1000, seed=3, epoch=2)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(epoch_order(1000, seed=3, epoch=2), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(epoch_order(1000, seed=4, epoch=2), first)
    assert not torch.equal(epoch_order(1000, seed=3, epoch=3), first)


def test_batches_follow_the_order() -> None:
    order = epoch_order(10, seed=0, epoch=4).flatten().tolist()
    assert labels_of(make_loader(10, 5, (4, 0, 0))) == [order[:5], order[5:]]


@pytest.mark.parametrize(("n", "world_size"), [(103, 2), (103, 3), (100, 4)])
def test_processes_have_equal_and_disjoint_shares_of_an_epoch(n: int, world_size: int) -> None:
    shares = [
        labels_of(make_loader(n, 8, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    assert {len(share) for share in shares} == {n // world_size // 8}
    seen = [i for share in shares for batch in share for i in batch]
    assert len(set(seen)) == len(seen) == n // world_size // 8 * 8 * world_size
    assert set(seen) <= set(range(n))


def test_the_last_partial_batch_is_dropped() -> None:
    loader = make_loader(60_000, 64)
    batches = labels_of(loader)
    assert len(batches) == len(loader) == loader.n_batches == 937
    assert {len(batch) for batch in batches} == {64}
    assert len({i for batch in batches for i in batch}) == 937 * 64 == 60_000 - 32


@pytest.mark.parametrize(("max_batches", "batches"), [(None, 13), (5, 5), (50, 13)])
def test_max_batches_limits_an_epoch(max_batches: int | None, batches: int) -> None:
    full, limited = (make_loader(13 * 8 + 3, 8, max_batches=m) for m in (None, max_batches))
    assert labels_of(limited) == labels_of(full)[:batches]
    assert limited.n_batches == batches


def test_the_second_half_of_a_batch_has_another_order() -> None:
    loader = make_loader(23, 5, second_batch=True)
    halves = [batch.condition.split(5) for batch in batches_of(loader)]
    first, second = (torch.cat(half).tolist() for half in zip(*halves, strict=True))
    assert first == [i for batch in labels_of(make_loader(23, 5)) for i in batch]
    assert len({*second}) == 20
    assert second != first
    assert labels_of(loader) == labels_of(make_loader(23, 5, second_batch=True))
    resumed = make_loader(23, 5, (0, 2, 2), second_batch=True)
    assert labels_of(resumed) == labels_of(loader)[2:]


class Recorder(GAN):
    """Records its batches instead of training."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.batches: list[Batch] = []
        self.hook_calls: list[tuple[type, int]] = []

    def training_step(self, batch: Batch | list[Batch], batch_idx: int) -> None:
        batches = batch if isinstance(batch, list) else [batch]
        self.state.batches_seen += len(batches)
        self.batches += batches

    def on_train_batch_end(self, outputs: None, batch: Batch | list[Batch], batch_idx: int) -> None:
        self.hook_calls.append((type(batch), self.state.batches_seen))


def recorder() -> Recorder:
    gan = small_gan(Recorder)
    assert isinstance(gan, Recorder)
    return gan


def test_each_epoch_of_a_run_has_each_image_at_most_once_in_a_new_order() -> None:
    gan = recorder()
    fit(gan, batches=5, epochs=2)  # of 43 images
    x = to_signed_range(RandomImages(43).read()[0].x)
    epochs = torch.stack([batch.x for batch in gan.batches]).view(2, 40, 1, 8, 8)
    orders = [epoch_order(43, 0, epoch)[:40, 0] for epoch in range(2)]
    for images, order in zip(epochs, orders, strict=True):
        assert torch.equal(images, x[order])
    assert not torch.equal(*orders)


# Chunks


def test_a_loader_yields_batches_or_lists_of_batches() -> None:
    assert [type(item) for item in make_loader(24, 8)] == [Batch] * 3
    lists = [*make_loader(24, 8, chunk=2)]
    assert [type(item) for item in lists] == [list] * 2
    assert [len(item) for item in lists] == [2, 1]
    assert labels_of(make_loader(24, 8, chunk=2)) == labels_of(make_loader(24, 8))


@pytest.mark.parametrize(
    ("position", "intervals", "lengths"),
    [
        ((0, 0, 0), (), [4, 4, 4, 1]),
        ((0, 0, 0), (5,), [4, 1, 4, 1, 3]),
        ((1, 13, 0), (5,), [2, 4, 1, 4, 1, 1]),  # the second epoch: 15, 20, 25 batches seen
        ((1, 21, 8), (5,), [4, 1]),  # the same, resumed after its eighth batch
        ((1, 26, 13), (5,), []),
        ((0, 0, 0), (5, 3), [3, 2, 1, 3, 1, 2, 1]),
        ((0, 0, 0), (100,), [4, 4, 4, 1]),
    ],
)
def test_chunks_end_at_multiples_of_the_intervals(
    position: tuple[int, int, int], intervals: tuple[int, ...], lengths: list[int]
) -> None:
    loader = make_loader(13 * 8 + 3, 8, position, chunk=4, intervals=intervals)
    assert [len(chunk) for chunk in loader] == lengths
    epoch, seen, of_epoch = position
    assert labels_of(loader) == labels_of(make_loader(13 * 8 + 3, 8, (epoch, 0, 0)))[of_epoch:]
    ends = {seen + sum(lengths[: i + 1]) for i in range(len(lengths))}
    multiples = {t for i in intervals for t in range(seen + 1, seen + 14 - of_epoch) if t % i == 0}
    assert multiples <= ends


def test_callbacks_run_once_per_item() -> None:
    by_batch, by_chunk = recorder(), recorder()
    fit(by_batch, batches=7, epochs=3)
    assert by_batch.hook_calls == [(Batch, i + 1) for i in range(21)]
    fit(by_chunk, batches=7, epochs=3, chunk=4, intervals=(5,))
    assert by_chunk.hook_calls == [(list, i) for i in (4, 5, 7, 10, 14, 15, 19, 20, 21)]


def test_training_is_the_same_with_chunks() -> None:
    by_batch, by_chunk = small_gan(), small_gan()
    fit(by_batch, batches=7, epochs=2)
    fit(by_chunk, batches=7, epochs=2, chunk=4, intervals=(5,))
    assert changed(by_batch.state_dict(), by_chunk.state_dict()) == set()


def test_a_loader_of_chunks_has_no_length() -> None:
    with pytest.raises(TypeError, match=r"datamodule\.chunk"):
        len(make_loader(100, 8, chunk=4))
    with pytest.raises(ValueError, match=r"datamodule\.chunk=0"):
        DataModule(RandomImages(9), 4, chunk=0)


# Resizing


def resized(image_size: int | None, images: Images) -> Tensor:
    """The images of one batch, sorted by label."""
    n = len(images.y)
    (batch,) = batches_of(Loader(images, n, 0, lambda: (0, 0, 0), image_size=image_size))
    return batch.x[batch.condition.argsort()]


def test_resizing_is_bilinear_to_within_one_gray_level() -> None:
    x = RandomImages(20, size=28).read()[0].x
    actual = resized(64, Images(x, torch.arange(20)))
    exact = F.interpolate(x.float(), size=64, mode="bilinear", antialias=True)
    assert actual.shape == (20, 1, 64, 64)
    gray = (actual + 1) / 2 * 255
    assert (gray - exact).abs().max() <= 1
    torch.testing.assert_close(gray, gray.round(), rtol=0, atol=1e-4)  # whole gray levels


def test_resizing_keeps_black_and_white() -> None:
    x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 28, 28)
    actual = resized(64, Images(x, torch.arange(2)))
    assert torch.equal(actual, torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 64, 64))


def test_images_of_the_right_size_are_not_resized() -> None:
    images = Images(RandomImages(20, size=28).read()[0].x, torch.arange(20))
    for image_size in (None, 28):
        assert torch.equal(resized(image_size, images), to_signed_range(images.x))


@pytest.mark.parametrize(("image_size", "shape"), [(None, (3, 28, 28)), (64, (3, 64, 64))])
def test_shape_is_that_of_the_batches(image_size: int | None, shape: tuple[int, ...]) -> None:
    data = data_module(9, size=28, channels=3)
    data.dataset.image_size = image_size
    assert data.shape == shape
    assert data.fixed_batch("test", 4, CPU).x.shape[1:] == shape
    assert resized(image_size, data.train).shape[1:] == shape


# Fixed batches


def index_of(x: Tensor, images: Images) -> int:
    """The index of the only image that equals x (C, H, W) in [-1, 1]."""
    (index,) = (to_signed_range(images.x) == x).flatten(1).all(1).nonzero()
    return int(index)


def test_fixed_batches_are_always_the_same_and_keep_their_labels() -> None:
    data = data_module(20)
    first, again = (data.fixed_batch("train", 7, CPU) for _ in range(2))
    assert torch.equal(first.x, again.x)
    for x, y in zip(first.x, first.condition, strict=True):
        assert data.train.y[index_of(x, data.train)] == y
    assert len(data.fixed_batch("test", 99, CPU).x) == 16
    batches = [*data.batches("train", CPU, n=7)]
    assert torch.equal(batches[0].x, first.x)
    labels = [int(y) for batch in batches for y in batch.condition]
    assert sorted(labels) == sorted(data.train.y.tolist())


def test_a_labeled_subset_is_balanced_and_a_function_of_the_seed() -> None:
    data = data_module(60)
    first, again, other = (data.labeled_subset(30, seed, CPU) for seed in (0, 0, 1))
    assert first.condition.tolist() == [*range(10)] * 3
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)
    for x, y in zip(first.x, first.condition, strict=True):
        assert data.train.y[index_of(x, data.train)] == y


@pytest.mark.parametrize(("n", "fix"), [(25, "10"), (0, "10"), (80, "60")])
def test_an_unbalanced_labeled_subset_is_refused(n: int, fix: str) -> None:
    """60 images have 6 of each of ten classes."""
    with pytest.raises(UserError, match=rf"family\.labeled={n}:.* {fix}\b"):
        data_module(60).labeled_subset(n, 0, CPU)


# Mistakes


def test_a_batch_larger_than_the_data_set_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size=8: .* 3 training images"):
        fit(small_gan(), batches=0)


def test_a_fraction_of_batches_is_refused() -> None:
    with pytest.raises(UserError, match=r"trainer\.limit_train_batches=0\.5"):
        fit(small_gan(), limit_train_batches=0.5)
