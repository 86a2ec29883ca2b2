"""Unrolled GANs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.data import images
from helpers.gan import changed, fit, small_gan, snapshot, watch
from torch import Tensor, nn

from ganmnist.losses.adversarial import Objective, Wasserstein
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.losses.penalties import R1, FeatureMatching, HistoricalAverage
from ganmnist.networks import dcgan
from ganmnist.networks.base import Discriminator
from ganmnist.stabilizers.spectral_norm import SpectralNorm
from ganmnist.stabilizers.unrolled import Unrolled
from ganmnist.utils.batch import Batch
from ganmnist.utils.schedules import Linear

LR = 0.1


class LinearDiscriminator(Discriminator):
    """w . x"""

    n_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(64))

    def features(self, batch: Batch) -> Tensor:
        return batch.x.flatten(1)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return features @ self.w


class QuadraticObjective(Objective):
    """L_D = E f - E r + |w|^2 / 2, L_G = -E f."""

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        # The logits of unit vectors are the weights, also those of an unrolled discriminator.
        w = out.discriminator(Batch(torch.eye(64).reshape(64, 1, 8, 8)))
        return out.fake_logits.mean() - out.real_logits.mean() + w.square().sum() / 2

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return -out.fake_logits.mean()


def unrolled(steps: int = 1) -> dict[str, Unrolled]:
    return {"unrolled": Unrolled(steps, LR)}


def test_unrolled_steps_are_gradient_steps_that_depend_on_the_fakes() -> None:
    """With m = E x - E G(z), w_(i+1) = w_i - lr (w_i - m). After k steps,

    w_k = (1 - lr)^k w + (1 - (1 - lr)^k) m.
    """
    d = LinearDiscriminator()
    gan = small_gan(discriminator=d, objective=QuadraticObjective(), stabilizers=unrolled(3))
    real = images()
    fake = Batch(images().x.requires_grad_())
    before = snapshot(d)

    out = DiscriminatorOutputs(gan.discriminator_for_g(real, fake), real, fake)
    loss = gan.objective.g_loss(out)
    (grad,) = torch.autograd.grad(loss, fake.x)

    x = fake.x.detach().clone().requires_grad_()
    real_mean, fake_mean = (images.flatten(1).mean(0) for images in (real.x, x))
    keep = (1 - LR) ** 3
    w = keep * d.w.detach() + (1 - keep) * (real_mean - fake_mean)
    expected = -(w @ fake_mean)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, x)[0])
    assert not changed(before, snapshot(d))


SETTINGS: dict[str, Callable[[], dict[str, Any]]] = {
    "batch norm": lambda: {"stabilizers": unrolled(2)},
    "spectral norm": lambda: {
        "discriminator": dcgan.Discriminator(
            widths=[4], kernels=[4, 4], strides=[2, 1], norm="none"
        ),
        "stabilizers": {"spectral_norm": SpectralNorm(), **unrolled(2)},
    },
    "feature matching": lambda: {
        "stabilizers": unrolled(2),
        "penalties": {"feature_matching": FeatureMatching()},
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_generator_step_does_not_change_d(name: str) -> None:
    """Weights, batch statistics and the vectors of spectral norm."""
    gan = small_gan(**SETTINGS[name]())
    moved = watch(gan)
    fit(gan, batches=2)
    assert moved["g"] == {name for name, _ in gan.generator.named_parameters("generator")}
    assert {name for name, _ in gan.discriminator.named_parameters("discriminator")} <= moved["d"]


def test_unsupported_loss_terms_are_refused() -> None:
    for name, term in {"r1": R1(1.0), "past": HistoricalAverage()}.items():
        with pytest.raises(ValueError, match=f"stabilizer=unrolled: .* {name}"):
            small_gan(penalties={name: term}, stabilizers=unrolled())
    with pytest.raises(ValueError, match=r"stabilizer=unrolled: .* wasserstein"):
        small_gan(objective=Wasserstein(clip=0.01), stabilizers=unrolled())


@pytest.mark.parametrize(
    ("steps", "lr", "setting"),
    [(1, Linear(0.1, 0.2), "lr"), (1, -1, "lr=-1"), (-1, LR, "steps=-1")],
)
def test_settings_out_of_range_are_refused(steps: int, lr: Any, setting: str) -> None:
    with pytest.raises(ValueError, match=rf"stabilizer\.unrolled\.{setting}"):
        Unrolled(steps, lr)


def test_zero_unrolled_steps_change_nothing() -> None:
    weights = []
    for stabilizers in (unrolled(0), {}):
        gan = small_gan(stabilizers=stabilizers)
        fit(gan, batches=2)
        weights.append(snapshot(gan.generator))
    assert not changed(*weights)
