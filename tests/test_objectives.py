"""Adversarial losses against closed forms."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.duel import Duel, Sample
from ganmnist.networks import mlp
from ganmnist.networks.base import Discriminator
from ganmnist.networks.stabilizers import SpectralNorm
from ganmnist.objectives import (
    BCE,
    FGAN,
    KL,
    Hinge,
    JensenShannon,
    LeastSquares,
    Minimax,
    Objective,
    OnlyD,
    Pearson,
    RelativisticAverage,
    RelativisticPairing,
    ReverseKL,
    SquaredHellinger,
    Wasserstein,
)

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


# Closed forms: (class and its settings, L_D, L_G), of lists of logits r and f.


def softplus(t: float) -> float:
    return math.log(1 + math.exp(t))


def pairs(r: list[float], f: list[float]) -> list[tuple[float, float]]:
    return list(zip(r, f, strict=True))


Loss = Callable[[list[float], list[float]], float]
FORMS: dict[str, tuple[Objective, Loss, Loss]] = {
    "minimax": (
        Minimax(),
        lambda r, f: mean([softplus(-t) for t in r]) + mean([softplus(t) for t in f]),
        lambda r, f: mean([math.log(1 - sigmoid(t)) for t in f]),
    ),
    "smoothed": (
        BCE(smoothing=0.1),
        lambda r, f: (
            mean([-0.9 * math.log(sigmoid(t)) - 0.1 * math.log(1 - sigmoid(t)) for t in r])
            + mean([softplus(t) for t in f])
        ),
        lambda r, f: mean([softplus(-t) for t in f]),
    ),
    "least squares": (
        LeastSquares(),
        lambda r, f: mean([(t - 1) ** 2 / 2 for t in r]) + mean([t**2 / 2 for t in f]),
        lambda r, f: mean([(t - 1) ** 2 / 2 for t in f]),
    ),
    "least squares, other targets": (
        LeastSquares(a=-1, b=2, c=0.5),
        lambda r, f: mean([(t - 2) ** 2 / 2 for t in r]) + mean([(t + 1) ** 2 / 2 for t in f]),
        lambda r, f: mean([(t - 0.5) ** 2 / 2 for t in f]),
    ),
    "wasserstein": (Wasserstein(), lambda r, f: mean(f) - mean(r), lambda r, f: -mean(f)),
    "hinge": (
        Hinge(),
        lambda r, f: mean([max(0, 1 - t) for t in r]) + mean([max(0, 1 + t) for t in f]),
        lambda r, f: -mean(f),
    ),
    "relativistic pairing": (
        RelativisticPairing(),
        lambda r, f: mean([softplus(b - a) for a, b in pairs(r, f)]),
        lambda r, f: mean([softplus(a - b) for a, b in pairs(r, f)]),
    ),
    "relativistic average": (
        RelativisticAverage(),
        lambda r, f: (
            mean([-math.log(sigmoid(t - mean(f))) for t in r])
            + mean([-math.log(1 - sigmoid(t - mean(r))) for t in f])
        ),
        lambda r, f: (
            mean([-math.log(sigmoid(t - mean(r))) for t in f])
            + mean([-math.log(1 - sigmoid(t - mean(f))) for t in r])
        ),
    ),
    "KL": (
        KL(),
        lambda r, f: mean([math.exp(t - 1) for t in f]) - mean(r),
        lambda r, f: -mean(f),
    ),
    "reverse KL": (
        ReverseKL(),
        lambda r, f: (
            mean([-1 - math.log(math.exp(-t)) for t in f]) + mean([math.exp(-t) for t in r])
        ),
        lambda r, f: mean([math.exp(-t) for t in f]),
    ),
    "Jensen-Shannon": (
        JensenShannon(),
        lambda r, f: (
            mean([-math.log(2 - 2 * sigmoid(t)) for t in f])
            - mean([math.log(2 * sigmoid(t)) for t in r])
        ),
        lambda r, f: -mean([math.log(2 * sigmoid(t)) for t in f]),
    ),
    "Pearson": (
        Pearson(),
        lambda r, f: mean([t**2 / 4 + t for t in f]) - mean(r),
        lambda r, f: -mean(f),
    ),
    "squared Hellinger": (
        SquaredHellinger(),
        lambda r, f: (
            mean([(1 - math.exp(-t)) / math.exp(-t) for t in f])
            - mean([1 - math.exp(-t) for t in r])
        ),
        lambda r, f: -mean([1 - math.exp(-t) for t in f]),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_an_objective_is_its_closed_form(name: str) -> None:
    objective, d_loss, g_loss = FORMS[name]
    r, f = [0.3, -1.2, 2.0, 0.7], [-0.7, 0.1, 1.5, -2.2]
    duel = duel_of(r, f)
    torch.testing.assert_close(objective.d_loss(duel).item(), d_loss(r, f))
    torch.testing.assert_close(objective.g_loss(duel).item(), g_loss(r, f))


@pytest.mark.parametrize("name", FORMS)
def test_an_objective_s_gradients_are_those_of_its_closed_form(name: str) -> None:
    """Central differences of the closed form, whose error is of the order of 1e-10 here."""
    objective, *forms = FORMS[name]
    r, f, h = [0.3, -1.2, 2.0, 0.7], [-0.7, 0.1, 1.5, -2.2], 1e-5
    duel = duel_of(r, f)
    for loss, form in zip((objective.d_loss(duel), objective.g_loss(duel)), forms, strict=True):
        sides = torch.autograd.grad(loss, (duel.real.x, duel.fake.x), allow_unused=True)
        for side, grad in enumerate(sides):
            for i in range(len(r)):
                up, down = ([list(r), list(f)] for _ in range(2))
                up[side][i] += h
                down[side][i] -= h
                slope = (form(*up) - form(*down)) / (2 * h)
                found = 0.0 if grad is None else grad[i].item()
                assert found == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize(
    ("objective", "logit"),
    [
        (BCE(), 0.0),
        (BCE(smoothing=0.1), math.log(0.45 / 0.55)),
        (Minimax(), 0.0),
        (LeastSquares(), 0.5),
        (LeastSquares(a=-1, b=1, c=0), 0.0),
        (Wasserstein(), 3.0),
        (Hinge(), 0.4),
        (RelativisticPairing(), 3.0),
        (RelativisticAverage(), 3.0),
        (KL(), 1.0),
        (ReverseKL(), 0.0),
        (JensenShannon(), 0.0),
        (Pearson(), 0.0),
        (SquaredHellinger(), 0.0),
    ],
)
def test_the_equilibrium_is_where_neither_player_moves(objective: Objective, logit: float) -> None:
    """Real and generated images are alike, so are their logits, and L_D has no slope there."""
    x = torch.full((3,), logit, dtype=torch.float64, requires_grad=True)
    duel = Duel(Given(), Sample(x), Sample(x))
    losses = objective.d_loss(duel), objective.g_loss(duel)
    for loss, expected in zip(losses, objective.equilibrium, strict=True):
        if expected is not None:
            torch.testing.assert_close(loss.item(), float(expected))
    (slope,) = torch.autograd.grad(losses[0], x)
    torch.testing.assert_close(slope, torch.zeros_like(slope))


def test_minimax_has_no_gradient_where_d_is_sure_and_the_other_form_has() -> None:
    for objective, slope in ((Minimax(), -sigmoid(-9)), (BCE(), sigmoid(-9) - 1)):
        duel = duel_of([9.0], [-9.0])
        (grad,) = torch.autograd.grad(objective.g_loss(duel), duel.fake.x)
        torch.testing.assert_close(grad.item(), slope)


def test_only_d_leaves_g_to_others() -> None:
    duel = duel_of([0.3, -1.2], [0.7, 0.1])
    objective = OnlyD(Hinge())
    assert objective.g_loss(duel) is None
    assert torch.equal(objective.d_loss(duel), Hinge().d_loss(duel))
    assert objective.equilibrium == (2.0, None)
    assert not objective.probability
    assert OnlyD(BCE()).probability


def test_only_d_bounds_d_as_its_game_does() -> None:
    d = mlp.Discriminator(widths=[2])
    objective = OnlyD(Wasserstein(clip=0.01))
    objective.after_d_update(d)
    assert max(p.abs().max() for p in d.parameters()) == torch.tensor(0.01)
    assert objective.bounds_slope
    assert not OnlyD(Hinge()).bounds_slope
    with pytest.raises(ValueError, match=r"clip=0\.01"):
        objective.setup(nn.Identity(), SpectralNorm(mlp.Discriminator(widths=[2])))


@pytest.mark.parametrize(
    ("build", "value"),
    [(lambda: BCE(smoothing=1.0), "1.0"), (lambda: Wasserstein(clip=-0.5), "-0.5")],
)
def test_settings_out_of_range_are_refused(build: Callable[[], Objective], value: str) -> None:
    with pytest.raises(ValueError, match=value):
        build()


# f-divergences of p = N(1, 1) from q = N(0, 1), at the best variational function.


def log_ratio(x: Tensor) -> Tensor:
    """log p(x) / q(x)"""
    return x - 0.5


def jensen_shannon() -> float:
    x = torch.linspace(-12, 13, 200_001, dtype=torch.float64)
    p, q = (torch.exp(-((x - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (1.0, 0.0))
    half = (p + q) / 2
    terms = torch.xlogy(p, p / half) + torch.xlogy(q, q / half)
    return torch.trapezoid(terms, x).item()


DIVERGENCES: dict[str, tuple[FGAN, Callable[[Tensor], Tensor], float]] = {
    "KL": (KL(), lambda x: 1 + log_ratio(x), 0.5),
    "reverse KL": (ReverseKL(), log_ratio, 0.5),
    "Jensen-Shannon, twice": (JensenShannon(), log_ratio, jensen_shannon()),
    "Pearson": (Pearson(), lambda x: 2 * (log_ratio(x).exp() - 1), math.e - 1),
    "squared Hellinger": (
        SquaredHellinger(),
        lambda x: log_ratio(x) / 2,
        2 - 2 * math.exp(-1 / 8),
    ),
}


def bound(objective: FGAN, v: Callable[[Tensor], Tensor]) -> float:
    """E_p g(v) - E_q f*(g(v)) by quadrature: the objective's own terms, weighted by densities."""
    x = torch.linspace(-14, 18, 400_001, dtype=torch.float64)
    p, q = (torch.exp(-((x - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (1.0, 0.0))
    integrand = p * objective.output(v(x)) - q * objective.conjugate(v(x))
    return torch.trapezoid(integrand, x).item()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_f_gan_s_best_discriminator_attains_the_divergence(name: str) -> None:
    objective, best, divergence = DIVERGENCES[name]
    assert bound(objective, best) == pytest.approx(divergence, abs=1e-7)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_every_other_discriminator_falls_short_of_the_divergence(name: str) -> None:
    objective, best, divergence = DIVERGENCES[name]
    for other in (0.1, -0.1):
        assert bound(objective, lambda x, other=other: best(x) + other) < divergence - 1e-4
        assert bound(objective, lambda x, o=other: best(x) + o * torch.sin(x)) < divergence - 1e-4


@pytest.mark.parametrize("name", DIVERGENCES)
def test_f_gan_s_loss_is_made_of_those_terms(name: str) -> None:
    objective = DIVERGENCES[name][0]
    duel = duel_of(REAL, FAKE)
    real, fake = duel.real_logits, duel.fake_logits
    expected = objective.conjugate(fake).mean() - objective.output(real).mean()
    assert torch.equal(objective.d_loss(duel), expected)
    assert torch.equal(objective.g_loss(duel), -objective.output(fake).mean())
