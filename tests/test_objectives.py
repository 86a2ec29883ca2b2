"""Adversarial losses against closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.duel import Duel, Sample
from ganmnist.networks.base import Discriminator
from ganmnist.objectives import BCE, Objective

REAL = [0.3, -1.2, 2.0, 5.0]
FAKE = [-0.7, 0.0, 1.5]


class Given(Discriminator):
    """Samples are their own logits."""

    def features(self, sample: Sample) -> Tensor:
        return sample.x

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return features


def duel_of(real: list[float], fake: list[float], dtype: torch.dtype = torch.float64) -> Duel:
    """A duel with these logits, which take gradients."""
    sides = (torch.tensor(side, dtype=dtype, requires_grad=True) for side in (real, fake))
    return Duel(Given(), *(Sample(side) for side in sides))


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


both = pytest.mark.parametrize("bce", [BCE(stable=True), BCE(stable=False)], ids=["logits", "prob"])


@both
def test_bce_is_what_goodfellow_prints(bce: BCE) -> None:
    duel = duel_of(REAL, FAKE)
    real = -mean([math.log(sigmoid(logit)) for logit in REAL])
    fake = -mean([math.log(1 - sigmoid(logit)) for logit in FAKE])
    torch.testing.assert_close(bce.d_loss(duel).item(), real + fake)
    torch.testing.assert_close(
        bce.g_loss(duel).item(), -mean([math.log(sigmoid(logit)) for logit in FAKE])
    )


@both
def test_bce_of_a_real_and_a_fake_part_is_their_sum(bce: BCE) -> None:
    duel = duel_of(REAL, FAKE)
    loss = bce.d_loss(duel)
    assert duel.parts.keys() == {"real", "fake"}
    assert torch.equal(duel.parts["real"] + duel.parts["fake"], loss)
    torch.testing.assert_close(
        duel.parts["real"].item(), -mean([math.log(sigmoid(logit)) for logit in REAL])
    )


@both
def test_bce_has_the_gradients_of_the_closed_form(bce: BCE) -> None:
    """d/dt -log sigmoid(t) = sigmoid(t) - 1 and d/dt -log(1 - sigmoid(t)) = sigmoid(t)."""
    duel = duel_of(REAL, FAKE)
    real, fake = torch.autograd.grad(bce.d_loss(duel), (duel.real.x, duel.fake.x))
    torch.testing.assert_close(real.tolist(), [(sigmoid(t) - 1) / len(REAL) for t in REAL])
    torch.testing.assert_close(fake.tolist(), [sigmoid(t) / len(FAKE) for t in FAKE])
    (fake,) = torch.autograd.grad(bce.g_loss(duel), duel.fake.x)
    torch.testing.assert_close(fake.tolist(), [(sigmoid(t) - 1) / len(FAKE) for t in FAKE])


@both
def test_bce_at_the_equilibrium(bce: BCE) -> None:
    duel = duel_of([0.0] * 3, [0.0] * 3)
    torch.testing.assert_close(bce.d_loss(duel).item(), 2 * math.log(2))
    torch.testing.assert_close(bce.g_loss(duel).item(), math.log(2))
    assert bce.equilibrium == (2 * math.log(2), math.log(2))


def test_only_the_stable_form_learns_where_the_sigmoid_has_rounded() -> None:
    """In float32 sigmoid(200) = 1 and sigmoid(-200) = 0; PyTorch bounds -log of that by 100."""
    for stable, value, slope in ((True, 200.0, 1.0), (False, 100.0, 0.0)):
        bce = BCE(stable)
        duel = duel_of([-200.0], [200.0], torch.float32)
        loss = bce.d_loss(duel)
        assert loss.item() == 2 * value
        real, fake = torch.autograd.grad(loss, (duel.real.x, duel.fake.x))
        assert (real.item(), fake.item()) == (-slope, slope)

        duel = duel_of([0.0], [-200.0], torch.float32)
        loss = bce.g_loss(duel)
        assert loss.item() == value
        assert torch.autograd.grad(loss, duel.fake.x)[0].item() == -slope


class Linear(Discriminator):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(16, 1)

    def features(self, sample: Sample) -> Tensor:
        return sample.x

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.last(features).flatten()


@both
def test_bce_under_autocast_is_that_of_the_rounded_logits_in_float32(bce: BCE) -> None:
    discriminator = Linear()
    real, fake = torch.randn(8, 16), torch.randn(8, 16)
    with torch.autocast("cpu", torch.bfloat16):
        duel = Duel(discriminator, Sample(real), Sample(fake))
        d_loss, g_loss = bce.d_loss(duel), bce.g_loss(duel)
        rounded = discriminator.last(real).flatten()
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(duel.real_logits, rounded.float())
    assert d_loss.dtype == g_loss.dtype == torch.float32
    plain = duel_of(duel.real_logits.tolist(), duel.fake_logits.tolist(), torch.float32)
    torch.testing.assert_close(d_loss, bce.d_loss(plain), rtol=0, atol=0)
    torch.testing.assert_close(g_loss, bce.g_loss(plain), rtol=0, atol=0)
    weight = discriminator.last.weight
    *ours, moves = torch.autograd.grad(d_loss, (duel.real_logits, duel.fake_logits, weight))
    theirs = torch.autograd.grad(bce.d_loss(plain), (plain.real.x, plain.fake.x))
    torch.testing.assert_close(ours, list(theirs), rtol=0, atol=0)
    assert moves.isfinite().all()
    assert moves.all()


def test_autocast_is_off_for_the_cross_entropy_of_probabilities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On CUDA PyTorch refuses it otherwise, whatever the type of the probabilities."""
    binary_cross_entropy, autocast = F.binary_cross_entropy, []

    def noting(probabilities: Tensor, targets: Tensor) -> Tensor:
        autocast.append(torch.is_autocast_enabled("cpu"))
        return binary_cross_entropy(probabilities, targets)

    monkeypatch.setattr(F, "binary_cross_entropy", noting)
    with torch.autocast("cpu", torch.bfloat16):
        BCE(stable=False).d_loss(duel_of(REAL, FAKE))
    assert autocast == [False, False]


def test_an_objective_has_to_say_both_losses() -> None:
    duel = duel_of(REAL, FAKE)
    for loss in (Objective().d_loss, Objective().g_loss):
        with pytest.raises(NotImplementedError):
            loss(duel)


@pytest.mark.parametrize("stable", [True, False])
def test_a_loss_of_nan_is_nan(stable: bool) -> None:
    """PyTorch's own cross-entropy of probabilities refuses it, on a GPU by ending the process."""
    loss = BCE(stable).cross_entropy(torch.tensor([0.5, math.nan]), 1.0)
    assert loss.isnan()
