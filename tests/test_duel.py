"""Samples, duels and terms: what is computed when, and how often."""

from collections import Counter

import pytest
import torch
from conftest import images
from torch import Tensor

from ganmnist.duel import Duel, Sample, Term
from ganmnist.networks.base import Discriminator
from ganmnist.objectives import BCE


class Counting(Discriminator):
    """Features are the pixels, the logit is their mean; counts who was asked about what."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[str, int]] = Counter()

    def features(self, sample: Sample) -> Tensor:
        self.calls["features", id(sample)] += 1
        return sample.x.flatten(1)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        self.calls["score", id(sample)] += 1
        return features.mean(1)


@pytest.fixture
def duel() -> Duel:
    return Duel(Counting(), images(), images())


def asked(duel: Duel) -> dict[tuple[str, str], int]:
    """How often D was asked for (what, side)."""
    sides = {id(duel.real): "real", id(duel.fake): "fake"}
    return {(what, sides[side]): n for (what, side), n in duel.discriminator.calls.items()}


def test_nothing_is_computed_unasked(duel: Duel) -> None:
    assert asked(duel) == {}
    assert duel.outputs(True) == {}
    assert asked(duel) == {}


def test_each_side_is_computed_once(duel: Duel) -> None:
    for _ in range(2):
        assert duel.fake_features is duel.fake_features
        assert duel.fake_logits is duel.fake_logits
    assert asked(duel) == {("features", "fake"): 1, ("score", "fake"): 1}
    assert duel.real_logits is duel.real_logits
    assert duel.real_features is duel.real_features
    sides = ("real", "fake")
    assert asked(duel) == {(what, side): 1 for what in ("features", "score") for side in sides}


def test_both_sides_may_go_through_in_one_pass(duel: Duel) -> None:
    at_once = Duel(Counting(), duel.real, duel.fake, at_once=True)
    for name in ("real_features", "fake_features", "real_logits", "fake_logits"):
        assert torch.equal(getattr(at_once, name), getattr(duel, name))
    assert sorted(what for what, _ in at_once.discriminator.calls) == ["features", "score", "score"]
    assert at_once.outputs(False).keys() == duel.outputs(False).keys()


def test_logits_and_features_are_the_discriminator_s(duel: Duel) -> None:
    assert torch.equal(duel.real_features, duel.real.x.flatten(1))
    assert torch.equal(duel.fake_features, duel.fake.x.flatten(1))
    assert torch.equal(duel.real_logits, duel.discriminator(duel.real))
    assert torch.equal(duel.fake_logits, duel.discriminator(duel.fake))
    assert duel.real_logits.shape == duel.fake_logits.shape == (8,)


def test_the_non_saturating_generator_loss_never_shows_d_real_images(duel: Duel) -> None:
    BCE().g_loss(duel)
    assert asked(duel) == {("features", "fake"): 1, ("score", "fake"): 1}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_logits_are_at_least_float32(given: torch.dtype, kept: torch.dtype) -> None:
    x = images().x.to(given)
    duel = Duel(Counting(), Sample(x), Sample(-x))
    assert duel.real_logits.dtype == duel.fake_logits.dtype == kept
    assert torch.equal(duel.real_logits, x.flatten(1).mean(1).to(kept))
    assert duel.real_features.dtype == given


def test_parts_pass_through_and_are_noted(duel: Duel) -> None:
    value = torch.tensor(3.0, requires_grad=True)
    assert duel.part("penalty", value) is value
    assert duel.parts == {"penalty": value}


def test_outputs_are_mean_probabilities_of_the_sides_looked_at(duel: Duel) -> None:
    fake = duel.fake_logits
    assert duel.outputs(True).keys() == {"fake_prob"}
    real = duel.real_logits
    outputs = duel.outputs(probability=True)
    assert outputs.keys() == {"real_prob", "fake_prob"}
    torch.testing.assert_close(outputs["real_prob"], (1 / (1 + (-real).exp())).mean())
    torch.testing.assert_close(outputs["fake_prob"], (1 / (1 + (-fake).exp())).mean())


def test_outputs_carry_no_graph() -> None:
    x = images().x.requires_grad_()
    duel = Duel(Counting(), Sample(x), Sample(x))
    assert duel.real_logits.requires_grad
    assert not duel.outputs(True)["real_prob"].requires_grad


def test_detach_keeps_values_and_cuts_the_graph() -> None:
    z = torch.randn(4, 2, requires_grad=True)
    sample = Sample(x=2 * z, z=z)
    cut = sample.detach()
    assert torch.equal(cut.x, sample.x)
    assert torch.equal(cut.z, z)
    assert cut.y is None
    assert not cut.x.requires_grad
    assert not cut.z.requires_grad
    assert z.requires_grad


def test_a_bare_term_takes_no_part(duel: Duel) -> None:
    term = Term()
    assert (term.d_loss(duel), term.g_loss(duel)) == (None, None)
    assert term.after_d_update(duel.discriminator) is None
    assert (term.player, term.needs_real_grad, term.needs_fake_grad) == ("d", False, False)
    assert asked(duel) == {}
