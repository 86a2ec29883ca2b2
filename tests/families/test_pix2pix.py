"""Image-to-image GANs: conditions, losses, samples and metrics."""

import pytest
import torch
from helpers.data import RandomImages, images
from helpers.families import small_pix2pix
from helpers.gan import fit, watch
from helpers.networks import d_8x8, trained_names

from ganmnist.data import DataModule
from ganmnist.families.pix2pix import Downsample, L1Reconstruction, UpperHalf
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.utils.batch import Batch

close = torch.testing.assert_close


def test_upper_half_has_a_black_lower_half() -> None:
    x = images().x
    y = UpperHalf()(x)
    close(y[..., :4, :], x[..., :4, :])
    assert (y[..., 4:, :] == -1).all()


def test_coarse_pixels_are_means() -> None:
    x = images().x
    y = Downsample(2)(x)
    for rows in (slice(0, 4), slice(4, 8)):
        for columns in (slice(0, 4), slice(4, 8)):
            block = x[..., rows, columns]
            close(y[..., rows, columns], block.mean((2, 3), keepdim=True).expand_as(block))
    close(Downsample(8)(x), x)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"family\.degrade\.size=0"):
        Downsample(0)
    with pytest.raises(ValueError, match=r"family\.degrade\.size=9"):
        small_pix2pix(degrade=Downsample(9))
    with pytest.raises(ValueError, match=r"family\.n_conditions=0"):
        small_pix2pix(n_conditions=0)


def test_l1_loss_of_black_for_white_is_2_times_the_weight() -> None:
    white, black = Batch(torch.ones(2, 1, 8, 8)), Batch(-torch.ones(2, 1, 8, 8))
    assert L1Reconstruction(3.0).g_loss(DiscriminatorOutputs(d_8x8(), white, black)).item() == 6.0


def test_real_and_fake_have_the_same_condition() -> None:
    gan, batch = small_pix2pix(), images()
    fake, z = gan.sample_fake(batch)
    assert torch.equal(fake.y, UpperHalf()(batch.x))
    assert torch.equal(gan.real_inputs(batch, z).y, fake.y)
    close(fake.x, gan.generator(z, fake.y))


def test_both_steps_train_all_parameters_of_their_network() -> None:
    gan = small_pix2pix()
    moved = watch(gan)
    fit(gan, batches=2)
    trained = trained_names(gan)
    assert moved["d"] & trained == trained_names(gan, "discriminator")
    assert moved["g"] & trained == trained_names(gan, "generator")


def test_samples_use_the_conditions_of_test_images() -> None:
    gan = small_pix2pix()
    fit(gan, batches=1)
    data = DataModule(RandomImages(11), 8)
    data.prepare_data()
    data.setup()
    x = data.fixed_batch("test", 5, torch.device("cpu")).x
    _, y = gan.sampler.prior(7)
    close(y, UpperHalf()(x[[0, 1, 2, 3, 4, 0, 1]]))
    loaded = small_pix2pix()
    loaded.load_state_dict(gan.state_dict())
    close(loaded.sampler.prior(7)[1], y)


def test_metrics_and_grid_of_black_translations_of_white_images() -> None:
    gan, white = small_pix2pix(), Batch(torch.ones(30, 1, 8, 8))
    gan.translate = lambda x: 0 * x
    assert gan.extra_metrics(lambda split: [white]) == {"l1": 0.5, "l1_input": 0.5}
    grid = gan.extra_images(lambda n: white)["translations"]
    assert grid.shape == (9, 10, 1, 8, 8)
    for row, expected in enumerate(3 * [UpperHalf()(white.x[:10]), 0 * white.x[:10], white.x[:10]]):
        close(grid[row], expected)


def test_conditions_are_not_labels() -> None:
    sampler = small_pix2pix().sampler
    assert sampler.conditions(3).shape == (3, 1, 8, 8)
    assert sampler.labels(3) is None
