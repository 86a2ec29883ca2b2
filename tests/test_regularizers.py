"""Penalties against discriminators whose gradients are known."""

import math
from collections.abc import Callable

import pytest
import torch
from conftest import fit, images, small_gan, watch
from torch import Tensor, nn

from ganmnist.duel import Clock, Duel, Sample, Term
from ganmnist.networks import dcgan
from ganmnist.networks.base import Discriminator
from ganmnist.networks.encoders import Latent
from ganmnist.networks.stabilizers import Packed
from ganmnist.objectives import BCE, OnlyD, Wasserstein
from ganmnist.regularizers import (
    R1,
    R2,
    Dragan,
    FeatureMatching,
    GradientPenalty,
    HistoricalAverage,
    Penalty,
)
from ganmnist.schedules import Linear as Ramp


class Linear(Discriminator):
    """w . x + b, whose gradient is w everywhere."""

    def __init__(self, n: int = 64) -> None:
        super().__init__()
        self.n_features = n
        self.w = nn.Linear(n, 1)

    def features(self, sample: Sample) -> Tensor:
        return sample.x.flatten(1)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return self.w(features).flatten()


class Quadratic(Linear):
    """|x|^2 / 2, whose gradient is x."""

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return features.square().sum(1) / 2 + 0 * self.w(features).flatten()


def duel_before(discriminator: Discriminator, n: int = 8) -> Duel:
    real, fake = (images(n).detach(grad=True) for _ in range(2))
    return Duel(discriminator, real, fake)


def squared(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1)


PENALTIES: dict[str, tuple[Callable[[], Penalty], Callable[[Tensor], Tensor]]] = {
    "R1": (lambda: R1(gamma=3.0), lambda w: 1.5 * w.square().sum()),
    "R2": (lambda: R2(gamma=3.0), lambda w: 1.5 * w.square().sum()),
    "gradient penalty": (
        lambda: GradientPenalty(weight=7.0),
        lambda w: 7 * (w.norm() - 1).square(),
    ),
    "DRAGAN": (lambda: Dragan(weight=7.0), lambda w: 7 * (w.norm() - 1).square()),
}
each = pytest.mark.parametrize("name", PENALTIES)


@each
def test_a_linear_discriminator_is_charged_for_its_weights(name: str) -> None:
    """Its gradient is w everywhere, so value and gradient of the penalty are closed forms."""
    build, form = PENALTIES[name]
    discriminator = Linear()
    w = discriminator.w.weight
    loss = build().d_loss(duel_before(discriminator))
    torch.testing.assert_close(loss, form(w))
    (found,) = torch.autograd.grad(loss, w)
    (expected,) = torch.autograd.grad(form(w), w)
    torch.testing.assert_close(found, expected)


def test_r1_looks_at_real_images_and_r2_at_generated_ones() -> None:
    """The gradient of |x|^2 / 2 is x, so the penalty tells whose x it was."""
    duel = duel_before(Quadratic())
    torch.testing.assert_close(R1(2.0).d_loss(duel), squared(duel.real.x).mean())
    torch.testing.assert_close(R2(2.0).d_loss(duel), squared(duel.fake.x).mean())


def test_the_gradient_penalty_looks_between_real_and_generated_images() -> None:
    real, fake = torch.full((500, 1, 8, 8), 0.5), torch.full((500, 1, 8, 8), -0.5)
    y = GradientPenalty().points({"x": real}, {"x": fake})["x"]
    shares = (y - fake).flatten(1) / 1.0
    assert torch.equal(shares, shares[:, :1].expand(-1, 64))  # one share an image
    assert 0 <= shares.min() < 0.02
    assert 0.98 < shares.max() <= 1
    # A uniform share has the mean 1/2 and the variance 1/12: five standard errors of 500 draws.
    assert abs(shares[:, 0].mean() - 0.5) < 5 * math.sqrt(1 / 12 / 500)


def test_dragan_looks_around_real_images() -> None:
    duel = duel_before(Quadratic(), n=200)
    x = duel.real.x
    y = Dragan().points({"x": x}, {})["x"]
    steps = (y - x).detach() / (x.std() / 2)
    assert steps.min() >= -1e-6
    assert 0.8 < steps.max() <= 1 + 1e-6
    # The product of two independent uniform numbers has the mean 1/4.
    assert abs(steps.mean() - 0.25) < 5 * math.sqrt(7 / 144 / 200)


class PairQuadratic(Discriminator):
    """a . x + |z|^2 / 2, whose gradient is (a, z)."""

    sees = frozenset("xz")

    def __init__(self) -> None:
        super().__init__()
        self.n_features = 68
        self.a = nn.Parameter(torch.randn(64) / 8)

    def features(self, sample: Sample) -> Tensor:
        return torch.cat([sample.x.flatten(1), sample.z], 1)

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        x, z = features.split([64, 4], 1)
        return x @ self.a + z.square().sum(1) / 2


def pairs(n: int = 8) -> Sample:
    return images(n)._replace(z=torch.randn(n, 4)).detach(grad=True)


def test_the_norm_is_over_image_and_latent_where_d_judges_both() -> None:
    """The squared norm of the gradient of a . x + |z|^2 / 2 is |a|^2 + |z|^2."""
    d = PairQuadratic()
    duel = Duel(d, pairs(), pairs())
    for penalty, z in ((R1(2.0), duel.real.z), (R2(2.0), duel.fake.z)):
        expected = d.a.square().sum() + z.square().sum(1).mean()
        torch.testing.assert_close(penalty.d_loss(duel), expected)
    same = pairs()
    loss = GradientPenalty(weight=1.0).d_loss(Duel(d, same, same))  # every point is the pair itself
    norms = (d.a.square().sum() + same.z.square().sum(1)).sqrt()
    torch.testing.assert_close(loss, (norms - 1).square().mean())


def test_image_and_latent_of_a_point_have_the_same_share() -> None:
    zeros = {"x": torch.zeros(50, 1, 8, 8), "z": torch.zeros(50, 4)}
    ones = {name: torch.ones_like(value) for name, value in zeros.items()}
    points = GradientPenalty().points(ones, zeros)
    assert torch.equal(points["x"].flatten(1)[:, :4], points["z"])
    assert len(points["z"][:, 0].unique()) == 50


@pytest.mark.parametrize("penalty", [R1(2.0), R2(2.0), GradientPenalty(1.0), Dragan(1.0)])
def test_a_discriminator_of_latents_has_its_gradient_there(penalty: Penalty) -> None:
    d = Latent(4, widths=[])
    w = d.last.weight.square().sum()
    expected = w if isinstance(penalty, R1 | R2) else (w.sqrt() - 1).square()
    torch.testing.assert_close(penalty.d_loss(Duel(d, pairs(), pairs())), expected)


def test_a_pack_is_one_image() -> None:
    """The gradient of a pack's logit has the entries of all its images."""
    inside = Linear(n=128)
    loss = R1(gamma=2.0).d_loss(duel_before(Packed(inside, m=2)))
    torch.testing.assert_close(loss, inside.w.weight.square().sum())
    loss = GradientPenalty(weight=1.0).d_loss(duel_before(Packed(inside, m=2)))
    torch.testing.assert_close(loss, (inside.w.weight.norm() - 1).square())


@each
def test_a_penalty_moves_d_alone(name: str) -> None:
    """It is the only term of D's with a gradient, so what moves, moves by it."""

    class Silent(BCE):
        def d_loss(self, duel: Duel) -> Tensor:
            return 0 * super().d_loss(duel)

    body = dcgan.Discriminator(widths=[4], kernels=[4, 4], strides=[2, 1], norm="none")
    before = {name: w.clone() for name, w in body.named_parameters()}
    gan = small_gan(discriminator=body, objective=Silent(), terms={"it": PENALTIES[name][0]()})
    moved = watch(gan)
    fit(gan, batches=1)
    # Between the kinks of a leaky rectifier a bias has no part in the slope.
    before = {name: w for name, w in before.items() if not name.endswith("bias")}
    assert moved["d"] == {f"discriminator.{name}" for name in before}
    for name, old in before.items():
        assert body.get_parameter(name).isfinite().all()
        assert not torch.equal(old, body.get_parameter(name))
    assert "train/d/it" in gan.history[1]


def test_a_flat_discriminator_has_finite_gradients() -> None:
    """|grad D| has no slope at 0; ours takes 0 for it."""
    discriminator = Linear()
    nn.init.zeros_(discriminator.w.weight)
    loss = GradientPenalty(weight=1.0).d_loss(duel_before(discriminator))
    assert loss.item() == 1
    assert torch.autograd.grad(loss, discriminator.w.weight)[0].isfinite().all()


def test_lazy_penalties_come_seldom_and_as_much_heavier() -> None:
    discriminator = Linear()
    duel = duel_before(discriminator)
    every, lazy = R1(gamma=2.0), R1(gamma=2.0, every=4)
    charges = []
    for turn in range(1, 9):
        lazy.tick(Clock(turn, 0.0))
        assert lazy.needs_real_grad == (turn % 4 == 0)
        charges.append(lazy.d_loss(duel))
    assert [turn for turn, loss in enumerate(charges, 1) if loss is not None] == [4, 8]
    torch.testing.assert_close(charges[3], 4 * every.d_loss(duel))


def test_a_weight_may_follow_a_schedule() -> None:
    penalty = R1(gamma=Ramp(start=10.0, end=2.0))
    duel = duel_before(Linear())
    full = penalty.d_loss(duel)
    penalty.tick(Clock(1, 0.5))
    torch.testing.assert_close(penalty.d_loss(duel), full * 0.6)
    penalty.tick(Clock(1, 1.0))
    torch.testing.assert_close(penalty.d_loss(duel), full * 0.2)


def test_lazy_and_annealed_penalties_hear_the_time_while_training() -> None:
    terms = {"lazy": R1(gamma=1.0, every=3), "annealed": R2(gamma=Ramp(start=1.0, end=0.0))}
    gan = small_gan(discriminator=Linear(), terms=terms)
    fit(gan, batches=6)
    assert [t for t, row in gan.history.items() if "train/d/lazy" in row] == [3, 6]
    last = gan.history[6]["train/d/annealed"]
    assert last == 0
    assert gan.history[5]["train/d/annealed"] > 0


@pytest.mark.parametrize("penalty", [GradientPenalty, Dragan])
def test_slopes_at_single_images_and_batch_norm_exclude_each_other(penalty: type) -> None:
    with pytest.raises(ValueError, match=r"batch norm .* model\.discriminator\.norm="):
        small_gan(terms={"it": penalty()})


def test_every_is_a_number_of_updates() -> None:
    with pytest.raises(ValueError, match="every=0"):
        R1(gamma=1.0, every=0)


# G's terms


def test_feature_matching_is_the_distance_of_mean_features() -> None:
    duel = duel_before(Linear())
    gap = duel.real.x.flatten(1).mean(0) - duel.fake.x.flatten(1).mean(0)
    torch.testing.assert_close(FeatureMatching(weight=3.0).g_loss(duel), 3 * gap.square().sum())
    assert FeatureMatching().d_loss(duel) is None


def test_feature_matching_alone_trains_g() -> None:
    gan = small_gan(objective=OnlyD(BCE()), terms={"feature_matching": FeatureMatching()})
    moved = watch(gan)
    fit(gan, batches=2)
    generator = {f"generator.{name}" for name, _ in gan.generator.named_parameters()}
    assert generator <= moved["g"]
    assert not generator & moved["d"]
    row = gan.history[1]
    assert row.keys() & {"train/g/real_prob", "train/g/fake_prob"} == set()


def test_historical_averages_are_the_means_of_the_past() -> None:
    term = HistoricalAverage(weight=2.0)
    gan = small_gan(terms={"history": term})
    players = {"d": gan.discriminator, "g": gan.generator}

    def copy(network: nn.Module) -> list[Tensor]:
        return [p.detach().clone() for p in network.parameters()]

    seen = {player: [copy(network)] for player, network in players.items()}
    for loss in (term.d_loss, term.g_loss):
        assert loss(Duel(gan.discriminator, images(), images())) == 0
    after = term.after_d_update

    def noted(discriminator: Discriminator) -> None:
        for player, network in players.items():
            seen[player].append(copy(network))
        after(discriminator)

    term.after_d_update = noted
    fit(gan, batches=3)
    for player, past in seen.items():
        means = [torch.stack(versions).mean(0) for versions in zip(*past, strict=True)]
        found = [*term.past[player].parameters()]
        torch.testing.assert_close(found, means)
        now = copy(players[player])
        gap = sum((a - b).square().sum() for a, b in zip(now, means, strict=True))
        loss = getattr(term, f"{player}_loss")(Duel(gan.discriminator, images(), images()))
        torch.testing.assert_close(loss.detach(), 2 * gap)


def test_historical_averages_are_not_trained_but_kept_in_checkpoints() -> None:
    gan = small_gan(terms={"history": HistoricalAverage()})
    ids = {id(p) for group in gan.parameters_of.values() for p in group}
    past = [p for name, p in gan.named_parameters() if name.startswith("terms.history.past")]
    assert len(past) == len([*gan.generator.parameters(), *gan.discriminator.parameters()])
    assert not ids & {id(p) for p in past}
    assert {name for name in gan.state_dict() if "history" in name}


@pytest.mark.parametrize(
    "make",
    [R1, R2, GradientPenalty, Dragan, FeatureMatching, HistoricalAverage],
)
def test_weights_are_numbers_of_at_least_0(make: Callable[[float], Term]) -> None:
    for wrong in (-0.1, "ten", True, math.nan):
        with pytest.raises(ValueError, match=f"{make.__name__} is {wrong}: choose a number of at"):
            make(wrong)
    make(0.0)


def test_one_bound_of_the_slope_is_enough() -> None:
    with pytest.raises(ValueError, match="wasserstein and gp both bound D's slope"):
        small_gan(
            discriminator=dcgan.Discriminator(
                widths=[4], kernels=[4, 4], strides=[2, 1], norm="layer"
            ),
            objective=Wasserstein(clip=0.01),
            terms={"gp": GradientPenalty()},
        )


@pytest.mark.parametrize("name", ["bce", "loss", "real", "fake_prob", "grad_norm"])
def test_a_term_may_not_take_the_name_of_what_is_logged_anyway(name: str) -> None:
    with pytest.raises(ValueError, match=rf"terms\.{name} has a name that is taken"):
        small_gan(terms={name: R1(1.0)})


@pytest.mark.parametrize("term", [FeatureMatching, HistoricalAverage])
def test_a_weight_that_stays_may_not_be_a_schedule(term: type[Term]) -> None:
    with pytest.raises(ValueError, match=f"the weight of {term.__name__} is a schedule"):
        term(Ramp(10, 1))
