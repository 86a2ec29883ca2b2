"""The sum of all loss terms, and their names."""

import pytest
import torch
from helpers.data import images
from helpers.gan import small_gan
from torch import Tensor

from ganmnist.losses.adversarial import BCE, DiscriminatorOnly, Wasserstein
from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.losses.penalties import R1, GradientPenalty
from ganmnist.losses.terms import LossTerms
from ganmnist.utils.errors import UserError


class Constant(LossTerm):
    """D's loss is `value`. There is no loss of G."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return torch.tensor(self.value)


@pytest.fixture
def out() -> DiscriminatorOutputs:
    return DiscriminatorOutputs(small_gan().discriminator, images(), images())


def test_loss_is_the_sum_of_all_terms_tracked_by_name(out: DiscriminatorOutputs) -> None:
    terms = LossTerms(BCE(), {"constant": Constant(3.0)}, {"nothing": LossTerm()})
    bce = terms.objective.d_loss(out)
    torch.testing.assert_close(terms.loss("d", out), bce + 3)
    assert out.tracked.keys() == {"real", "fake", "bce", "constant"}
    assert torch.equal(out.tracked["bce"], bce)
    assert out.tracked["constant"].item() == 3


def test_single_term_is_not_tracked(out: DiscriminatorOutputs) -> None:
    terms = LossTerms(BCE(), {"constant": Constant(3.0)})
    assert torch.equal(terms.loss("g", out), terms.objective.g_loss(out))
    assert out.tracked == {}


def test_two_terms_of_one_class_are_both_added(out: DiscriminatorOutputs) -> None:
    terms = LossTerms(BCE(), {"three": Constant(3.0), "four": Constant(4.0)})
    torch.testing.assert_close(terms.loss("d", out), terms.objective.d_loss(out) + 7)


def test_generator_without_a_loss_is_an_error(out: DiscriminatorOutputs) -> None:
    with pytest.raises(UserError, match="No loss term trains G"):
        LossTerms(DiscriminatorOnly(BCE())).loss("g", out)


@pytest.mark.parametrize("name", ["bce", "loss", "real", "fake_prob", "grad_norm"])
def test_names_of_logged_scalars_are_reserved(name: str) -> None:
    with pytest.raises(ValueError, match=f"Loss term {name}:"):
        LossTerms(BCE(), {name: R1(1.0)})


def test_name_in_two_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="Loss term r1:"):
        LossTerms(BCE(), {"r1": R1(1.0)}, {"r1": R1(2.0)})


def test_two_lipschitz_constraints_are_refused() -> None:
    with pytest.raises(ValueError, match="wasserstein and gp:"):
        LossTerms(Wasserstein(clip=0.01), {"gp": GradientPenalty()})


def test_equilibrium_is_known_for_the_objective_alone() -> None:
    assert LossTerms(BCE()).equilibrium == BCE().equilibrium
    assert LossTerms(BCE(), {"r1": R1(1.0)}).equilibrium == (None, None)
