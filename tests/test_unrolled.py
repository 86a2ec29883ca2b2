"""Unrolled steps against a game whose unrolled loss is known."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import changed, fit, images, small_gan, snapshot, watch
from torch import Tensor, nn

from ganmnist.duel import Duel, Sample
from ganmnist.networks import dcgan
from ganmnist.networks.base import Discriminator
from ganmnist.networks.stabilizers import SpectralNorm
from ganmnist.objectives import Objective, Wasserstein
from ganmnist.regularizers import R1, FeatureMatching, HistoricalAverage
from ganmnist.schedules import Linear
from ganmnist.unrolled import Unroll

LR = 0.1


class Slope(Discriminator):
    """w . x"""

    n_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(64))

    def features(self, sample: Sample) -> Tensor:
        return sample.x.flatten(1)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return features @ self.w


class Game(Objective):
    """L_D = E f - E r + |w|^2 / 2, L_G = -E f."""

    def d_loss(self, duel: Duel) -> Tensor:
        # Of the weights that this duel's discriminator has, which may be those of a step ahead.
        eye = Sample(torch.eye(64).reshape(64, 1, 8, 8))
        w = duel.discriminator(eye)
        return duel.fake_logits.mean() - duel.real_logits.mean() + w.square().sum() / 2

    def g_loss(self, duel: Duel) -> Tensor:
        return -duel.fake_logits.mean()


def test_unrolled_steps_are_gradient_steps_that_g_feels() -> None:
    """With m the difference of mean images, w_(i+1) = w_i - lr (w_i - m), so after k steps

    w_k = (1 - lr)^k w + (1 - (1 - lr)^k) m, whose part m depends on the fakes.
    """
    discriminator = Slope()
    gan = small_gan(discriminator=discriminator, objective=Game(), unroll=Unroll(3, LR))
    real = images()
    fake = Sample(images().x.requires_grad_())
    before = snapshot(discriminator)

    duel = Duel(gan.opponent(real, fake), real, fake)
    loss = gan.objective.g_loss(duel)
    (grad,) = torch.autograd.grad(loss, fake.x)

    x = fake.x.detach().clone().requires_grad_()
    means = [side.flatten(1).mean(0) for side in (real.x, x)]
    keep = (1 - LR) ** 3
    w = keep * discriminator.w.detach() + (1 - keep) * (means[0] - means[1])
    expected = -(w @ means[1])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, x)[0])
    assert not changed(before, snapshot(discriminator))


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "batch norm": dict,
    "spectral norm": lambda: {
        "discriminator": dcgan.Discriminator(
            widths=[4], kernels=[4, 4], strides=[2, 1], norm="none"
        ),
        "stabilizers": {"spectral_norm": SpectralNorm},
    },
    "feature matching": lambda: {"terms": {"feature_matching": FeatureMatching()}},
}


@pytest.mark.parametrize("parts", PARTS)
def test_unrolling_leaves_d_as_it_was(parts: str) -> None:
    """Batch statistics, the vectors of spectral norm and weights alike, on G's whole update."""
    gan = small_gan(**PARTS[parts](), unroll=Unroll(2, LR))
    moved = watch(gan)
    fit(gan, batches=2)
    trained = {name for name, _ in gan.generator.named_parameters(prefix="generator")}
    assert moved["g"] == trained
    assert {name for name, _ in gan.discriminator.named_parameters("discriminator")} <= moved["d"]


def test_what_unrolled_steps_cannot_follow_is_refused() -> None:
    for name, term in {"r1": R1(1.0), "past": HistoricalAverage()}.items():
        with pytest.raises(ValueError, match=rf"cannot follow {name}: .* penalty=none"):
            small_gan(terms={name: term}, unroll=Unroll(1, LR))
    with pytest.raises(ValueError, match=r"cannot follow clipped weights: .* bound on D's slope"):
        small_gan(objective=Wasserstein(clip=0.01), unroll=Unroll(1, LR))
    with pytest.raises(ValueError, match=r"gan\.unroll\.lr is a schedule"):
        Unroll(1, Linear(0.1, 0.2))
    with pytest.raises(ValueError, match=r"gan\.unroll\.lr is -1"):
        Unroll(1, -1)
    with pytest.raises(ValueError, match=r"unroll\.steps=-1"):
        Unroll(-1, LR)


def test_no_steps_ahead_are_the_game_itself() -> None:
    weights = []
    for unroll in (Unroll(0, LR), None):
        gan = small_gan(unroll=unroll)
        fit(gan, batches=2)
        weights.append(snapshot(gan.generator))
    assert not changed(*weights)
