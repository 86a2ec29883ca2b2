"""Plots of points in the plane: real and generated points over D's output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import lightning as L
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ganmnist.callbacks.samples import Samples
from ganmnist.gan import GAN
from ganmnist.reporting import images
from ganmnist.reporting.plots import D_COLOR, G_COLOR
from ganmnist.utils.batch import Batch
from ganmnist.utils.errors import UserError
from ganmnist.utils.modules import eval_no_grad

SIDE = 320  # pixels
CELLS = 60  # of the lattice along a side; CELLS**2 is a multiple of N_PARTS
N_PARTS = 30  # forward passes of D, whose output may depend on the other points of a batch
BANDS = 16  # colors of D's output
# From generated (0) to real (1).
COLORS = np.array([[168, 201, 226], [246, 246, 244], [240, 188, 178]], float)
DOT = 2.5  # radius in pixels


def lattice(cells: int = CELLS) -> Tensor:
    """The centers (cells^2, 2) of the cells of [-1, 1]^2, from the upper left, row by row."""
    steps = (torch.arange(cells) + 0.5) / cells * 2 - 1
    return torch.cartesian_prod(-steps, steps).flip(1)


def surface(gan: GAN, cells: int = CELLS) -> Tensor:
    """D's outputs (cells, cells) on the lattice, in evaluation mode.

    sigmoid(logit) where that is a probability, otherwise the logit. A D that packs m points into
    a logit takes m copies of each.
    """
    x = lattice(cells)[..., None, None].to(gan.device)
    d = gan.discriminator
    parts = [x[i::N_PARTS] for i in range(N_PARTS)]  # each covers the whole square
    with eval_no_grad(d):
        pack = len(parts[0]) // len(d(Batch(parts[0])))
        logits = torch.stack([d(Batch(part.repeat_interleave(pack, 0))) for part in parts], 1)
    values = logits.sigmoid() if gan.objective.probability else logits
    return values.float().cpu().reshape(cells, cells)


class PlaneSamples(Samples):
    """Samples for points: generated points (blue) and real ones (red) over D's output.

    The background runs from generated (bluish) to real (reddish): from 0 to 1 where D's output is a
    probability, otherwise from its lowest to its highest logit, which the caption names.

    Args:
        count: points of either kind.
        folder, sample_every, max_frames, max_rows: those of Samples.

    Raises:
        UserError: the data are images, or D takes more than a point.
    """

    def __init__(
        self,
        folder: str | Path,
        sample_every: int,
        count: int = 256,
        max_frames: int = 60,
        max_rows: int = 20,
    ) -> None:
        super().__init__(folder, sample_every, count, max_frames, max_rows)

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        data = trainer.datamodule
        if data.shape != (2, 1, 1):
            raise UserError(
                f"callbacks=plane: it plots points, and {data.dataset.name} has images of shape "
                f"{data.shape}. Use callbacks=default, or data=ring8 or data=grid25 with "
                "model=plane."
            )
        has_images = type(gan).extra_images is not GAN.extra_images
        if gan.discriminator.input_fields != {"x"} or has_images:
            raise UserError(
                "callbacks=plane: it plots D's output for each point, and the D of this family "
                "also takes labels or latents. Use family=gan for points."
            )
        self.points = data.dataset.fixed_subset(data.test, self.count)
        super().on_train_start(trainer, gan)

    def plot_generated(self, gan: GAN, x: Tensor, caption: str) -> Image.Image:
        values, span = surface(gan), ""
        if not gan.objective.probability:
            low, high = values.aminmax()
            span = f", D {low:.2g} to {high:.2g}"
            values = (values - low) / (high - low).clamp(min=1e-12)
        image = color_bands(values)
        scatter(image, self.points, D_COLOR)
        scatter(image, x, G_COLOR)
        add_legend(image, {"real": D_COLOR, "generated": G_COLOR})
        return images.captioned(image, f"{self.data}, {caption}{span}")

    def plot_real(self, x: Tensor, caption: str) -> Image.Image:
        image = color_bands(torch.full((1, 1), 0.5))
        scatter(image, x[: self.count], D_COLOR)
        add_legend(image, {"real": D_COLOR})
        return images.captioned(image, f"{self.data}, {caption}")

    def strip(self, image: Image.Image) -> Image.Image:
        return images.uncaptioned(image).reduce(2)


def color_bands(values: Tensor) -> Image.Image:
    """Values (h, w) from 0 to 1 as bands of color, an image of SIDE by SIDE pixels."""
    smooth = Image.fromarray(values.numpy()).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    bands = (np.asarray(smooth) * BANDS).astype(int).clip(0, BANDS - 1)
    at = np.linspace(0, 1, BANDS)
    colors = [np.interp(at, [0, 0.5, 1], channel) for channel in COLORS.T]
    return Image.fromarray(np.stack(colors, 1).round().astype(np.uint8)[bands])


def scatter(image: Image.Image, points: Tensor, color: str) -> None:
    """Adds dots at points (N, 2, 1, 1) in [-1, 1]."""
    pen = ImageDraw.Draw(image)
    for a, b in points.flatten(1).tolist():
        x, y = (1 + a) * SIDE / 2, (1 - b) * SIDE / 2
        pen.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=color)


def add_legend(image: Image.Image, colors: Mapping[str, str]) -> None:
    """Adds a dot and a name for each kind of points, in the lower left corner."""
    pen, font, x, y = ImageDraw.Draw(image), ImageFont.load_default(size=11), 8.0, SIDE - 9
    for name, color in colors.items():
        pen.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=color)
        pen.text((x + 3 * DOT, y), name, fill="black", font=font, anchor="lm")
        x += 5 * DOT + pen.textlength(name, font=font)
