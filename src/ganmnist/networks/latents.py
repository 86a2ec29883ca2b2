"""Priors of latents, labels of generated images, and tools for latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class LatentPrior(Protocol):
    """Samples latents."""

    dim: int  # Z

    def __call__(
        self,
        n: int,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
        /,
    ) -> Tensor:
        """Latents (n, Z), from `generator` or from the device's default generator."""


class Normal:
    """z ~ N(0, I) in `dim` dimensions."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def __call__(
        self,
        n: int,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Latents (n, dim), from `generator` or from the device's default generator."""
        return torch.randn(n, self.dim, device=device, generator=generator)


class Uniform:
    """z uniform in [low, high]^dim.

    Raises:
        ValueError: low is not below high.
    """

    def __init__(self, dim: int, low: float = -1.0, high: float = 1.0) -> None:
        if not low < high:
            raise ValueError(f"latent.low={low} is not below latent.high={high}: swap them")
        self.dim = dim
        self.low = low
        self.high = high

    def __call__(
        self,
        n: int,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Latents (n, dim), from `generator` or from the device's default generator."""
        u = torch.rand(n, self.dim, device=device, generator=generator)
        return self.low + (self.high - self.low) * u


class Labels:
    """Labels of generated images: 0, 1, ..., repeated. A column of a grid has one class.

    Args:
        n_classes: number of classes.
        classes: the classes to generate; None: all.

    Raises:
        ValueError: there is no class, or an unknown one.
    """

    def __init__(self, n_classes: int = 10, classes: Sequence[int] | None = None) -> None:
        if n_classes < 1:
            raise ValueError(f"family.labels.n_classes={n_classes}: choose 1 or more")
        self.n_classes = n_classes
        self.classes = [*range(n_classes)] if classes is None else [*classes]
        if not self.classes or not {*self.classes} <= {*range(n_classes)}:
            raise ValueError(f"labels={self.classes}: choose from 0 to {n_classes - 1}")

    @property
    def columns(self) -> int:
        """Columns of image grids: one per class, at most ten."""
        return min(len(self.classes), 10)

    def __call__(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """Labels (n,), int64."""
        classes = torch.tensor(self.classes, device=device)
        return classes[torch.arange(n, device=device) % len(classes)]


def interpolate(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Spherical interpolation (N, steps, Z) from start (N, Z) to end (N, Z).

    White (2016, arXiv 1609.04468). A straight line passes close to 0, where the density of |z| is
    small. Lengths are interpolated linearly.
    """
    t = torch.linspace(0, 1, steps, device=start.device)[None, :, None]
    a, b = (z / z.norm(dim=1, keepdim=True) for z in (start, end))
    angle = (a * b).sum(1).clamp(-1, 1).acos()[:, None, None]
    direction = ((1 - t) * angle).sin() * a[:, None] + (t * angle).sin() * b[:, None]
    length = (1 - t) * start.norm(dim=1)[:, None, None] + t * end.norm(dim=1)[:, None, None]
    # Parallel vectors have no unique great circle.
    straight = (1 - t) * start[:, None] + t * end[:, None]
    return torch.where(angle.sin().abs() < 1e-4, straight, length * direction / angle.sin())


def invert(
    generator: Callable[[Tensor], Tensor], x: Tensor, z: Tensor, steps: int, lr: float = 0.1
) -> Tensor:
    """Latents (N, Z) of images close to x (N, C, H, W), by Adam on |x - G(z)|^2.

    Creswell and Bharath (2016, arXiv 1611.05644). `z` (S, N, Z) are S initial latents per image.
    The result is the best of them. The generator maps (S N, Z) to images.
    """
    z = z.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr)
    for step in range(steps + 1):
        images = torch.unflatten(generator(z.flatten(0, 1)), 0, z.shape[:2])
        distance = (images - x).square().flatten(2).sum(2)
        if step < steps:
            (z.grad,) = torch.autograd.grad(distance.sum(), z)
            optimizer.step()
    return z.detach()[distance.argmin(0), torch.arange(len(x), device=x.device)]


def direction(z: Tensor, value: Tensor, fraction: float = 0.1) -> Tensor:
    """The mean latent (Z,) of the highest values (N,) minus that of the lowest values.

    Vector arithmetic of Radford et al. (2015, arXiv 1511.06434), for any scalar of an image.
    `fraction` of the images are in each of the two means.
    """
    n = max(round(fraction * len(z)), 1)
    order = value.argsort()
    return z[order[-n:]].mean(0) - z[order[:n]].mean(0)
