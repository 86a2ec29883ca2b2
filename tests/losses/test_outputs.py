"""DiscriminatorOutputs and LossTerm: which outputs are computed, and how often."""

from collections import Counter
from typing import Literal

import pytest
import torch
from helpers.data import images
from torch import Tensor

from ganmnist.losses.adversarial import BCE
from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs, mean_scalars
from ganmnist.networks.base import Discriminator
from ganmnist.utils.batch import Batch

Calls = dict[tuple[Literal["features", "logits"], Literal["real", "fake"]], int]


class CountingDiscriminator(Discriminator):
    """Features are the pixels, the logit is their mean. Counts the calls by batch."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[str, int]] = Counter()

    def features(self, batch: Batch) -> Tensor:
        self.calls["features", id(batch)] += 1
        return batch.x.flatten(1)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        self.calls["logits", id(batch)] += 1
        return features.mean(1)


@pytest.fixture
def out() -> DiscriminatorOutputs:
    return DiscriminatorOutputs(CountingDiscriminator(), images(), images())


def calls(out: DiscriminatorOutputs) -> Calls:
    """The number of calls of each method for the real and for the fake batch."""
    names = {id(out.real): "real", id(out.fake): "fake"}
    return {(method, names[batch]): n for (method, batch), n in out.discriminator.calls.items()}


def test_unused_outputs_are_not_computed(out: DiscriminatorOutputs) -> None:
    assert out.means(probability=True) == {}
    assert calls(out) == {}


def test_each_output_is_computed_once(out: DiscriminatorOutputs) -> None:
    for _ in range(2):
        assert out.fake_features is out.fake_features
        assert out.fake_logits is out.fake_logits
    assert calls(out) == {("features", "fake"): 1, ("logits", "fake"): 1}
    assert out.real_logits is out.real_logits
    assert out.real_features is out.real_features
    both = ("real", "fake")
    assert calls(out) == {(method, name): 1 for method in ("features", "logits") for name in both}


def test_joint_forward_computes_the_same_in_one_pass(out: DiscriminatorOutputs) -> None:
    joint = DiscriminatorOutputs(CountingDiscriminator(), out.real, out.fake, joint_forward=True)
    for name in ("real_features", "fake_features", "real_logits", "fake_logits"):
        assert torch.equal(getattr(joint, name), getattr(out, name))
    methods = [method for method, _ in joint.discriminator.calls]
    assert sorted(methods) == ["features", "logits", "logits"]
    assert joint.means(False).keys() == out.means(False).keys()


def test_features_and_logits_are_those_of_the_discriminator(out: DiscriminatorOutputs) -> None:
    assert torch.equal(out.real_features, out.real.x.flatten(1))
    assert torch.equal(out.fake_features, out.fake.x.flatten(1))
    assert torch.equal(out.real_logits, out.discriminator(out.real))
    assert torch.equal(out.fake_logits, out.discriminator(out.fake))
    assert out.real_logits.shape == out.fake_logits.shape == (8,)


def test_non_saturating_generator_loss_does_not_run_d_on_real_images(
    out: DiscriminatorOutputs,
) -> None:
    BCE().g_loss(out)
    assert calls(out) == {("features", "fake"): 1, ("logits", "fake"): 1}


@pytest.mark.parametrize(
    ("dtype", "logit_dtype"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_logits_are_at_least_float32(dtype: torch.dtype, logit_dtype: torch.dtype) -> None:
    x = images().x.to(dtype)
    out = DiscriminatorOutputs(CountingDiscriminator(), Batch(x), Batch(-x))
    assert out.real_logits.dtype == out.fake_logits.dtype == logit_dtype
    assert torch.equal(out.real_logits, x.flatten(1).mean(1).to(logit_dtype))
    assert out.real_features.dtype == dtype


def test_track_returns_the_value_and_keeps_it(out: DiscriminatorOutputs) -> None:
    value = torch.tensor(3.0, requires_grad=True)
    assert out.track("penalty", value) is value
    assert out.tracked == {"penalty": value}


def test_means_are_of_probabilities_or_logits_in_use(out: DiscriminatorOutputs) -> None:
    fake = out.fake_logits
    assert out.means(probability=True).keys() == {"fake_prob"}
    real = out.real_logits
    probabilities, logits = out.means(probability=True), out.means(probability=False)
    assert probabilities.keys() == {"real_prob", "fake_prob"}
    torch.testing.assert_close(probabilities["real_prob"], (1 / (1 + (-real).exp())).mean())
    torch.testing.assert_close(probabilities["fake_prob"], (1 / (1 + (-fake).exp())).mean())
    torch.testing.assert_close(logits, {"real_logit": real.mean(), "fake_logit": fake.mean()})


def test_means_are_detached() -> None:
    x = images().x.requires_grad_()
    out = DiscriminatorOutputs(CountingDiscriminator(), Batch(x), Batch(x))
    assert out.real_logits.requires_grad
    assert not out.means(True)["real_prob"].requires_grad


def test_mean_scalars_averages_each_scalar() -> None:
    rows = [{"a": torch.tensor(a), "b": torch.tensor(2.0)} for a in (1.0, 3.0, 8.0)]
    assert mean_scalars(rows) == {"a": 4.0, "b": 2.0}


def test_base_loss_term_adds_nothing(out: DiscriminatorOutputs) -> None:
    term = LossTerm()
    assert (term.d_loss(out), term.g_loss(out)) == (None, None)
    assert term.after_d_step(out.discriminator) is None
    assert (term.trained_with, term.needs_real_grad, term.needs_fake_grad) == ("d", False, False)
    assert calls(out) == {}
