"""The auxiliary classifier of ACGAN."""

import math

import torch
import torch.nn.functional as F
from helpers.data import images
from helpers.gan import fit, watch
from helpers.networks import d_8x8, small_conditional_gan, trained_names
from torch import nn

from ganmnist.losses.auxiliary import AuxiliaryClassifier
from ganmnist.losses.outputs import DiscriminatorOutputs

close = torch.testing.assert_close


def test_a_constant_head_has_the_loss_ln_10_per_batch() -> None:
    d, term = d_8x8(), AuxiliaryClassifier(10, weight=0.5)
    term.setup(nn.Identity(), d)
    nn.init.zeros_(term.head.weight)
    nn.init.zeros_(term.head.bias)
    out = DiscriminatorOutputs(d, images(), images())
    close(term.d_loss(out).item(), math.log(10))
    close(term.g_loss(out).item(), math.log(10) / 2)


def test_a_perfect_head_has_the_loss_0() -> None:
    d, term = d_8x8(), AuxiliaryClassifier(10)
    term.setup(nn.Identity(), d)
    with torch.no_grad():
        term.head.weight.zero_()
        term.head.bias.copy_(1e3 * F.one_hot(torch.tensor(3), 10))
    batch = images()._replace(y=torch.full((8,), 3))
    out = DiscriminatorOutputs(d, batch, batch)
    assert term.d_loss(out).item() == term.g_loss(out).item() == 0.0


def test_only_the_discriminator_step_trains_the_head() -> None:
    gan = small_conditional_gan(auxiliary={"acgan": AuxiliaryClassifier(10)})
    moved = watch(gan)
    fit(gan, batches=2)
    trained = trained_names(gan)
    assert moved["d"] & trained == trained_names(gan, "discriminator", "loss_terms.acgan")
    assert moved["g"] & trained == trained_names(gan, "generator")


def test_fakes_have_the_labels_of_the_real_batch() -> None:
    gan, batch = small_conditional_gan(), images()
    fake, z = gan.sample_fake(batch)
    close(fake.y, batch.y)
    close(fake.x, gan.generator(z, batch.y))
