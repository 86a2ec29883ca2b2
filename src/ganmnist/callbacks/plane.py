"""Pictures of points in the plane: where real and generated ones lie, and what D thinks there."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ganmnist import images
from ganmnist.callbacks.samples import Samples
from ganmnist.duel import Sample
from ganmnist.errors import UserError
from ganmnist.gan import GAN
from ganmnist.passes import at_rest
from ganmnist.plots import D_COLOUR, G_COLOUR

SIDE = 320  # pixels
CELLS = 60  # of D's surface, along a side; their number squared is a multiple of PARTS
PARTS = 30  # in which D is asked about them, for what it says may depend on the batch
BANDS = 16  # colours of the surface
# From what D takes for generated to what it takes for real.
COLOURS = np.array([[168, 201, 226], [246, 246, 244], [240, 188, 178]], float)
DOT = 2.5  # radius in pixels


def lattice(cells: int = CELLS) -> Tensor:
    """The middles (cells^2, 2) of the cells of [-1, 1]^2, from the upper left, row by row."""
    steps = (torch.arange(cells) + 0.5) / cells * 2 - 1
    return torch.cartesian_prod(-steps, steps).flip(1)


def surface(gan: GAN, cells: int = CELLS) -> Tensor:
    """What D says of the points of the lattice, (cells, cells), in evaluation mode.

    sigmoid(logit) where that is a probability, else the logit. A D that packs several points into
    a logit is shown copies of each.
    """
    x = lattice(cells)[..., None, None].to(gan.device)
    d = gan.discriminator
    # Every part is spread over the whole square.
    parts = [x[i::PARTS] for i in range(PARTS)]
    with at_rest(d):
        pack = len(parts[0]) // len(d(Sample(parts[0])))
        logits = torch.stack([d(Sample(part.repeat_interleave(pack, 0))) for part in parts], 1)
    values = logits.sigmoid() if gan.objective.probability else logits
    return values.float().cpu().reshape(cells, cells)


class Plane(Samples):
    """Samples, for points: generated ones (blue) among real ones (red), over D's surface.

    The surface runs from what D takes for generated (bluish) to what it takes for real (reddish):
    from 0 to 1 where D's answer is a probability, else from its lowest to its highest logit, which
    the caption says.

    Args:
        count: points of either kind.
        others: those of Samples.

    Raises:
        UserError: the data are no points.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int,
        count: int = 256,
        most_frames: int = 60,
        most_rows: int = 20,
    ) -> None:
        super().__init__(folder, every, count, most_frames, most_rows)

    def on_train_start(self, trainer: L.Trainer, gan: GAN) -> None:
        data = trainer.datamodule
        if data.shape != (2, 1, 1):
            raise UserError(
                f"callbacks=plane draws points, and {data.dataset.name} are images of shape "
                f"{data.shape}: leave it out, or choose data=ring8 or data=grid25, model=plane."
            )
        if gan.discriminator.sees != {"x"} or type(gan).pictures is not GAN.pictures:
            raise UserError(
                "callbacks=plane draws what D says of each point, and this family's D sees labels "
                "or latents with it: choose family=gan for points."
            )
        self.points = data.dataset.still(data.test, self.count)
        super().on_train_start(trainer, gan)

    def draw(self, gan: GAN, x: Tensor, what: str) -> Image.Image:
        values, span = surface(gan), ""
        if not gan.objective.probability:
            low, high = values.aminmax()
            span = f", D {low:.2g} to {high:.2g}"
            values = (values - low) / (high - low).clamp(min=1e-12)
        picture = paint(values)
        scatter(picture, self.points, D_COLOUR)
        scatter(picture, x, G_COLOUR)
        return images.captioned(picture, f"{self.data}, {what}{span}")

    def draw_real(self, x: Tensor, what: str) -> Image.Image:
        picture = paint(torch.full((1, 1), 0.5))
        scatter(picture, x[: self.count], D_COLOUR)
        return images.captioned(picture, f"{self.data}, {what}")

    def strip(self, picture: Image.Image) -> Image.Image:
        return images.uncaptioned(picture).reduce(2)


def paint(values: Tensor) -> Image.Image:
    """Numbers (h, w) from 0 to 1 in bands of colour, a picture of SIDE by SIDE pixels."""
    smooth = Image.fromarray(values.numpy()).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    bands = (np.asarray(smooth) * BANDS).astype(int).clip(0, BANDS - 1)
    at = np.linspace(0, 1, BANDS)
    colours = [np.interp(at, [0, 0.5, 1], channel) for channel in COLOURS.T]
    return Image.fromarray(np.stack(colours, 1).round().astype(np.uint8)[bands])


def scatter(picture: Image.Image, points: Tensor, colour: str) -> None:
    """Dots at points (N, 2, 1, 1) in [-1, 1]."""
    pen = ImageDraw.Draw(picture)
    for a, b in points.flatten(1).tolist():
        x, y = (1 + a) * SIDE / 2, (1 - b) * SIDE / 2
        pen.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=colour)
