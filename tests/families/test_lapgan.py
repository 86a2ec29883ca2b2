"""LAPGAN: inputs, losses and grids of all scales."""

import math
from functools import partial

import torch
from helpers.data import images
from helpers.gan import fit, small_gan, watch
from helpers.networks import trained_names
from torch import nn

from ganmnist.families.lapgan import LAPGAN
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks import pyramid
from ganmnist.networks.latents import Normal

close = torch.testing.assert_close


def lapgan() -> LAPGAN:
    size = {"image_size": 8, "n_scales": 3, "width": 4}
    return small_gan(
        LAPGAN,
        generator=partial(pyramid.Generator, **size),
        discriminator=partial(pyramid.Discriminator, **size),
        latent=Normal(7),
    )


def test_losses_average_over_scales() -> None:
    gan, batch = lapgan(), images()
    for last in gan.discriminator.last:
        nn.init.zeros_(last.weight)
    fake, z = gan.sample_fake(batch)
    out = DiscriminatorOutputs(gan.discriminator, gan.real_inputs(batch, z), fake)
    assert len(out.real_logits) == 3 * 8
    close(gan.objective.d_loss(out).item(), 2 * math.log(2))
    close(gan.objective.g_loss(out).item(), math.log(2))


def test_in_training_residuals_are_those_of_real_images() -> None:
    gan, batch = lapgan(), images()
    fake, z = gan.sample_fake(batch)
    real = gan.real_inputs(batch, z)
    assert torch.equal(fake.y, real.y)
    scales, us = (pyramid.untile(x, 3) for x in (real.x, real.y))
    for found, expected in zip(scales, pyramid.build_pyramid(batch.x, 3), strict=True):
        assert torch.equal(found, expected)
    for u, coarser in zip(us[:2], scales[1:], strict=True):
        close(u, pyramid.upsample(coarser))
    assert not us[2].any()


def test_both_steps_train_all_parameters_of_their_network() -> None:
    gan = lapgan()
    moved = watch(gan)
    fit(gan, batches=2)
    trained = trained_names(gan)
    assert moved["d"] & trained == trained_names(gan, "discriminator")
    assert moved["g"] & trained == trained_names(gan, "generator")


def test_the_grid_has_one_row_per_scale_enlarged_to_the_image_size() -> None:
    rows = lapgan().extra_images(images)["scales"]
    assert rows.shape == (3, 10, 1, 8, 8)
    coarse = rows[0].unfold(-2, 4, 4).unfold(-2, 4, 4)
    assert (coarse == coarse[..., :1, :1]).all()
