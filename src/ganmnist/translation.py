"""From what is left of an image to the image (pix2pix: Isola et al., 2016, arXiv 1611.07004).

A function `keep` leaves a part y of an image x: its upper half, or a few large pixels. G(z, y)
gives the rest back, and D tells the pairs (x, y) from (G(z, y), y),

    L_D = l_D,    L_G = l_G + w E |x - G(z, y)|

the distance taken a pixel, in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ganmnist.duel import Duel, Part, Sample, Term, at_least_float32, columns
from ganmnist.gan import GAN
from ganmnist.pixels import to_bytes, to_unit_range
from ganmnist.rng import generator_for
from ganmnist.schedules import checked_number

BLACK = -1.0


class UpperHalf:
    """Images (B, C, H, W) whose lower half is black."""

    def __call__(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[..., x.shape[-2] // 2 :, :] = BLACK
        return y


class Coarse:
    """Images (B, C, H, W) of size x size pixels, each the mean of those in its place."""

    def __init__(self, size: int = 7) -> None:
        if size < 1:
            raise ValueError(f"gan.keep.size={size} leaves nothing: choose 1 or more")
        self.size = size

    def __call__(self, x: Tensor) -> Tensor:
        if self.size > min(x.shape[-2:]):
            raise ValueError(
                f"gan.keep.size={self.size} is finer than images of {min(x.shape[-2:])}"
            )
        return F.interpolate(F.adaptive_avg_pool2d(x, self.size), x.shape[-2:])


class Pixels(Term):
    """w E |x - G(z, y)|, the mean over pixels."""

    def __init__(self, weight: float = 100.0) -> None:
        super().__init__()
        checked_number("the weight of Pixels", weight)
        self.weight = weight

    def g_loss(self, duel: Duel) -> Tensor:
        assert duel.real.x is not None
        assert duel.fake.x is not None
        return self.weight * (duel.real.x - duel.fake.x).abs().mean()


def apart(x: Tensor, y: Tensor) -> Tensor:
    """(B,) mean distances of a pixel in [0, 1]."""
    return (x - y).abs().flatten(1).mean(1) / 2


class Translation(GAN):
    """A GAN whose samples are told what is left of an image.

    Args:
        keep: images (B, C, H, W) to what is left of them, as large.
        shape: (C, H, W) of an image.
        shown: test images whose remains are kept with the run: what its pictures, and all that is
            drawn of it, are made of in turn.
        parts: of a GAN.
    """

    shown: Tensor

    def __init__(
        self,
        keep: Callable[[Tensor], Tensor],
        shape: Sequence[int],
        shown: int = 1000,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        if shown < 1:
            raise ValueError(f"gan.shown={shown} leaves nothing to draw from: choose 1 or more")
        keep(torch.zeros(1, *shape))  # which says at once what it cannot do
        self.keep = keep
        self.register_buffer("shown", torch.zeros(shown, *shape, dtype=torch.uint8))

    def on_fit_start(self) -> None:
        super().on_fit_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        x = to_bytes(data.some("test", len(self.shown), self.device).x)
        self.shown.copy_(x[torch.arange(len(self.shown)) % len(x)])

    def real(self, batch: Sample, z: Tensor) -> Sample:
        assert batch.x is not None
        return Sample(batch.x, self.keep(batch.x), z)

    def fake(self, batch: Sample, z: Tensor) -> Sample:
        assert batch.x is not None
        y = self.keep(batch.x)
        return Sample(at_least_float32(self.generator(z, y)), y, z)

    def prior(self, n: int, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        z, _ = super().prior(n, rng)
        return z, self.keep(to_unit_range(self.shown[torch.arange(n) % len(self.shown)]))

    def pictures(self, real: Callable[[int], Sample]) -> dict[str, Tensor]:
        """Rows of ten: what is left, what G makes of it, and what there was."""
        x = real(30).x
        assert x is not None
        rows = (part.unflatten(0, (-1, 10)) for part in (self.keep(x), self.made_of(x), x))
        return {"translations": torch.stack([*rows], 1).flatten(0, 1)}

    def figures(self, real: Callable[[Part], Iterable[Sample]]) -> dict[str, float]:
        """`l1`: mean |x - G(z, y)| of test images, a pixel in [0, 1]; `l1_kept`: that of y."""
        images = (batch.x for batch in real("test") if batch.x is not None)
        made, kept = columns((apart(x, self.made_of(x)), apart(x, self.keep(x))) for x in images)
        return {"l1": made.mean().item(), "l1_kept": kept.mean().item()}

    def made_of(self, x: Tensor) -> Tensor:
        """G(z, keep(x)) (B, C, H, W), always of the same latents."""
        z = self.latent(len(x), "cpu", generator_for("translations", self.seed))
        return self.sample(z.to(self.device), self.keep(x))
