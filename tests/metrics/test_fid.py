"""Frechet distance against closed forms."""

import numpy as np
import torch
import torch.nn.functional as F
from helpers.features import feature_batch, normal, reference_set
from torch import Tensor

from ganmnist.metrics import FID
from ganmnist.metrics.fid import frechet_distance


def gaussian(mean: Tensor, covariance: Tensor, n: int = 50) -> Tensor:
    """Samples (n, F) whose sample mean and sample covariance are these."""
    x = normal(n, len(mean))
    x -= x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False)
    return mean + (torch.linalg.cholesky(covariance) @ white).T


def positive_definite(size: int) -> Tensor:
    root = normal(size, size)
    return root @ root.T + torch.eye(size)


def rotation(size: int) -> Tensor:
    return torch.linalg.qr(normal(size, size)).Q


def test_gaussians_with_the_same_axes() -> None:
    """|m_1 - m_2|^2 + sum (s_1 - s_2)^2, with standard deviations s along common axes."""
    m, s = normal(2, 4), normal(2, 4).abs() + 0.1
    expected = ((m[0] - m[1]).square().sum() + (s[0] - s[1]).square().sum()).item()
    a, b = (gaussian(m[i], s[i].square().diag(), n) for i, n in enumerate((50, 31)))
    torch.testing.assert_close(frechet_distance(a, b), expected)
    q = rotation(4)
    torch.testing.assert_close(frechet_distance(a @ q, b @ q), expected)


def test_gaussians_in_the_plane() -> None:
    """tr (C_1 C_2)^(1/2) = (tr C_1 C_2 + 2 (det C_1 C_2)^(1/2))^(1/2)."""
    m, c, d = normal(2, 2), positive_definite(2), positive_definite(2)
    root = ((c @ d).trace() + 2 * (c @ d).det().sqrt()).sqrt()
    expected = (m[0] - m[1]).square().sum() + c.trace() + d.trace() - 2 * root
    actual = frechet_distance(gaussian(m[0], c), gaussian(m[1], d))
    torch.testing.assert_close(actual, expected.item())


def test_samples_of_seven_features() -> None:
    """tr (C_1 C_2)^(1/2) = tr (S C_2 S)^(1/2) with S S = C_1."""
    a, b = normal(80, 7) @ normal(7, 7), normal(50, 7) @ normal(7, 7) + 1
    x, y = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)).square().sum()).item()
    values, vectors = np.linalg.eigh(x)
    root = vectors * np.sqrt(values) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ y @ root)).sum()
    expected += np.trace(x + y).item() - 2 * trace.item()
    torch.testing.assert_close(frechet_distance(a, b), expected)


def test_the_distance_is_symmetric_and_0_for_equal_sets() -> None:
    a, b = normal(40, 5), normal(60, 5) + 1
    torch.testing.assert_close(frechet_distance(a, b), frechet_distance(b, a))
    for order in (torch.arange(40), *(torch.randperm(40) for _ in range(10))):
        distance = frechet_distance(a, a[order])
        torch.testing.assert_close(distance, 0.0)
        assert distance >= 0


def test_a_feature_that_is_always_0_adds_nothing() -> None:
    a, b = normal(40, 5), normal(60, 5) + 1
    padded = [F.pad(x, (0, 1)) for x in (a, b)]
    torch.testing.assert_close(frechet_distance(*padded), frechet_distance(a, b))


def test_the_distance_is_computed_in_float64() -> None:
    """A shift by 0.001 changes only the means. Float32 cannot resolve it."""
    a = normal(100, 5) + 10
    torch.testing.assert_close(frechet_distance(a, a + 1e-3), 5e-6, rtol=1e-7, atol=0)


def test_fid_and_fid_floor_compare_with_the_test_images() -> None:
    x = normal(50, 3)
    real = reference_set(
        test=feature_batch(x), validation=feature_batch(x + 2), train=feature_batch(x + 5)
    )
    expected = {"fid": 3 * 1.0, "fid_floor": 3 * 4.0}
    torch.testing.assert_close(FID()(feature_batch(x + 1), real), expected)
