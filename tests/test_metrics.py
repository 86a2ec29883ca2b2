"""Metrics against closed forms and brute force."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import RandomImages
from torch import Tensor, nn

from ganmnist.errors import UserError
from ganmnist.metrics import (
    FID,
    KID,
    PRDC,
    ClassKL,
    InceptionScore,
    Memorization,
    Metric,
    Modes,
    Parzen,
    Real,
    Seen,
    inception,
)
from ganmnist.metrics.fid import frechet_distance
from ganmnist.metrics.inception import InceptionFID
from ganmnist.metrics.neighbours import BLOCK, nearest, radii
from ganmnist.metrics.parzen import GRIDS
from ganmnist.rng import generator_for

ODD = 2 * BLOCK + 7  # rows that fill no whole number of blocks


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def points(*rows: float) -> Tensor:
    """Features (N, 1) on a line."""
    return torch.tensor(rows, dtype=torch.float64)[:, None]


def saying(classes: Tensor | Sequence[int]) -> Tensor:
    """Logits (N, K, 10) that are certain of classes (N, K), or (N, 1, 10) of classes (N,)."""
    classes = torch.as_tensor(classes)
    return 1e4 * F.one_hot(classes.view(len(classes), -1), 10).double()


def seen(features: Tensor | None = None, logits: Tensor | None = None) -> Seen:
    n = len(logits if features is None else features)
    return Seen(
        torch.zeros(n, 1, 1, 1, dtype=torch.uint8),
        normal(n, 2) if features is None else features,
        normal(n, 1, 10) if logits is None else logits,
    )


def real(**parts: Seen) -> Any:
    """Stands for the real images: some of test, train and validation."""
    made = Real.__new__(Real)
    made.__dict__.update(parts)
    return made


# Frechet distance


def gaussian(mean: Tensor, covariance: Tensor, n: int = 50) -> Tensor:
    """Samples (n, F) whose own mean and covariance are these."""
    x = normal(n, len(mean))
    x -= x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False)
    return mean + (torch.linalg.cholesky(covariance) @ white).T


def spd(size: int) -> Tensor:
    root = normal(size, size)
    return root @ root.T + torch.eye(size)


def rotation(size: int) -> Tensor:
    return torch.linalg.qr(normal(size, size)).Q


def test_frechet_distance_of_covariances_with_the_same_axes() -> None:
    """|m_1 - m_2|^2 + sum (s_1 - s_2)^2, for standard deviations s along any common axes."""
    m, s = normal(2, 4), normal(2, 4).abs() + 0.1
    expected = ((m[0] - m[1]).square().sum() + (s[0] - s[1]).square().sum()).item()
    a, b = (gaussian(m[i], s[i].square().diag(), n) for i, n in enumerate((50, 31)))
    torch.testing.assert_close(frechet_distance(a, b), expected)
    q = rotation(4)
    torch.testing.assert_close(frechet_distance(a @ q, b @ q), expected)


def test_frechet_distance_in_the_plane() -> None:
    """tr (C_1 C_2)^(1/2) = (tr C_1 C_2 + 2 (det C_1 C_2)^(1/2))^(1/2), whatever the axes."""
    m, c, d = normal(2, 2), spd(2), spd(2)
    root = ((c @ d).trace() + 2 * (c @ d).det().sqrt()).sqrt()
    expected = (m[0] - m[1]).square().sum() + c.trace() + d.trace() - 2 * root
    ours = frechet_distance(gaussian(m[0], c), gaussian(m[1], d))
    torch.testing.assert_close(ours, expected.item())


def test_frechet_distance_of_samples() -> None:
    """tr (C_1 C_2)^(1/2) = tr (S C_2 S)^(1/2) with S S = C_1."""
    a, b = normal(80, 7) @ normal(7, 7), normal(50, 7) @ normal(7, 7) + 1
    x, y = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)).square().sum()).item()
    values, vectors = np.linalg.eigh(x)
    root = vectors * np.sqrt(values) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ y @ root)).sum()
    expected += np.trace(x + y).item() - 2 * shared.item()
    torch.testing.assert_close(frechet_distance(a, b), expected)


def test_frechet_distance_is_symmetric_and_0_for_equal_sets() -> None:
    a, b = normal(40, 5), normal(60, 5) + 1
    torch.testing.assert_close(frechet_distance(a, b), frechet_distance(b, a))
    for order in (torch.arange(40), *(torch.randperm(40) for _ in range(10))):
        distance = frechet_distance(a, a[order])
        torch.testing.assert_close(distance, 0.0)
        assert distance >= 0


def test_frechet_distance_with_a_feature_that_is_always_0() -> None:
    a, b = normal(40, 5), normal(60, 5) + 1
    with_dead = [F.pad(x, (0, 1)) for x in (a, b)]
    torch.testing.assert_close(frechet_distance(*with_dead), frechet_distance(a, b))


def test_frechet_distance_is_computed_in_float64() -> None:
    """A shift by 0.001 changes the means alone; in float32 the covariances would hide it."""
    a = normal(100, 5) + 10
    torch.testing.assert_close(frechet_distance(a, a + 1e-3), 5e-6, rtol=1e-7, atol=0)


def test_fid_and_its_floor_compare_with_the_test_images() -> None:
    x = normal(50, 3)
    parts = real(test=seen(x), validation=seen(x + 2), train=seen(x + 5))
    expected = {"fid": 3 * 1.0, "fid_floor": 3 * 4.0}
    torch.testing.assert_close(FID()(seen(x + 1), parts), expected)


# Kernel distance


def kernel(x: list[float], y: list[float]) -> float:
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def mmd2(x: list[list[float]], y: list[list[float]]) -> float:
    """Unbiased: no sample is compared with itself."""

    def within(z: list[list[float]]) -> float:
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
        return sum(kernel(z[i], z[j]) for i, j in pairs) / len(pairs)

    across = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * across


def test_kid_is_the_unbiased_mmd() -> None:
    x, y = normal(12, 4), normal(12, 4) + 0.5
    kid = KID(subsets=3, subset_size=12)(seen(x), real(test=seen(y)))
    torch.testing.assert_close(kid, {"kid": mmd2(x.tolist(), y.tolist())})


def test_kid_is_the_mean_over_random_subsets() -> None:
    x, y = normal(15, 4), normal(12, 4) + 0.5
    kid = KID(subsets=3, subset_size=5)(seen(x), real(test=seen(y)))
    rng, each = generator_for("kid"), []
    for _ in range(3):
        theirs, ours = (z[torch.randperm(len(z), generator=rng)[:5]].tolist() for z in (y, x))
        each.append(mmd2(ours, theirs))
    torch.testing.assert_close(kid, {"kid": sum(each) / 3})


@pytest.mark.parametrize(("generated", "test"), [(30, 8), (8, 30), (8, 8)])
def test_kid_of_fewer_images_than_a_subset_takes(generated: int, test: int) -> None:
    """Subsets have 8 then. Where the larger set is one image, again and again, all are alike."""
    x = normal(8, 4) if generated == 8 else normal(1, 4).expand(generated, 4)
    y = normal(8, 4) if test == 8 else normal(1, 4).expand(test, 4)
    kid = KID(subsets=2, subset_size=1000)(seen(x), real(test=seen(y)))
    torch.testing.assert_close(kid, {"kid": mmd2(x[:8].tolist(), y[:8].tolist())})


# Inception score


def parts(n: int) -> tuple[Tensor, ...]:
    """Which of `n` images are in which of the ten parts."""
    return torch.randperm(n, generator=generator_for("inception score")).chunk(10)


def inception_score(logits: Tensor) -> float:
    (score,) = InceptionScore()(seen(logits=logits), real()).values()
    return score


def test_inception_score_of_certain_and_even_classes_is_10() -> None:
    classes = torch.empty(200, dtype=torch.long)
    for part in parts(200):
        classes[part] = torch.arange(20) % 10
    torch.testing.assert_close(inception_score(saying(classes)), 10.0)


def test_inception_score_of_identical_images_is_1() -> None:
    for row in (normal(1, 1, 10), saying([3]), torch.zeros(1, 1, 10, dtype=torch.float64)):
        torch.testing.assert_close(inception_score(row.expand(50, 1, 10)), 1.0)


@pytest.mark.parametrize("never", [-1e4, -math.inf])
def test_inception_score_of_two_classes(never: float) -> None:
    """(p, 1-p) and (1-p, p) alike often: KL = ln 2 - H(p), and exp of it 2 p^p (1-p)^(1-p)."""
    p = 0.8
    logits = torch.full((200, 1, 10), never, dtype=torch.float64)
    for part in parts(200):
        first, second = part.chunk(2)
        logits[first, 0, :2] = torch.tensor([p, 1 - p], dtype=torch.float64).log()
        logits[second, 0, :2] = torch.tensor([1 - p, p], dtype=torch.float64).log()
    expected = 2 * p**p * (1 - p) ** (1 - p)
    torch.testing.assert_close(inception_score(logits), expected)


@pytest.mark.parametrize(("n", "digits"), [(100, 1), (101, 1), (3, 1), (40, 3)])
def test_inception_score_is_the_mean_over_ten_parts(n: int, digits: int) -> None:
    logits = 3 * normal(n, digits, 10)
    p = logits.flatten(0, 1).softmax(1)
    scores = []
    for part in parts(n * digits):
        rows, marginal = p[part].tolist(), p[part].mean(0).tolist()
        kl = [sum(a * math.log(a / b) for a, b in zip(r, marginal, strict=True)) for r in rows]
        scores.append(math.exp(sum(kl) / len(kl)))
    torch.testing.assert_close(inception_score(logits), sum(scores) / len(scores))


# Precision, recall, density, coverage


def prdc(x: Tensor, y: Tensor, k: int = 5) -> dict[str, float]:
    """Of real features x and generated ones y."""
    return PRDC(k)(seen(y), real(test=seen(x)))


def balls(points: list[list[float]], k: int) -> list[tuple[list[float], float]]:
    """Each point with the distance to its k-th nearest among the others."""
    others = [points[:i] + points[i + 1 :] for i in range(len(points))]
    return [
        (p, sorted(math.dist(p, q) for q in rest)[k - 1])
        for p, rest in zip(points, others, strict=True)
    ]


@pytest.mark.parametrize(("n", "m"), [(60, 47), (30, 61), (ODD, 80), (80, ODD)])
def test_prdc_is_that_of_its_definition(n: int, m: int) -> None:
    k, x, y = 5, normal(n, 3), normal(m, 3) + 1
    real_balls, fake_balls = balls(x.tolist(), k), balls(y.tolist(), k)
    in_real = [[math.dist(c, p) <= r for p in y.tolist()] for c, r in real_balls]
    in_fake = [[math.dist(c, p) <= r for p in x.tolist()] for c, r in fake_balls]
    expected = {
        "precision": sum(map(any, zip(*in_real, strict=True))) / m,
        "recall": sum(map(any, zip(*in_fake, strict=True))) / n,
        "density": sum(map(sum, in_real)) / (k * m),
        "coverage": sum(map(any, in_real)) / n,
    }
    torch.testing.assert_close(prdc(x, y, k), expected)


def test_prdc_by_hand() -> None:
    """Real balls [-1, 1], [0, 2], [1, 5], [13, 15], [14, 16] hold 1, 2, 3, 0, 0 of 1, 2, 4, 10.

    Fake balls [0, 2], [1, 3], [2, 6], [4, 16] together hold all real ones.
    """
    figures = prdc(points(0, 1, 3, 14, 15), points(1, 2, 4, 10), k=1)
    expected = {"precision": 3 / 4, "recall": 1.0, "density": 6 / 4, "coverage": 3 / 5}
    torch.testing.assert_close(figures, expected)


def test_prdc_of_identical_sets() -> None:
    """Every ball holds its centre and k others; no two of these distances are equal."""
    x = points(*(2.0**i for i in range(30)))
    expected = {"precision": 1.0, "recall": 1.0, "density": 3 / 2, "coverage": 1.0}
    torch.testing.assert_close(prdc(x, x, k=2), expected)
    x = normal(ODD, 8)
    figures = prdc(x, x[torch.randperm(ODD)])
    assert (figures["precision"], figures["recall"], figures["coverage"]) == (1, 1, 1)


def test_prdc_of_sets_far_apart_is_0() -> None:
    figures = prdc(normal(40, 3), normal(30, 3) + 100)
    assert figures == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_prdc_of_one_image_again_and_again() -> None:
    """Its balls have no extent: nothing real is in them, though it may be in the real ones."""
    x = points(0, 1, 3, 7, 20)
    figures = prdc(x, points(*[2] * 6), k=1)
    expected = {"precision": 1.0, "recall": 0.0, "density": 2.0, "coverage": 2 / 5}
    torch.testing.assert_close(figures, expected)


@pytest.mark.parametrize(("n", "m"), [(5, 9), (9, 5), (1, 1)])
def test_prdc_needs_more_images_than_neighbours(n: int, m: int) -> None:
    with pytest.raises(UserError, match=f"k=5 .* {m} generated and {n} real"):
        prdc(normal(n, 3), normal(m, 3))


def test_prdc_with_all_the_others_as_neighbours() -> None:
    x, y = points(0, 1, 2), points(1, 2, 3)
    expected = {"precision": 1.0, "recall": 1.0, "density": 7 / 6, "coverage": 1.0}
    torch.testing.assert_close(prdc(x, y, k=2), expected)


def test_prdc_needs_a_neighbour() -> None:
    with pytest.raises(UserError, match="k=0"):
        PRDC(k=0)


# Classes


def test_class_kl_by_hand() -> None:
    parts = real(test=seen(logits=saying([0, 1, 1, 0])))
    figures = ClassKL()(seen(logits=saying([0, 0, 0, 1])), parts)
    expected = {"class_kl": 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)}
    torch.testing.assert_close(figures, expected)


def test_class_kl_of_one_digit_alone_is_ln_10() -> None:
    parts = real(test=seen(logits=saying(torch.arange(50) % 10)))
    torch.testing.assert_close(
        ClassKL()(seen(logits=saying([7] * 20)), parts), {"class_kl": math.log(10)}
    )


def test_class_kl_of_the_same_frequencies_is_0() -> None:
    """Absent classes are no matter, nor how many images there are, nor how many digits in one."""
    parts = real(test=seen(logits=saying([3, 3, 5])))
    for classes in ([5, 3, 3], [3, 5] * 2 + [3] * 2, [[3, 3, 5]], [[3, 5, 3], [3, 3, 5]]):
        assert ClassKL()(seen(logits=saying(classes)), parts) == {"class_kl": 0}


def test_class_kl_of_a_class_that_is_not_real_is_infinite() -> None:
    parts = real(test=seen(logits=saying([3, 3, 5])))
    assert ClassKL()(seen(logits=saying([3, 4])), parts) == {"class_kl": math.inf}


def triples(*numbers: int) -> Seen:
    """Stacked digits, the first of a number its hundreds."""
    return seen(logits=saying([[n // 100, n // 10 % 10, n % 10] for n in numbers]))


def test_modes_of_all_triples() -> None:
    for times in (1, 2):
        fake = triples(*torch.randperm(1000).repeat(times).tolist())
        figures = Modes()(fake, real(test=triples(7)))
        assert (figures["modes"], figures["mode_kl"]) == (1000, 0)


def test_modes_of_one_triple() -> None:
    figures = Modes()(triples(*[321] * 5), real(test=triples(7)))
    torch.testing.assert_close(
        figures,
        {
            "modes": 1.0,
            "mode_kl": math.log(1000),
            "real_modes": 1.0,
            "real_mode_kl": math.log(1000),
        },
    )


def test_modes_are_told_apart_by_the_order_of_their_digits() -> None:
    """Frequencies 1/2, 1/4, 1/4: their KL from uniform is ln 1000 less their entropy."""
    figures = Modes()(
        triples(*(1, 10, 100, 1) * 2), real(test=triples(123, 321, 213, 123, 231, 312))
    )
    assert (figures["modes"], figures["real_modes"]) == (3, 5)
    torch.testing.assert_close(figures["mode_kl"], math.log(1000) - 1.5 * math.log(2))
    entropy = 4 / 6 * math.log(6) + 2 / 6 * math.log(3)
    torch.testing.assert_close(figures["real_mode_kl"], math.log(1000) - entropy)


def test_modes_of_single_digits_are_ten() -> None:
    fake, test = seen(logits=saying([4] * 30)), seen(logits=saying(torch.arange(30) % 10))
    torch.testing.assert_close(
        Modes()(fake, real(test=test)),
        {"modes": 1.0, "mode_kl": math.log(10), "real_modes": 10.0, "real_mode_kl": 0.0},
    )


def test_real_modes_are_those_of_as_many_images() -> None:
    figures = Modes()(triples(1, 2, 3), real(test=triples(*range(1000))))
    assert (figures["modes"], figures["real_modes"]) == (3, 3)
    assert figures["mode_kl"] == figures["real_mode_kl"]


# Neighbours


def distances(a: Tensor, b: Tensor) -> np.ndarray:
    return np.array([[math.dist(p, q) for q in b.tolist()] for p in a.tolist()])


@pytest.mark.parametrize(("n", "m"), [(ODD, 90), (90, ODD), (BLOCK, 1), (1, 3)])
def test_nearest_is_that_of_brute_force(n: int, m: int) -> None:
    a, b = normal(n, 4), normal(m, 4)
    distance, index = nearest(a, b)
    expected = distances(a, b)
    assert index.tolist() == expected.argmin(1).tolist()
    torch.testing.assert_close(distance.numpy(), expected.min(1))


def test_nearest_of_a_copy_is_exactly_0_away() -> None:
    b = 10 * normal(ODD, 64)
    b[7] = b[300]
    order = torch.randperm(ODD)
    distance, index = nearest(b[order], b)
    assert (distance == 0).all()
    assert torch.equal(b[index], b[order])


@pytest.mark.parametrize("n", [8, BLOCK, ODD])
def test_radii_are_those_of_brute_force(n: int) -> None:
    a = normal(n, 4)
    expected = np.sort(distances(a, a), axis=1)
    for k in (1, 5):
        torch.testing.assert_close(radii(a, k).numpy(), expected[:, k])


def test_radii_count_every_duplicate() -> None:
    a = points(0, 0, 0, 4, 9)
    assert radii(a, 2).tolist() == [0, 0, 0, 4, 9]
    assert radii(a, 3).tolist() == [4, 4, 4, 4, 9]
    twice = torch.cat([torch.arange(ODD), torch.arange(ODD)]).double()[:, None]
    assert radii(twice, 1).tolist() == [0] * 2 * ODD
    assert radii(twice, 2).tolist() == [1] * 2 * ODD


# Memorization


def memorization(generated: Tensor, test: Tensor, train: Tensor) -> float:
    parts = real(test=seen(test), train=seen(train))
    (value,) = Memorization()(seen(generated), parts).values()
    return value


def test_memorization_of_copies_is_0() -> None:
    train = normal(ODD, 64)
    assert memorization(train[torch.randperm(ODD)[:300]], normal(100, 64), train) == 0


def test_memorization_of_the_test_images_is_1() -> None:
    test = normal(100, 64)
    assert memorization(test[torch.randperm(100)], test, normal(ODD, 64)) == 1


def test_memorization_by_hand() -> None:
    """Medians are 1 and 2; of even numbers, the mean of the middle two: 2.5 and 10."""
    train = points(0, 100)
    odd = memorization(points(99, 0.5, -6), points(1, 102, -3), train)
    torch.testing.assert_close(odd, 1 / 2)
    even = memorization(points(1, 104), points(92, -12), train)
    torch.testing.assert_close(even, 2.5 / 10)


# Parzen windows


def grey(*levels: int, side: int = 2) -> Seen:
    """Images (N, 1, side, side) of one level each."""
    images = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1)
    return seen(normal(len(levels), 1))._replace(images=images.expand(-1, 1, side, side))


def test_the_width_of_a_window_is_the_root_mean_square_of_what_it_is_chosen_by() -> None:
    """One generated image, 0.2 from four pixels of each training image, 0.4 from the test's."""
    parts = real(validation=grey(151, 49), test=grey(202, 202))
    figures = Parzen()(grey(100), parts)
    (nearest,) = {s for s in GRIDS["parzen_fine"].tolist() if abs(math.log10(s / 0.2)) <= 1 / 80}
    for name, at in (("parzen", 10 ** (-6 / 9)), ("parzen_fine", nearest)):
        assert figures[f"{name}_sigma"] == pytest.approx(at, rel=1e-12)
        expected = -4 * 0.4**2 / (2 * at**2) - 4 / 2 * math.log(2 * math.pi * at**2)
        torch.testing.assert_close(figures[name], expected)
        assert figures[f"{name}_error"] == 0.0


def test_the_grid_of_the_authors_has_ten_values() -> None:
    assert GRIDS["parzen"].tolist() == pytest.approx([10 ** (k / 9 - 1) for k in range(10)])


def test_windows_are_a_mixture_of_all_generated_images() -> None:
    """By brute force; the two training images beyond the first ten choose nothing."""
    x, y = torch.arange(0, 250, 25), torch.arange(3, 250, 10)
    parts = real(validation=grey(*x, 255, 255, side=1), test=grey(*x[:7], side=1))
    figures = Parzen(chosen_by=10)(grey(*y, side=1), parts)

    def likelihoods(sigma: float, n: int) -> Tensor:
        window = torch.distributions.Normal(y.double() / 255, sigma)
        return window.log_prob(x[:n, None].double() / 255).exp().mean(1).log()

    expected = {}
    for name, grid in GRIDS.items():
        best = max(grid.tolist(), key=lambda s: likelihoods(s, 10).mean().item())
        nats = likelihoods(best, 7)
        expected |= {
            name: nats.mean().item(),
            f"{name}_error": nats.std().item() / math.sqrt(7),
            f"{name}_sigma": best,
        }
    assert figures == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="chosen_by=0"):
        Parzen(chosen_by=0)


# All


TABLE = [
    FID(),
    KID(subsets=3, subset_size=20),
    InceptionScore(),
    PRDC(),
    ClassKL(),
    Memorization(),
    Modes(),
]
every_metric = pytest.mark.parametrize("metric", TABLE, ids=lambda metric: type(metric).__name__)


def random_parts() -> tuple[Seen, Any]:
    names = ("test", "validation", "train")
    return seen(normal(200, 4)), real(**{name: seen(normal(200, 4)) for name in names})


@every_metric
def test_a_metric_is_repeatable_and_draws_no_global_number(metric: Metric) -> None:
    fake, real_parts = random_parts()
    before = torch.get_rng_state()
    first = metric(fake, real_parts)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert metric(fake, real_parts) == first
    assert all(type(value) is float and math.isfinite(value) for value in first.values())


@every_metric
def test_a_metric_changes_nothing_that_it_sees(metric: Metric) -> None:
    fake, real_parts = random_parts()
    sides = [fake, *vars(real_parts).values()]
    before = [[tensor.clone() for tensor in side[:3]] for side in sides]
    metric(fake, real_parts)
    torch.testing.assert_close([list(side[:3]) for side in sides], before, rtol=0, atol=0)


@every_metric
def test_a_metric_waits_for_no_other_process(
    metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several processes one measures. torchmetrics would gather from all; there are none."""
    fake, real_parts = random_parts()
    expected = metric(fake, real_parts)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert metric(fake, real_parts) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_metric
def test_a_metric_of_features_on_the_gpu(metric: Metric) -> None:
    fake, real_parts = random_parts()
    there = real(**{n: Seen(*(t.cuda() for t in part)) for n, part in vars(real_parts).items()})
    ours = metric(Seen(*(tensor.cuda() for tensor in fake)), there)
    torch.testing.assert_close(ours, metric(fake, real_parts))


# Real images


def test_real_images_are_looked_at_once() -> None:
    data = RandomImages(27)
    train, test = data.load()
    looked = []

    def extractor(images: Tensor) -> Seen:
        looked.append(len(images))
        return seen(images.flatten(1).double())

    parts = Real(extractor, data, train, test, 5)
    for _ in range(2):
        assert {tuple(row) for row in parts.test.features.tolist()} == rows(test.x)
        assert {tuple(row) for row in parts.train.features.tolist()} == rows(train.x)
        chosen = {tuple(row) for row in parts.validation.features.tolist()}
        assert len(chosen) == 5
        assert chosen < rows(train.x)
    assert looked == [16, 27, 5]


def rows(images: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in images.flatten(1).double().tolist()}


# Inception


def test_inception_without_its_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(UserError, match="pip install torch-fidelity"):
        InceptionFID()


def test_inception_without_its_weights_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: object, **named: object) -> None:
        raise URLError("no network in this test")

    monkeypatch.setattr(inception, "FrechetInceptionDistance", unreachable)
    with pytest.raises(UserError, match=r"no network in this test.*weights=FILE"):
        InceptionFID()


def test_inception_sees_rgb_bytes_of_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a mean over pixels for Inception, the distance is that of its three numbers."""

    class Means(nn.Module):
        num_features = 3

        def forward(self, x: Tensor) -> Tensor:
            assert (x.dtype, x.shape[1:]) == (torch.uint8, (3, 8, 8))
            return x.double().mean((2, 3))

    made = inception.FrechetInceptionDistance(Means())
    monkeypatch.setattr(inception, "FrechetInceptionDistance", lambda *a, **n: made)
    a, b = (torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8) for n in (120, 70))
    fake, real = (Seen(x, torch.zeros(len(x), 1), torch.zeros(len(x), 1, 10)) for x in (a, b))
    found = InceptionFID()(fake, SimpleNamespace(test=real))
    sides = (x.double().mean((2, 3)).expand(-1, 3) for x in (a, b))
    assert found["inception_fid"] == pytest.approx(frechet_distance(*sides), rel=1e-6)
