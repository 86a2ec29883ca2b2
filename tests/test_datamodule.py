"""Batches from memory: scaling, order, chunks, and what every process sees."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import RandomImages, fit, small_gan
from PIL import Image
from torch import Tensor
from torchvision import transforms

from ganmnist.data import DataModule, Images
from ganmnist.data.datamodule import Loader, epoch_order, to_unit_range
from ganmnist.duel import Sample
from ganmnist.errors import UserError
from ganmnist.gan import GAN


def numbered(n: int, size: int = 1) -> Images:
    """n images whose label says which one it is, grey value label % 256."""
    y = torch.arange(n)
    return Images((y % 256).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, size, size), y)


def load(
    n: int, batch_size: int, clock: tuple[int, int, int] = (0, 0, 0), **settings: Any
) -> Loader:
    return Loader(numbered(n), batch_size, seed=0, clock=lambda: clock, **settings)


def labels(loader: Loader) -> list[list[int]]:
    """The images of each batch, by number."""
    return [sample.y.tolist() for chunk in loader for sample in chunk]


# Scaling


def test_scaling_is_that_of_torchvision_in_every_bit() -> None:
    """All 256 grey values, through ToTensor and Normalize with mean and deviation 0.5."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    ours = to_unit_range(torch.from_numpy(grey).unsqueeze(0))
    torch.testing.assert_close(ours, theirs(Image.fromarray(grey)), rtol=0, atol=0)
    assert (ours.min(), ours.max()) == (-1, 1)


def test_images_keep_their_labels() -> None:
    (chunk,) = load(300, 300)
    (sample,) = chunk
    assert (sample.x.shape, sample.x.dtype) == ((300, 1, 1, 1), torch.float32)
    grey = ((sample.x.flatten() + 1) / 2 * 255).round().long()
    assert torch.equal(grey, sample.y % 256)
    assert sample.z is None


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
    assert labels(load(10, 5, clock=(4, 0, 0))) == [order[:5], order[5:]]


@pytest.mark.parametrize(("n", "world_size"), [(103, 2), (103, 3), (100, 4)])
def test_processes_share_an_epoch_in_equal_and_disjoint_parts(n: int, world_size: int) -> None:
    parts = [labels(load(n, 8, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert {len(part) for part in parts} == {n // world_size // 8}
    seen = [i for part in parts for batch in part for i in batch]
    assert len(set(seen)) == len(seen) == n // world_size // 8 * 8 * world_size
    assert set(seen) <= set(range(n))


def test_the_last_partial_batch_is_dropped() -> None:
    loader = load(60_000, 64)
    batches = labels(loader)
    assert len(batches) == len(loader) == loader.batches == 937
    assert {len(batch) for batch in batches} == {64}
    assert len({i for batch in batches for i in batch}) == 937 * 64 == 60_000 - 32


class Noting(GAN):
    """Notes what it is shown, and does not train."""

    def training_step(self, chunk: list[Sample], batch_idx: int) -> None:
        self.batches_seen += len(chunk)
        self.shown = [*getattr(self, "shown", []), *chunk]


def test_every_epoch_of_a_run_shows_each_image_at_most_once_and_in_another_order() -> None:
    gan = small_gan(Noting)
    fit(gan, batches=5, epochs=2)  # of 43 images
    x = to_unit_range(RandomImages(43).read()[0].x)
    epochs = torch.stack([sample.x for sample in gan.shown]).view(2, 40, 1, 8, 8)
    orders = [epoch_order(43, 0, epoch)[:40, 0] for epoch in range(2)]
    for shown, order in zip(epochs, orders, strict=True):
        assert torch.equal(shown, x[order])
    assert not torch.equal(*orders)


# Chunks


@pytest.mark.parametrize(
    ("clock", "intervals", "lengths"),
    [
        ((0, 0, 0), (), [4, 4, 4, 1]),
        ((0, 0, 0), (5,), [4, 1, 4, 1, 3]),
        ((1, 13, 0), (5,), [2, 4, 1, 4, 1, 1]),  # the second epoch: 15, 20, 25 batches seen
        ((1, 21, 8), (5,), [4, 1]),  # the same, gone on with after its eighth batch
        ((1, 26, 13), (5,), []),
        ((0, 0, 0), (5, 3), [3, 2, 1, 3, 1, 2, 1]),
        ((0, 0, 0), (100,), [4, 4, 4, 1]),
    ],
)
def test_chunks_end_where_intervals_do(
    clock: tuple[int, int, int], intervals: tuple[int, ...], lengths: list[int]
) -> None:
    loader = load(13 * 8 + 3, 8, clock, chunk=4, intervals=intervals)
    assert [len(chunk) for chunk in loader] == lengths
    epoch, seen, of_epoch = clock
    assert labels(loader) == labels(load(13 * 8 + 3, 8, (epoch, 0, 0)))[of_epoch:]
    ends = {seen + sum(lengths[: i + 1]) for i in range(len(lengths))}
    met = {t for i in intervals for t in range(seen + 1, seen + 14 - of_epoch) if t % i == 0}
    assert met <= ends


@pytest.mark.parametrize(("most", "batches"), [(None, 13), (5, 5), (50, 13)])
def test_an_epoch_may_be_cut_short(most: int | None, batches: int) -> None:
    whole, cut = (load(13 * 8 + 3, 8, most=m) for m in (None, most))
    assert labels(cut) == labels(whole)[:batches]
    assert cut.batches == batches


def test_intervals_are_met_across_epochs_of_a_run() -> None:
    class Stopping(Noting):
        def on_train_batch_end(self, outputs: None, batch: list[Sample], batch_idx: int) -> None:
            ends.append(self.batches_seen)

    ends: list[int] = []
    fit(small_gan(Stopping), batches=7, epochs=3, chunk=4, intervals=(5,))
    assert ends == [4, 5, 7, 10, 14, 15, 19, 20, 21]


def test_an_epoch_of_chunks_claims_no_length() -> None:
    with pytest.raises(TypeError, match="no length"):
        len(load(100, 8, chunk=4))


# Resizing


def served(image_size: int | None, images: Images) -> Tensor:
    """The images as they are served, in their own order."""
    loader = Loader(images, len(images.y), 0, clock=lambda: (0, 0, 0), image_size=image_size)
    ((sample,),) = loader
    return sample.x[sample.y.argsort()]


def test_resizing_is_bilinear_to_within_one_grey_level() -> None:
    x = RandomImages(20, size=28).read()[0].x
    ours = served(64, Images(x, torch.arange(20)))
    exact = F.interpolate(x.float(), size=64, mode="bilinear", antialias=True)
    assert ours.shape == (20, 1, 64, 64)
    grey = (ours + 1) / 2 * 255
    assert (grey - exact).abs().max() <= 1
    torch.testing.assert_close(grey, grey.round(), rtol=0, atol=1e-4)  # still whole grey levels


def test_resizing_keeps_black_and_white() -> None:
    x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 28, 28)
    ours = served(64, Images(x, torch.arange(2)))
    assert torch.equal(ours, torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 64, 64))


def test_images_of_the_right_size_are_left_alone() -> None:
    images = Images(RandomImages(20, size=28).read()[0].x, torch.arange(20))
    for image_size in (None, 28):
        assert torch.equal(served(image_size, images), to_unit_range(images.x))


@pytest.mark.parametrize(("image_size", "shape"), [(None, (3, 28, 28)), (64, (3, 64, 64))])
def test_shape_is_that_of_the_batches(image_size: int | None, shape: tuple[int, ...]) -> None:
    data = DataModule(RandomImages(9, size=28, channels=3), 4, image_size=image_size)
    data.setup()
    assert data.shape == shape
    assert served(image_size, data.train).shape[1:] == shape


# Mistakes


def test_a_batch_larger_than_the_data_set_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size=8 .* the 3 training images of random images"):
        fit(small_gan(), batches=0)


@pytest.mark.mnist
def test_mnist_is_served_with_the_mean_and_deviation_of_the_literature(mnist_root) -> None:
    """0.1307 and 0.3081 in [0, 1], so -0.7386 and 0.6162 in [-1, 1]."""
    from ganmnist.data import MNIST

    data = DataModule(MNIST(mnist_root), 64)
    data.prepare_data()
    data.setup()
    assert data.shape == (1, 28, 28)
    x = to_unit_range(data.train.x).double()
    torch.testing.assert_close(x.mean().item(), 2 * 0.1307 - 1, rtol=0, atol=1e-4)
    torch.testing.assert_close(x.std().item(), 2 * 0.3081, rtol=0, atol=1e-4)


def test_a_second_batch_goes_through_all_images_in_another_order() -> None:
    loader = load(23, 5, second_batch=True)
    halves = [sample.y.split(5) for chunk in loader for sample in chunk]
    first, second = (torch.cat(half).tolist() for half in zip(*halves, strict=True))
    assert first == [i for batch in labels(load(23, 5)) for i in batch]
    assert len({*second}) == 20
    assert second != first
    assert labels(loader) == labels(load(23, 5, second_batch=True))
    rest = load(23, 5, (0, 2, 2), second_batch=True)
    assert labels(rest) == labels(loader)[2:]
