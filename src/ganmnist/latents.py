"""Priors over the latent space: callables that draw (n, Z) latents."""

from __future__ import annotations

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
