"""BiGAN: the encoder's loss, its training and its metrics."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers.data import images
from helpers.families import encoder, joint_discriminator, small_aae, small_bigan
from helpers.gan import changed, fit, snapshot, watch
from helpers.networks import d_8x8, trained_names
from torch import Tensor, nn

from ganmnist.families.bigan import BiGANObjective, nn_accuracy
from ganmnist.families.encoder_gan import squared_distance
from ganmnist.losses.adversarial import (
    BCE,
    KL,
    DiscriminatorOnly,
    Hinge,
    LeastSquares,
    Objective,
    Pearson,
    ReverseKL,
    SquaredHellinger,
    Wasserstein,
)
from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.losses.penalties import R1, R2, Dragan, GradientPenalty
from ganmnist.networks import noisy
from ganmnist.stabilizers.label_smoothing import LabelSmoothing
from ganmnist.utils.batch import Batch

close = torch.testing.assert_close


def outputs(discriminator: nn.Module, requires_grad: bool = False) -> DiscriminatorOutputs:
    real, fake = (images()._replace(z=torch.randn(8, 4)).detach(requires_grad) for _ in range(2))
    return DiscriminatorOutputs(discriminator, real, fake)


@pytest.mark.parametrize(
    ("objective", "e_loss"),
    [
        (BCE(), lambda d: -(1 - d.sigmoid()).log()),
        (LeastSquares(), lambda d: d.square() / 2),  # to D's target for fakes, 0
        (KL(), lambda d: d - 2),  # -v of the inverse ratio, v = 1 + log u
        (SquaredHellinger(), lambda d: d.exp() - 1),
        (Hinge(), lambda d: d),
    ],
)
def test_the_encoder_loss_swaps_real_and_fake(
    objective: Objective, e_loss: Callable[[Tensor], Tensor]
) -> None:
    out = outputs(small_bigan().discriminator)
    BiGANObjective(objective).g_loss(out)
    close(out.tracked["encoder"], e_loss(out.real_logits).mean())
    close(out.tracked["generator"], objective.g_loss(out))


@pytest.mark.parametrize(
    "objective",
    [BCE(), LeastSquares(), KL(), SquaredHellinger(), ReverseKL()],
)
def test_at_the_decision_logit_losses_are_those_of_the_equilibrium(objective: Objective) -> None:
    d = small_bigan().discriminator
    nn.init.zeros_(d.last.weight)
    nn.init.constant_(d.last.bias, objective.decision_logit)
    out, objective = outputs(d), BiGANObjective(objective)
    d_loss, g_loss = objective.equilibrium
    close(objective.d_loss(out).item(), d_loss)
    close(objective.g_loss(out).item(), g_loss)


class SquaredLogits(Objective):
    """A user's objective, without a decision logit."""


@pytest.mark.parametrize(
    "objective", [DiscriminatorOnly(BCE()), Pearson(), BCE(smoothing=0.1), SquaredLogits()]
)
def test_objectives_that_cannot_be_swapped_are_refused(objective: Objective) -> None:
    with pytest.raises(ValueError, match="family=bigan"):
        small_bigan(objective=BiGANObjective(objective))


def test_label_smoothing_is_refused() -> None:
    with pytest.raises(ValueError, match="family=bigan"):
        small_bigan(stabilizers={"label_smoothing": LabelSmoothing(0.1)})


def test_bce_losses_in_closed_form() -> None:
    out, objective = outputs(small_bigan().discriminator), BiGANObjective(BCE())
    real_prob, fake_prob = out.real_logits.sigmoid(), out.fake_logits.sigmoid()
    close(objective.g_loss(out), -fake_prob.log().mean() - (1 - real_prob).log().mean())
    close(objective.d_loss(out), -real_prob.log().mean() - (1 - fake_prob).log().mean())
    assert objective.equilibrium == pytest.approx((2 * math.log(2), 2 * math.log(2)))


@pytest.mark.parametrize("resample_fakes", [False, True])
@pytest.mark.parametrize("make", [small_bigan, small_aae])
def test_the_generator_step_trains_the_encoder(
    make: Callable[..., nn.Module], resample_fakes: bool
) -> None:
    gan = make(resample_fakes=resample_fakes)
    moved = watch(gan)
    fit(gan, batches=2)
    trained = trained_names(gan)
    assert moved["d"] & trained == trained_names(gan, "discriminator")
    assert moved["g"] & trained == trained_names(gan, "generator", "encoder")


def test_squared_distance_of_black_and_white_is_the_number_of_pixels() -> None:
    white, black = torch.ones(2, 1, 8, 8), -torch.ones(2, 1, 8, 8)
    assert squared_distance(white, black).tolist() == [64.0, 64.0]
    assert squared_distance(white, white).tolist() == [0.0, 0.0]


def test_nn_accuracy_uses_the_label_of_the_nearest_training_image() -> None:
    rows = {6: [[0.0], [0.2], [5.0], [5.2], [9.0], [9.2]], 3: [[0.1], [5.1], [6.0]]}
    labels = [torch.tensor(y) for y in ([1, 1, 2, 2, 3, 3], [1, 2, 3])]
    train, test = ([Batch(torch.zeros(len(y), 1, 8, 8), y)] for y in labels)

    def view(batch: Batch) -> Tensor:
        return torch.tensor(rows[len(batch.condition)])

    splits = {"train": train, "test": test}
    assert nn_accuracy(view, splits.get) == pytest.approx(2 / 3)
    # The first two training images have the label 1.
    assert nn_accuracy(view, splits.get, n=2) == pytest.approx(1 / 3)


def test_metrics_compare_hidden_layers_latents_and_the_untrained_encoder() -> None:
    """Features are the label, its negative, or constant."""
    gan = small_bigan()
    y = torch.arange(10).float()

    def first_pixel(batch: Batch) -> Tensor:
        return batch.x.flatten(1)[:, :1]

    gan.encoder.features = first_pixel
    gan.encoder.forward = lambda batch: -first_pixel(batch)
    gan.untrained.features = lambda batch: 0 * first_pixel(batch)
    real = [Batch(y.view(-1, 1, 1, 1).expand(-1, 1, 8, 8), y.long())]
    gan.reconstruct = lambda batch: batch.x
    assert gan.extra_metrics(lambda split: real) == {
        "nn_accuracy_hidden": 1.0,
        "nn_accuracy": 1.0,
        "nn_accuracy_untrained": 0.1,
        "reconstruction_error": 0.0,
    }


def test_the_untrained_encoder_does_not_change() -> None:
    gan = small_bigan()
    before = snapshot(gan.untrained)
    assert not changed(before, gan.encoder.state_dict())
    fit(gan, batches=2)
    assert not changed(before, gan.untrained.state_dict())
    assert changed(before, gan.encoder.state_dict())
    ids = {id(p) for parameters in gan.parameters_of.values() for p in parameters}
    assert not ids & {id(p) for p in gan.untrained.parameters()}


def test_encoders_have_data_dependent_initialization() -> None:
    body = partial(noisy.Discriminator, image_size=8, widths=[6], image_noise=0.0, noise=0.0)
    gan = small_bigan(
        encoder=partial(encoder, body=body), discriminator=partial(joint_discriminator, body=body)
    )
    batch = images(64)
    gan.initialize(lambda n: batch, 64)
    for network in (gan.encoder, gan.discriminator):
        features = network.body.layers[:3]((batch.x + 1) / 2)  # before ReLU
        std, mean = torch.std_mean(features, 0, unbiased=False)
        close(mean, torch.zeros(6), atol=1e-5, rtol=0)
        close(std, torch.ones(6))
    assert not changed(gan.encoder.state_dict(), gan.untrained.state_dict())


@pytest.mark.parametrize("penalty", [R1(1.0), R2(1.0), GradientPenalty(10.0), Dragan(10.0)])
def test_gradient_penalties_include_the_latent(penalty: LossTerm) -> None:
    """With W-GAN's loss, |dD/dz| grew without a bound when the penalty was on x only."""
    gan = small_bigan(
        discriminator=partial(joint_discriminator, body=partial(d_8x8, norm="none")),
        objective=BiGANObjective(Wasserstein(clip=None)),
        penalties={"penalty": penalty},
    )
    out = outputs(gan.discriminator.train(), requires_grad=True)
    (grad,) = torch.autograd.grad(penalty.d_loss(out), gan.discriminator.join[0].weight)
    assert grad[:, -4:].any()  # the weights of the latent
