"""Penalties against discriminators whose gradients are known."""

import math
from collections.abc import Callable

import pytest
import torch
from helpers.data import images
from helpers.gan import fit, small_gan, watch
from torch import Tensor, nn

from ganmnist.losses.adversarial import BCE, DiscriminatorOnly
from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.losses.penalties import (
    R1,
    R2,
    Dragan,
    FeatureMatching,
    GradientPenalty,
    HistoricalAverage,
    Penalty,
)
from ganmnist.networks import dcgan
from ganmnist.networks.base import Discriminator
from ganmnist.networks.encoders import LatentDiscriminator
from ganmnist.stabilizers.pacgan import PackedDiscriminator
from ganmnist.stabilizers.unrolled import Unrolled
from ganmnist.utils.batch import Batch
from ganmnist.utils.schedules import Linear, TrainingProgress


class LinearDiscriminator(Discriminator):
    """w . x + b, whose gradient is w everywhere."""

    def __init__(self, n: int = 64) -> None:
        super().__init__()
        self.n_features = n
        self.w = nn.Linear(n, 1)

    def features(self, batch: Batch) -> Tensor:
        return batch.x.flatten(1)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return self.w(features).flatten()


class QuadraticDiscriminator(LinearDiscriminator):
    """|x|^2 / 2, whose gradient is x."""

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return features.square().sum(1) / 2 + 0 * self.w(features).flatten()


def outputs_of(discriminator: Discriminator, n: int = 8) -> DiscriminatorOutputs:
    real, fake = (images(n).detach(requires_grad=True) for _ in range(2))
    return DiscriminatorOutputs(discriminator, real, fake)


def squared_norm(x: Tensor) -> Tensor:
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
def test_penalty_of_a_linear_discriminator_is_the_closed_form(name: str) -> None:
    """dD/dx = w everywhere, so the penalty and its gradient are closed forms."""
    build, form = PENALTIES[name]
    discriminator = LinearDiscriminator()
    w = discriminator.w.weight
    loss = build().d_loss(outputs_of(discriminator))
    torch.testing.assert_close(loss, form(w))
    (found,) = torch.autograd.grad(loss, w)
    (expected,) = torch.autograd.grad(form(w), w)
    torch.testing.assert_close(found, expected)


def test_r1_is_half_gamma_times_squared_gradient_at_real_and_r2_at_generated_images() -> None:
    """The gradient of |x|^2 / 2 is x."""
    out = outputs_of(QuadraticDiscriminator())
    torch.testing.assert_close(R1(2.0).d_loss(out), squared_norm(out.real.x).mean())
    torch.testing.assert_close(R2(2.0).d_loss(out), squared_norm(out.fake.x).mean())


def test_gradient_penalty_points_lie_between_real_and_generated_images() -> None:
    real, fake = torch.full((500, 1, 8, 8), 0.5), torch.full((500, 1, 8, 8), -0.5)
    x_hat = GradientPenalty().points({"x": real}, {"x": fake})["x"]
    t = (x_hat - fake).flatten(1) / 1.0
    assert torch.equal(t, t[:, :1].expand(-1, 64))  # one t per image
    assert 0 <= t.min() < 0.02
    assert 0.98 < t.max() <= 1
    # A uniform t has mean 1/2 and variance 1/12: five standard errors of 500 values.
    assert abs(t[:, 0].mean() - 0.5) < 5 * math.sqrt(1 / 12 / 500)


def test_dragan_points_lie_around_real_images() -> None:
    out = outputs_of(QuadraticDiscriminator(), n=200)
    x = out.real.x
    x_hat = Dragan().points({"x": x}, {})["x"]
    steps = (x_hat - x).detach() / (x.std() / 2)
    assert steps.min() >= -1e-6
    assert 0.8 < steps.max() <= 1 + 1e-6
    # The product of two independent uniform numbers has mean 1/4 and variance 7/144.
    assert abs(steps.mean() - 0.25) < 5 * math.sqrt(7 / 144 / 200)


class PairDiscriminator(Discriminator):
    """a . x + |z|^2 / 2, whose gradient is (a, z)."""

    input_fields = frozenset("xz")

    def __init__(self) -> None:
        super().__init__()
        self.n_features = 68
        self.a = nn.Parameter(torch.randn(64) / 8)

    def features(self, batch: Batch) -> Tensor:
        return torch.cat([batch.x.flatten(1), batch.latents], 1)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        x, z = features.split([64, 4], 1)
        return x @ self.a + z.square().sum(1) / 2


def pairs(n: int = 8) -> Batch:
    return images(n)._replace(z=torch.randn(n, 4)).detach(requires_grad=True)


def test_gradient_norm_includes_image_and_latent() -> None:
    """The squared norm of the gradient of a . x + |z|^2 / 2 is |a|^2 + |z|^2."""
    d = PairDiscriminator()
    out = DiscriminatorOutputs(d, pairs(), pairs())
    for penalty, z in ((R1(2.0), out.real.z), (R2(2.0), out.fake.z)):
        expected = d.a.square().sum() + z.square().sum(1).mean()
        torch.testing.assert_close(penalty.d_loss(out), expected)
    same = pairs()  # every point is the pair itself
    loss = GradientPenalty(weight=1.0).d_loss(DiscriminatorOutputs(d, same, same))
    norms = (d.a.square().sum() + same.z.square().sum(1)).sqrt()
    torch.testing.assert_close(loss, (norms - 1).square().mean())


def test_image_and_latent_of_a_point_have_the_same_t() -> None:
    zeros = {"x": torch.zeros(50, 1, 8, 8), "z": torch.zeros(50, 4)}
    ones = {name: torch.ones_like(value) for name, value in zeros.items()}
    points = GradientPenalty().points(ones, zeros)
    assert torch.equal(points["x"].flatten(1)[:, :4], points["z"])
    assert len(points["z"][:, 0].unique()) == 50


@pytest.mark.parametrize("penalty", [R1(2.0), R2(2.0), GradientPenalty(1.0), Dragan(1.0)])
def test_penalty_of_a_latent_discriminator_uses_the_latent(penalty: Penalty) -> None:
    d = LatentDiscriminator(4, widths=[])
    w = d.last.weight.square().sum()
    expected = w if isinstance(penalty, R1 | R2) else (w.sqrt() - 1).square()
    torch.testing.assert_close(penalty.d_loss(DiscriminatorOutputs(d, pairs(), pairs())), expected)


def test_penalty_of_a_packed_discriminator_includes_all_images_of_a_pack() -> None:
    inner = LinearDiscriminator(n=128)
    loss = R1(gamma=2.0).d_loss(outputs_of(PackedDiscriminator(inner, m=2)))
    torch.testing.assert_close(loss, inner.w.weight.square().sum())
    loss = GradientPenalty(weight=1.0).d_loss(outputs_of(PackedDiscriminator(inner, m=2)))
    torch.testing.assert_close(loss, (inner.w.weight.norm() - 1).square())


@each
def test_penalty_trains_d_only(name: str) -> None:
    """D's other loss is 0, so only the penalty changes D."""

    class ZeroLoss(BCE):
        def d_loss(self, out: DiscriminatorOutputs) -> Tensor:
            return 0 * super().d_loss(out)

    d = dcgan.Discriminator(widths=[4], kernels=[4, 4], strides=[2, 1], norm="none")
    gan = small_gan(discriminator=d, objective=ZeroLoss(), penalties={"it": PENALTIES[name][0]()})
    moved = watch(gan)
    fit(gan, batches=1)
    # With LeakyReLU, dD/dx does not depend on a bias.
    weights = {name for name, _ in d.named_parameters() if not name.endswith("bias")}
    assert moved["d"] == {f"discriminator.{name}" for name in weights}
    assert all(p.isfinite().all() for p in d.parameters())
    assert "train/d/it" in gan.pending_scalars[1]


def test_gradient_penalty_has_finite_gradients_for_a_constant_discriminator() -> None:
    """The norm is not differentiable at 0; its subgradient is 0."""
    discriminator = LinearDiscriminator()
    nn.init.zeros_(discriminator.w.weight)
    loss = GradientPenalty(weight=1.0).d_loss(outputs_of(discriminator))
    assert loss.item() == 1
    assert torch.autograd.grad(loss, discriminator.w.weight)[0].isfinite().all()


def test_lazy_penalty_is_computed_every_nth_step_with_n_times_the_weight() -> None:
    out = outputs_of(LinearDiscriminator())
    always, lazy = R1(gamma=2.0), R1(gamma=2.0, interval=4)
    losses = []
    for d_iteration in range(1, 9):
        lazy.before_d_step(TrainingProgress(d_iteration, 0.0))
        assert lazy.needs_real_grad == (d_iteration % 4 == 0)
        losses.append(lazy.d_loss(out))
    assert [i for i, loss in enumerate(losses, 1) if loss is not None] == [4, 8]
    torch.testing.assert_close(losses[3], 4 * always.d_loss(out))


def test_penalty_weight_follows_a_schedule() -> None:
    penalty = R1(gamma=Linear(start=10.0, end=2.0))
    out = outputs_of(LinearDiscriminator())
    first = penalty.d_loss(out)
    penalty.before_d_step(TrainingProgress(1, 0.5))
    torch.testing.assert_close(penalty.d_loss(out), first * 0.6)
    penalty.before_d_step(TrainingProgress(1, 1.0))
    torch.testing.assert_close(penalty.d_loss(out), first * 0.2)


def test_training_updates_lazy_and_scheduled_penalties() -> None:
    terms = {
        "lazy": R1(gamma=1.0, interval=3),
        "annealed": R2(gamma=Linear(start=1.0, end=0.0)),
    }
    gan = small_gan(discriminator=LinearDiscriminator(), penalties=terms)
    fit(gan, batches=6)
    assert [n for n, row in gan.pending_scalars.items() if "train/d/lazy" in row] == [3, 6]
    assert gan.pending_scalars[5]["train/d/annealed"] > 0
    assert gan.pending_scalars[6]["train/d/annealed"] == 0


class LogitDrift(Penalty):
    """A user's penalty, without an input gradient."""

    def penalty(self, out: DiscriminatorOutputs) -> Tensor:
        return out.real_logits.square().mean()


def test_penalty_without_an_input_gradient_supports_unrolling() -> None:
    penalties = {"drift": LogitDrift(1.0, interval=2)}
    gan = small_gan(penalties=penalties, stabilizers={"unrolled": Unrolled(1)})
    fit(gan, batches=2)
    assert [n for n, row in gan.pending_scalars.items() if "train/d/drift" in row] == [2]


class GradientAtReal(LogitDrift):
    needs_real_grad = True


def test_penalty_keeps_the_needs_of_its_class() -> None:
    penalty = GradientAtReal(1.0)
    penalty.before_d_step(TrainingProgress(1, 0.0))
    assert penalty.needs_real_grad
    assert not penalty.needs_fake_grad


@pytest.mark.parametrize("penalty", [GradientPenalty, Dragan])
def test_gradient_penalty_refuses_batch_norm(penalty: type[GradientPenalty]) -> None:
    with pytest.raises(ValueError, match=r"model\.discriminator\.norm="):
        small_gan(penalties={"it": penalty()})


def test_interval_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="interval=0"):
        R1(gamma=1.0, interval=0)


# Feature matching and historical averages


def test_feature_matching_is_the_squared_distance_of_mean_features() -> None:
    out = outputs_of(LinearDiscriminator())
    gap = out.real.x.flatten(1).mean(0) - out.fake.x.flatten(1).mean(0)
    torch.testing.assert_close(FeatureMatching(weight=3.0).g_loss(out), 3 * gap.square().sum())
    assert FeatureMatching().d_loss(out) is None


def test_feature_matching_trains_g_without_an_adversarial_loss() -> None:
    objective = DiscriminatorOnly(BCE(), penalties={"feature_matching": FeatureMatching()})
    gan = small_gan(objective=objective)
    moved = watch(gan)
    fit(gan, batches=2)
    generator = {f"generator.{name}" for name, _ in gan.generator.named_parameters()}
    assert generator <= moved["g"]
    assert not generator & moved["d"]
    assert gan.pending_scalars[1].keys() & {"train/g/real_prob", "train/g/fake_prob"} == set()


def test_historical_average_is_the_mean_of_all_past_weights() -> None:
    term = HistoricalAverage(weight=2.0)
    gan = small_gan(penalties={"history": term})
    networks = {"d": gan.discriminator, "g": gan.generator}

    def copy(network: nn.Module) -> list[Tensor]:
        return [p.detach().clone() for p in network.parameters()]

    versions = {name: [copy(network)] for name, network in networks.items()}
    for loss in (term.d_loss, term.g_loss):
        assert loss(DiscriminatorOutputs(gan.discriminator, images(), images())) == 0
    after_d_step = term.after_d_step

    def recorded(discriminator: Discriminator) -> None:
        for name, network in networks.items():
            versions[name].append(copy(network))
        after_d_step(discriminator)

    term.after_d_step = recorded
    fit(gan, batches=3)
    for name, past in versions.items():
        means = [torch.stack(values).mean(0) for values in zip(*past, strict=True)]
        torch.testing.assert_close([*term.past[name].parameters()], means)
        now = copy(networks[name])
        distance = sum((a - b).square().sum() for a, b in zip(now, means, strict=True))
        torch.testing.assert_close(term.distance(name).detach(), 2 * distance)


def test_historical_average_is_saved_and_not_trained() -> None:
    gan = small_gan(penalties={"history": HistoricalAverage()})
    trained = {p for parameters in gan.parameters_of.values() for p in parameters}
    past = {name: p for name, p in gan.named_parameters() if ".history.past." in name}
    assert len(past) == len([*gan.generator.parameters(), *gan.discriminator.parameters()])
    assert not trained & {*past.values()}
    assert past.keys() <= gan.state_dict().keys()


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (R1, "R1: gamma"),
        (R2, "R2: gamma"),
        *((make, f"{make.__name__}: weight") for make in (GradientPenalty, Dragan)),
        *((make, f"{make.__name__}: weight") for make in (FeatureMatching, HistoricalAverage)),
    ],
)
def test_weight_is_zero_or_more(make: Callable[[float], LossTerm], setting: str) -> None:
    for wrong in (-0.1, "ten", True, math.nan):
        with pytest.raises(ValueError, match=f"{setting}={wrong}"):
            make(wrong)
    make(0.0)


@pytest.mark.parametrize("term", [FeatureMatching, HistoricalAverage])
def test_constant_weight_refuses_a_schedule(term: type[LossTerm]) -> None:
    with pytest.raises(ValueError, match=f"{term.__name__}: weight"):
        term(Linear(10, 1))
