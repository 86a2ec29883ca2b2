"""Images of a generator, with trained or EMA weights, for display and for metrics."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat

import torch
from torch import Tensor, nn

from ganmnist.utils.ema import EMA
from ganmnist.utils.errors import UserError
from ganmnist.utils.modules import eval_no_grad
from ganmnist.utils.pixels import to_bytes

CHUNK = 100  # images of one forward pass


class Sampler:
    """Samples from a generator in evaluation mode.

    Args:
        latent: samples latents (n, Z).
        condition: the conditions of n images: labels (n,) or images (n, C, H, W). None:
            unconditional.
    """

    def __init__(
        self,
        generator: nn.Module,
        ema: EMA | None,
        latent: Callable[..., Tensor],
        condition: Callable[[int, torch.device], Tensor] | None,
    ) -> None:
        self.generator = generator
        self.ema = ema
        self.latent = latent
        self.condition = condition

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    def conditions(self, n: int) -> Tensor | None:
        return None if self.condition is None else self.condition(n, self.device)

    def labels(self, n: int) -> Tensor | None:
        """The labels (n,) of n images. None: unconditional, or the conditions are images."""
        y = self.conditions(n)
        return y if y is not None and y.dim() == 1 else None

    def prior(self, n: int, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """n latents (n, Z) and their conditions.

        rng: a CPU generator. It gives the same latents on every device.
        """
        device = self.device if rng is None else "cpu"
        return self.latent(n, device, rng).to(self.device), self.conditions(n)

    def __call__(self, z: Tensor | int, y: Tensor | None = None, ema: bool = False) -> Tensor:
        """Images (n, C, H, W) in [-1, 1] of latents (n, Z), or of n new ones.

        ema: use the moving average of the weights.

        Raises:
            UserError: there is no moving average.
        """
        if isinstance(z, int):
            z, y = self.prior(z)
        generator = self.generator
        if ema:
            if self.ema is None:
                raise UserError("weights=ema: this run has no EMA weights. Use weights=raw.")
            generator = self.ema.network
        with eval_no_grad(generator):
            images: Tensor = generator(z, y)
            return images

    def uint8(self, n: int, rng: torch.Generator, ema: bool = False) -> Tensor:
        """Images (n, C, H, W) uint8 of latents from a CPU generator."""
        z, y = self.prior(n, rng)
        conditions = torch.split(y, CHUNK) if y is not None else repeat(None)
        chunks = zip(torch.split(z, CHUNK), conditions, strict=False)
        return torch.cat([to_bytes(self(*chunk, ema=ema)) for chunk in chunks])
