"""Priors over the latent space, callables that draw (n, Z) latents, walks through it, labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


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
        """Draws (n, dim), from the device's default generator unless one is given."""
        return torch.randn(n, self.dim, device=device, generator=generator)


class Uniform:
    """z uniform in [low, high] in each of `dim` dimensions.

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
        """Draws (n, dim), from the device's default generator unless one is given."""
        u = torch.rand(n, self.dim, device=device, generator=generator)
        return self.low + (self.high - self.low) * u


class Labels:
    """Every class in turn, 0, 1 ... and 0 again: a column each in pictures, and as often as any.

    Args:
        classes: how many there are.
        shown: which of them; None is all.

    Raises:
        ValueError: there is no class, or none of that number.
    """

    def __init__(self, classes: int = 10, shown: Sequence[int] | None = None) -> None:
        if classes < 1:
            raise ValueError(f"gan.condition.classes={classes} leaves nothing: choose 1 or more")
        self.classes = classes
        self.shown = [*range(classes)] if shown is None else [*shown]
        if not self.shown or not {*self.shown} <= {*range(classes)}:
            raise ValueError(f"labels={self.shown}: choose some of 0 to {classes - 1}")

    @property
    def columns(self) -> int:
        """Of pictures: one a class, or ten where there are more."""
        return min(len(self.shown), 10)

    def __call__(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """Labels (n,), int64."""
        shown = torch.tensor(self.shown, device=device)
        return shown[torch.arange(n, device=device) % len(shown)]


def interpolate(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Walks (N, steps, Z) from start (N, Z) to end along great circles.

    White (2016, arXiv 1609.04468). Straight lines would pass close to 0, where no normal latent
    is; lengths change evenly.
    """
    t = torch.linspace(0, 1, steps, device=start.device)[None, :, None]
    a, b = (z / z.norm(dim=1, keepdim=True) for z in (start, end))
    angle = (a * b).sum(1).clamp(-1, 1).acos()[:, None, None]
    direction = ((1 - t) * angle).sin() * a[:, None] + (t * angle).sin() * b[:, None]
    length = (1 - t) * start.norm(dim=1)[:, None, None] + t * end.norm(dim=1)[:, None, None]
    # Where both point the same way, or opposite ways, there is no one great circle.
    straight = (1 - t) * start[:, None] + t * end[:, None]
    return torch.where(angle.sin().abs() < 1e-4, straight, length * direction / angle.sin())


def invert(
    generator: Callable[[Tensor], Tensor], x: Tensor, z: Tensor, steps: int, lr: float = 0.1
) -> Tensor:
    """Latents (N, Z) whose images are nearest to x (N, C, H, W), by Adam on |x - G(z)|^2.

    Creswell and Bharath (2016, arXiv 1611.05644). `z` (S, N, Z) are S starts for each image, the
    best of which is given back. The generator maps (S N, Z) to images.
    """
    z = z.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr)
    for step in range(steps + 1):
        made = generator(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        apart = (made - x).square().flatten(2).sum(2)
        if step < steps:
            (z.grad,) = torch.autograd.grad(apart.sum(), z)
            optimizer.step()
    return z.detach()[apart.argmin(0), torch.arange(len(x), device=x.device)]


def direction(z: Tensor, value: Tensor, share: float = 0.1) -> Tensor:
    """(Z,) from the mean latent of the lowest `share` of values (N,) to that of the highest.

    The arithmetic of Radford et al. (2015, arXiv 1511.06434) on any number that an image has.
    """
    n = max(round(share * len(z)), 1)
    order = value.argsort()
    return z[order[-n:]].mean(0) - z[order[:n]].mean(0)
