"""Adversarial losses against closed forms."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers.gan import fit, small_gan
from torch import Tensor, nn

from ganmnist.losses.adversarial import (
    BCE,
    FGAN,
    KL,
    DiscriminatorOnly,
    Hinge,
    JensenShannon,
    LeastSquares,
    Minimax,
    Objective,
    Pearson,
    RelativisticAverage,
    RelativisticPairing,
    ReverseKL,
    SquaredHellinger,
    Wasserstein,
)
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.losses.penalties import FeatureMatching
from ganmnist.networks import mlp
from ganmnist.networks.base import Discriminator
from ganmnist.stabilizers.label_smoothing import LabelSmoothing
from ganmnist.stabilizers.spectral_norm import SpectralNorm
from ganmnist.utils.batch import Batch
from ganmnist.utils.schedules import TrainingProgress

REAL = [0.3, -1.2, 2.0, 5.0]
FAKE = [-0.7, 0.0, 1.5]


class IdentityDiscriminator(Discriminator):
    """The logits are x."""

    def features(self, batch: Batch) -> Tensor:
        return batch.x

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return features


def outputs_of(
    real: list[float], fake: list[float], dtype: torch.dtype = torch.float64
) -> DiscriminatorOutputs:
    """Outputs with these logits, which require gradients."""
    logits = (torch.tensor(values, dtype=dtype, requires_grad=True) for values in (real, fake))
    return DiscriminatorOutputs(IdentityDiscriminator(), *map(Batch, logits))


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


both = pytest.mark.parametrize("bce", [BCE(stable=True), BCE(stable=False)], ids=["logits", "prob"])


@both
def test_bce_is_the_closed_form(bce: BCE) -> None:
    out = outputs_of(REAL, FAKE)
    real = -mean([math.log(sigmoid(logit)) for logit in REAL])
    fake = -mean([math.log(1 - sigmoid(logit)) for logit in FAKE])
    torch.testing.assert_close(bce.d_loss(out).item(), real + fake)
    torch.testing.assert_close(
        bce.g_loss(out).item(), -mean([math.log(sigmoid(logit)) for logit in FAKE])
    )


@both
def test_bce_tracks_its_real_and_fake_summands(bce: BCE) -> None:
    out = outputs_of(REAL, FAKE)
    loss = bce.d_loss(out)
    assert out.tracked.keys() == {"real", "fake"}
    assert torch.equal(out.tracked["real"] + out.tracked["fake"], loss)
    torch.testing.assert_close(
        out.tracked["real"].item(), -mean([math.log(sigmoid(logit)) for logit in REAL])
    )


@both
def test_bce_gradients_are_the_closed_form(bce: BCE) -> None:
    """d/dt -log sigmoid(t) = sigmoid(t) - 1 and d/dt -log(1 - sigmoid(t)) = sigmoid(t)."""
    out = outputs_of(REAL, FAKE)
    real, fake = torch.autograd.grad(bce.d_loss(out), (out.real.x, out.fake.x))
    torch.testing.assert_close(real.tolist(), [(sigmoid(t) - 1) / len(REAL) for t in REAL])
    torch.testing.assert_close(fake.tolist(), [sigmoid(t) / len(FAKE) for t in FAKE])
    (fake,) = torch.autograd.grad(bce.g_loss(out), out.fake.x)
    torch.testing.assert_close(fake.tolist(), [(sigmoid(t) - 1) / len(FAKE) for t in FAKE])


@both
def test_bce_at_the_equilibrium(bce: BCE) -> None:
    out = outputs_of([0.0] * 3, [0.0] * 3)
    torch.testing.assert_close(bce.d_loss(out).item(), 2 * math.log(2))
    torch.testing.assert_close(bce.g_loss(out).item(), math.log(2))
    assert bce.equilibrium == (2 * math.log(2), math.log(2))


def test_only_the_stable_bce_has_gradients_where_the_sigmoid_rounds() -> None:
    """In float32 sigmoid(200) = 1 and sigmoid(-200) = 0; PyTorch clamps -log of that at 100."""
    for stable, value, slope in ((True, 200.0, 1.0), (False, 100.0, 0.0)):
        bce = BCE(stable)
        out = outputs_of([-200.0], [200.0], torch.float32)
        loss = bce.d_loss(out)
        assert loss.item() == 2 * value
        real, fake = torch.autograd.grad(loss, (out.real.x, out.fake.x))
        assert (real.item(), fake.item()) == (-slope, slope)

        out = outputs_of([0.0], [-200.0], torch.float32)
        loss = bce.g_loss(out)
        assert loss.item() == value
        assert torch.autograd.grad(loss, out.fake.x)[0].item() == -slope


class LinearDiscriminator(Discriminator):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(16, 1)

    def features(self, batch: Batch) -> Tensor:
        return batch.x

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return self.last(features).flatten()


@both
def test_bce_under_autocast_is_float32_bce_of_rounded_logits(bce: BCE) -> None:
    discriminator = LinearDiscriminator()
    real, fake = torch.randn(8, 16), torch.randn(8, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = DiscriminatorOutputs(discriminator, Batch(real), Batch(fake))
        d_loss, g_loss = bce.d_loss(out), bce.g_loss(out)
        rounded = discriminator.last(real).flatten()
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(out.real_logits, rounded.float())
    assert d_loss.dtype == g_loss.dtype == torch.float32
    plain = outputs_of(out.real_logits.tolist(), out.fake_logits.tolist(), torch.float32)
    torch.testing.assert_close(d_loss, bce.d_loss(plain), rtol=0, atol=0)
    torch.testing.assert_close(g_loss, bce.g_loss(plain), rtol=0, atol=0)
    weight = discriminator.last.weight
    *grads, weight_grad = torch.autograd.grad(d_loss, (out.real_logits, out.fake_logits, weight))
    expected = torch.autograd.grad(bce.d_loss(plain), (plain.real.x, plain.fake.x))
    torch.testing.assert_close(grads, list(expected), rtol=0, atol=0)
    assert weight_grad.isfinite().all()
    assert weight_grad.all()


def test_cross_entropy_of_probabilities_disables_autocast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With autocast, PyTorch refuses it on CUDA."""
    binary_cross_entropy, autocast = F.binary_cross_entropy, []

    def recorded(probabilities: Tensor, targets: Tensor) -> Tensor:
        autocast.append(torch.is_autocast_enabled("cpu"))
        return binary_cross_entropy(probabilities, targets)

    monkeypatch.setattr(F, "binary_cross_entropy", recorded)
    with torch.autocast("cpu", torch.bfloat16):
        BCE(stable=False).d_loss(outputs_of(REAL, FAKE))
    assert autocast == [False, False]


def test_objective_must_define_both_losses() -> None:
    out = outputs_of(REAL, FAKE)
    for loss in (Objective().d_loss, Objective().g_loss):
        with pytest.raises(NotImplementedError):
            loss(out)


@pytest.mark.parametrize("stable", [True, False])
def test_bce_of_nan_is_nan(stable: bool) -> None:
    """PyTorch's cross-entropy of probabilities raises instead, and on a GPU ends the process."""
    loss = BCE(stable).cross_entropy(torch.tensor([0.5, math.nan]), 1.0)
    assert loss.isnan()


# Objectives with the closed forms of L_D and L_G, for lists of logits r and f.


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
def test_objective_is_the_closed_form(name: str) -> None:
    objective, d_loss, g_loss = FORMS[name]
    r, f = [0.3, -1.2, 2.0, 0.7], [-0.7, 0.1, 1.5, -2.2]
    out = outputs_of(r, f)
    torch.testing.assert_close(objective.d_loss(out).item(), d_loss(r, f))
    torch.testing.assert_close(objective.g_loss(out).item(), g_loss(r, f))


@pytest.mark.parametrize("name", FORMS)
def test_objective_gradients_are_those_of_the_closed_form(name: str) -> None:
    """Against central differences, whose error is about 1e-10 here."""
    objective, *forms = FORMS[name]
    r, f, h = [0.3, -1.2, 2.0, 0.7], [-0.7, 0.1, 1.5, -2.2], 1e-5
    out = outputs_of(r, f)
    for loss, form in zip((objective.d_loss(out), objective.g_loss(out)), forms, strict=True):
        grads = torch.autograd.grad(loss, (out.real.x, out.fake.x), allow_unused=True)
        for argument, grad in enumerate(grads):
            for i in range(len(r)):
                up, down = ([list(r), list(f)] for _ in range(2))
                up[argument][i] += h
                down[argument][i] -= h
                expected = (form(*up) - form(*down)) / (2 * h)
                found = 0.0 if grad is None else grad[i].item()
                assert found == pytest.approx(expected, abs=1e-8)


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
def test_d_loss_is_stationary_at_the_equilibrium(objective: Objective, logit: float) -> None:
    """Real and generated images are equal, and so are their logits."""
    x = torch.full((3,), logit, dtype=torch.float64, requires_grad=True)
    out = DiscriminatorOutputs(IdentityDiscriminator(), Batch(x), Batch(x))
    losses = objective.d_loss(out), objective.g_loss(out)
    for loss, expected in zip(losses, objective.equilibrium, strict=True):
        if expected is not None:
            torch.testing.assert_close(loss.item(), float(expected))
    (grad,) = torch.autograd.grad(losses[0], x)
    torch.testing.assert_close(grad, torch.zeros_like(grad))


def test_only_the_non_saturating_loss_has_a_gradient_where_d_is_certain() -> None:
    for objective, expected in ((Minimax(), -sigmoid(-9)), (BCE(), sigmoid(-9) - 1)):
        out = outputs_of([9.0], [-9.0])
        (grad,) = torch.autograd.grad(objective.g_loss(out), out.fake.x)
        torch.testing.assert_close(grad.item(), expected)


def test_discriminator_only_has_no_generator_loss() -> None:
    out = outputs_of([0.3, -1.2], [0.7, 0.1])
    objective = DiscriminatorOnly(Hinge())
    assert objective.g_loss(out) is None
    assert torch.equal(objective.d_loss(out), Hinge().d_loss(out))
    assert objective.equilibrium == (2.0, None)
    assert not objective.probability
    assert DiscriminatorOnly(BCE()).probability


def test_discriminator_only_clips_weights_like_its_objective() -> None:
    d = mlp.Discriminator(widths=[2])
    objective = DiscriminatorOnly(Wasserstein(clip=0.01))
    objective.after_d_step(d)
    assert max(p.abs().max() for p in d.parameters()) == torch.tensor(0.01)
    assert objective.constrains_lipschitz
    assert not DiscriminatorOnly(Hinge()).constrains_lipschitz


def test_weight_clipping_refuses_spectral_norm() -> None:
    d = SpectralNorm().wrap_discriminator(mlp.Discriminator(widths=[2]))
    for objective in (Wasserstein(clip=0.01), DiscriminatorOnly(Wasserstein(clip=0.01))):
        with pytest.raises(ValueError, match=r"objective\.clip=0\.01"):
            objective.setup(nn.Identity(), d)
    Wasserstein(clip=None).setup(nn.Identity(), d)


@pytest.mark.parametrize(
    ("build", "setting"),
    [
        (lambda: BCE(smoothing=1.0), "smoothing=1.0"),
        (lambda: Wasserstein(clip=-0.5), "clip=-0.5"),
    ],
)
def test_settings_out_of_range_are_refused(build: Callable[[], Objective], setting: str) -> None:
    with pytest.raises(ValueError, match=setting):
        build()


def test_label_smoothing_sets_the_target_of_cross_entropies_only() -> None:
    out = outputs_of(REAL, FAKE)
    smoothing = LabelSmoothing(0.1)
    for objective in (BCE(), DiscriminatorOnly(BCE())):
        smoothed = smoothing.wrap_objective(objective)
        torch.testing.assert_close(smoothed.d_loss(out), BCE(smoothing=0.1).d_loss(out))
    with pytest.raises(ValueError, match="label_smoothing"):
        smoothing.wrap_objective(Hinge())


def test_wrapper_has_the_equilibrium_of_the_smoothed_objective() -> None:
    objective = LabelSmoothing(0.1).wrap_objective(DiscriminatorOnly(BCE()))
    assert objective.equilibrium == (BCE(smoothing=0.1).equilibrium[0], None)


def test_wrapper_calls_the_hooks_of_its_objective_once() -> None:
    class Counting(Hinge):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        def after_initialization(self, discriminator: Discriminator) -> None:
            self.calls.append("after_initialization")

        def before_d_step(self, progress: TrainingProgress) -> None:
            self.calls.append("before_d_step")

        def after_d_step(self, discriminator: Discriminator) -> None:
            self.calls.append("after_d_step")

    counting = Counting()
    objective = DiscriminatorOnly(counting, penalties={"matching": FeatureMatching()})
    fit(small_gan(objective=objective), batches=1)
    assert counting.calls == ["after_initialization", "before_d_step", "after_d_step"]


# f-divergences of p = N(1, 1) from q = N(0, 1), with the best v.


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
    """E_p a(v) - E_q phi*(a(v)), by quadrature."""
    x = torch.linspace(-14, 18, 400_001, dtype=torch.float64)
    p, q = (torch.exp(-((x - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (1.0, 0.0))
    integrand = p * objective.output_activation(v(x)) - q * objective.conjugate_of_output(v(x))
    return torch.trapezoid(integrand, x).item()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_best_fgan_discriminator_attains_the_divergence(name: str) -> None:
    objective, best, divergence = DIVERGENCES[name]
    assert bound(objective, best) == pytest.approx(divergence, abs=1e-7)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_other_fgan_discriminators_stay_below_the_divergence(name: str) -> None:
    objective, best, divergence = DIVERGENCES[name]
    for other in (0.1, -0.1):
        assert bound(objective, lambda x, other=other: best(x) + other) < divergence - 1e-4
        assert bound(objective, lambda x, o=other: best(x) + o * torch.sin(x)) < divergence - 1e-4


def test_label_smoothing_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smoothing=0\.2 already"):
        LabelSmoothing(0.1).wrap_objective(BCE(smoothing=0.2))
