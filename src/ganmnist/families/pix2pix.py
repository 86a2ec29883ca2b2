"""Image-to-image GANs (pix2pix: Isola et al., 2016, arXiv 1611.07004).

A function `degrade` turns an image x into a condition y, for example its upper half. G(z, y)
restores x. D classifies pairs (x, y) and (G(z, y), y):

    L_D = l_D,    L_G = l_G + w mean |x - G(z, y)|

where the mean is over pixels in [-1, 1]. The letters are those of the other families. In the paper,
x is the input of G and y the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ganmnist.gan import GAN
from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks.sampler import Sampler
from ganmnist.utils.batch import Batch, Split, at_least_float32, concat_columns
from ganmnist.utils.pixels import BLACK, to_bytes, to_signed_range
from ganmnist.utils.rng import generator_for
from ganmnist.utils.schedules import check_number


class UpperHalf:
    """Images (B, C, H, W) with a black lower half."""

    def __call__(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[..., x.shape[-2] // 2 :, :] = BLACK
        return y


class Downsample:
    """Images (B, C, H, W) reduced to size x size pixels and enlarged again."""

    def __init__(self, size: int = 7) -> None:
        if size < 1:
            raise ValueError(f"family.degrade.size={size}: choose 1 or more")
        self.size = size

    def __call__(self, x: Tensor) -> Tensor:
        if self.size > min(x.shape[-2:]):
            raise ValueError(
                f"family.degrade.size={self.size}: the images have {min(x.shape[-2:])} pixels. "
                "Choose a smaller size"
            )
        return F.interpolate(F.adaptive_avg_pool2d(x, self.size), x.shape[-2:])


class L1Reconstruction(LossTerm):
    """w mean |x - G(z, y)|, over pixels."""

    def __init__(self, weight: float = 100.0) -> None:
        super().__init__()
        check_number("family.auxiliary.l1.weight", weight)
        self.weight = weight

    def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
        return self.weight * (out.real.x - out.fake.x).abs().mean()


def l1_distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute differences (B,) of images in [-1, 1], for pixels in [0, 1]."""
    return (x - y).abs().flatten(1).mean(1) / 2


class Pix2Pix(GAN):
    """A GAN conditioned on images.

    Args:
        degrade: images (B, C, H, W) to conditions of the same shape.
        image_size: H and W.
        n_conditions: number of test images that checkpoints keep. All samples for display and
            metrics use the conditions of these images, repeated.
        settings: of GAN.
    """

    condition_images: Tensor

    def __init__(
        self,
        degrade: Callable[[Tensor], Tensor],
        image_size: int,
        n_conditions: int = 1000,
        channels: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(channels=channels, **settings)
        if n_conditions < 1:
            raise ValueError(f"family.n_conditions={n_conditions}: choose 1 or more")
        shape = (channels, image_size, image_size)
        degrade(torch.zeros(1, *shape))  # raises if the size does not fit
        self.degrade = degrade
        self.register_buffer(
            "condition_images", torch.zeros(n_conditions, *shape, dtype=torch.uint8)
        )

    def on_fit_start(self) -> None:
        super().on_fit_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        n = len(self.condition_images)
        x = to_bytes(data.fixed_batch("test", n, self.device).x)
        self.condition_images.copy_(x[torch.arange(n) % len(x)])

    def real_inputs(self, batch: Batch, z: Tensor) -> Batch:
        return Batch(batch.x, self.degrade(batch.x), z)

    def fake_inputs(self, batch: Batch, z: Tensor) -> Batch:
        y = self.degrade(batch.x)
        return Batch(at_least_float32(self.generator(z, y)), y, z)

    @property
    def sampler(self) -> Sampler:
        return Sampler(self.generator, self.ema, self.latent, self.conditions)

    def conditions(self, n: int, device: torch.device) -> Tensor:
        """Conditions (n, C, H, W)."""
        index = torch.arange(n, device=device) % len(self.condition_images)
        return self.degrade(to_signed_range(self.condition_images[index]))

    def extra_images(self, real_images: Callable[[int], Batch]) -> dict[str, Tensor]:
        """`translations`: rows of ten conditions, then G's images, then the real images."""
        x = real_images(30).x
        rows = [torch.unflatten(i, 0, (-1, 10)) for i in (self.degrade(x), self.translate(x), x)]
        return {"translations": torch.stack(rows, 1).flatten(0, 1)}

    def extra_metrics(self, real_batches: Callable[[Split], Iterable[Batch]]) -> dict[str, float]:
        """`l1`: mean |x - G(z, y)| of test images; `l1_input`: mean |x - y|; pixels in [0, 1]."""
        images = (batch.x for batch in real_batches("test"))
        rows = (
            (l1_distance(x, self.translate(x)), l1_distance(x, self.degrade(x))) for x in images
        )
        l1, l1_input = concat_columns(rows)
        return {"l1": l1.mean().item(), "l1_input": l1_input.mean().item()}

    def translate(self, x: Tensor) -> Tensor:
        """G(z, degrade(x)) (B, C, H, W), for fixed latents."""
        z = self.latent(len(x), "cpu", generator_for("translations", self.options.seed))
        return self.sample(z.to(self.device), self.degrade(x))
