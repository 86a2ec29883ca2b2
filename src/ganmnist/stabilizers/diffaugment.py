"""DiffAugment: differentiable augmentation (Zhao et al., 2020, arXiv 2006.10738)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ganmnist.networks.base import Discriminator, DiscriminatorWrapper
from ganmnist.stabilizers.base import Stabilizer, require_images, require_one_scale
from ganmnist.utils.batch import Batch
from ganmnist.utils.pixels import BLACK


class DiffAugment(Stabilizer):
    """Differentiable augmentation of D's inputs (`AugmentedDiscriminator`)."""

    def __init__(self, translation: float = 0.125, cutout: float = 0.25) -> None:
        self.translation = translation
        self.cutout = cutout

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        return AugmentedDiscriminator(discriminator, self.translation, self.cutout)


class AugmentedDiscriminator(DiscriminatorWrapper):
    """Shifts D's images and cuts squares out of them, at random, in training mode.

    DiffAugment (Zhao et al., 2020, arXiv 2006.10738). Gradients flow through both. Real and
    generated images are augmented, so G does not learn to generate augmented images. New pixels are
    black, like the background of digits. The paper's third policy, color, is left out.

    Args:
        translation: maximum shift, as a fraction of the image's side.
        cutout: side of the square, as a fraction of the image's side. Its center is in the image.
            The paper has 0.5, which covers most of a digit.
    """

    def __init__(
        self, discriminator: Discriminator, translation: float = 0.125, cutout: float = 0.25
    ) -> None:
        super().__init__(discriminator)
        require_images(discriminator, "diffaugment")
        require_one_scale(discriminator, "diffaugment")
        for name, fraction in (("translation", translation), ("cutout", cutout)):
            if not 0 <= fraction < 1:
                raise ValueError(
                    f"stabilizer.diffaugment.{name}={fraction}: choose 0 or more, and below 1"
                )
        self.translation = translation
        self.cutout = cutout

    def features(self, batch: Batch) -> Tensor:
        if self.training:
            x, y, _ = batch
            images = [x] if y is None or y.dim() == 1 else [x, y]  # y may be an image
            augmented = cut_out(translate(torch.cat(images, 1), self.translation), self.cutout)
            x, *condition = torch.split(augmented, [image.shape[1] for image in images], 1)
            batch = batch._replace(x=x, y=condition[0] if condition else y)
        return super().features(batch)


def translate(x: Tensor, fraction: float) -> Tensor:
    """Shifts each of the images (B, C, H, W), horizontally and vertically.

    fraction: maximum shift, as a fraction of the image's side.
    """
    b, _, h, w = x.shape
    dy, dx = round(fraction * h), round(fraction * w)
    padded = F.pad(x, (dx, dx, dy, dy), value=BLACK).permute(0, 2, 3, 1)
    rows, columns = (
        torch.arange(n, device=x.device) + torch.randint(2 * d + 1, (b, 1), device=x.device)
        for n, d in ((h, dy), (w, dx))
    )
    image = torch.arange(b, device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(x: Tensor, fraction: float) -> Tensor:
    """Makes a square of each of the images (B, C, H, W) black.

    As in the authors' code, the center of the square is uniform over the image. At least a quarter
    of the square is inside.

    fraction: side of the square, as a fraction of the image's side.
    """
    b, _, *sides = x.shape
    inside = []
    for n in sides:
        size = int(fraction * n + 0.5)
        start = torch.randint(n + 1 - size % 2, (b, 1), device=x.device) - size // 2
        pixel = torch.arange(n, device=x.device).expand(b, n)
        inside.append((pixel >= start) & (pixel < start + size))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return x.masked_fill(square, BLACK)
