"""Stand-in for MNIST that needs no download: real 8x8 digits, redrawn as pen strokes.

The originals in digits.npz are the test part of Optical Recognition of Handwritten Digits,
E. Alpaydin and C. Kaynak, UCI Machine Learning Repository (1998), doi 10.24432/C50P49, CC BY 4.0.
The same 13 people wrote all of them.

Each of the 8x8 values counts the ink in a 4x4 block of a scanned 32x32 bitmap, so enlarging them is
an inverse problem. With u the bicubic enlargement, s a steep sigmoid and P the mean over blocks,

    ink = s(u(v)),    v <- v + (t - P(ink)),    v_0 = t

moves the cells v until the ink, sharp by construction, counts to the scanned values t again. The
strokes are then thinned, fitted to MNIST's 20x20 box, and a training original becomes many images
by small affine and elastic distortions. All of it is a function of `VERSION` alone.
"""

from math import radians
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

VERSION = 1  # seeds every draw and names the cache: raise it with any change to the pictures
TEST = 297  # originals set aside, of 1,797: 1,500 remain, and 40 images of each make MNIST's 60,000

# The pen, tuned until the undistorted digits carry the ink of MNIST's test images: mean grey 0.135
# (MNIST 0.133), standard deviation 0.317 (0.310), and 9.1 % (9.0 %) of the pixels over 0.9.
STEEPNESS, THINNING, THRESHOLD, CONTRAST = 6.0, 0.5, 0.4, 2.0

# The hand. Standard deviations of what one copy differs by, small enough to leave every label true.
ROTATION, SCALE, SHEAR = radians(6), 0.06, 0.1
SHIFT, ELASTIC = 0.05, 0.06  # in halves of the 20-pixel box: 0.1 is one pixel


def build(copies: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Draw the data set: `copies` training images of every training original, and the test part.

    Returns:
        (x, y) of the training part and of the test part: x (N, 1, 28, 28) uint8, white on black,
        y (N,) int64. Training images are ordered copy by copy: the first 1,500 are the undistorted
        originals, image i + 1500 k shows original i again, and fewer copies are a prefix of more.
    """
    counts, labels = _originals()
    field = _fit(_stroke(counts))
    rng = Generator().manual_seed(VERSION)
    train, test = _split(labels, rng)

    plain = F.pad(_pen(F.interpolate(field, size=20, mode="area")), (4, 4, 4, 4))
    drawn = [_pen(_distort(field[train], rng)) for _ in range(copies - 1)]
    x = torch.cat([plain[train], *drawn])
    return (x, labels[train].repeat(copies)), (plain[test], labels[test])


def _originals() -> tuple[Tensor, Tensor]:
    """The scanned digits (1797, 1, 8, 8) in [0, 1], 1 = all ink, and their labels (1797,)."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        counts, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    return counts.float().div(16).unsqueeze(1), labels.long()


def _split(labels: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the test originals, 29 or 30 of every class for testing."""
    order = torch.randperm(len(labels), generator=rng)
    classes = [order[labels[order] == c] for c in range(10)]
    sizes = [TEST // 10 + (c < TEST % 10) for c in range(10)]
    test = torch.cat([members[:n] for members, n in zip(classes, sizes, strict=True)])
    return order[~torch.isin(order, test)], test


def _stroke(counts: Tensor) -> Tensor:
    """Ink counts (B, 1, 8, 8) -> thinned field (B, 1, 40, 40): the 32x32 bitmap and a margin."""
    target = F.pad(counts, (1, 1, 1, 1))  # strokes run up to the edge: let them end inside
    cells = target.clone()
    for _ in range(12):  # the mean miscount falls from 0.057 to 0.013, then slowly
        ink = torch.sigmoid(STEEPNESS * (_enlarge(cells) - 0.5))
        cells = (cells + target - F.avg_pool2d(ink, 4)).clamp(-0.5, 1.5)
    # Taking off the neighbourhood's mean lowers a broad stroke more than a narrow one.
    return ink - THINNING * _enlarge(F.avg_pool2d(target, 3, stride=1, padding=1))


def _enlarge(cells: Tensor) -> Tensor:
    return F.interpolate(cells, scale_factor=4, mode="bicubic")


def _fit(field: Tensor) -> Tensor:
    """Move and scale every digit's ink to fill a box (B, 1, 40, 40), two pixels for one of MNIST's.

    As in MNIST, the longer side fills the box and the aspect ratio stays.
    """
    size = field.shape[-1]
    inked = (field > THRESHOLD - 0.5 / CONTRAST).squeeze(1)  # where the pen leaves any grey at all
    spans = [_span(inked.any(dim)) for dim in (1, 2)]  # columns, then rows: grid_sample's x and y
    centre = torch.stack([(first + last) / size - 1 for first, last in spans], 1)
    half = torch.stack([(last - first) / size for first, last in spans], 1).amax(1)
    theta = torch.cat([half[:, None, None] * torch.eye(2), centre.unsqueeze(2)], 2)
    grid = F.affine_grid(theta, list(field.shape), align_corners=False)
    return F.grid_sample(field, grid, align_corners=False)


def _span(inked: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last true position of each row of (B, L)."""
    return inked.int().argmax(1), inked.shape[1] - inked.flip(1).int().argmax(1)


def _distort(field: Tensor, rng: Generator) -> Tensor:
    """Fields (B, 1, 40, 40) -> seen through one random distortion each (B, 1, 28, 28)."""
    batch = len(field)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=rng)

    angle = ROTATION * normal()
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    skew = torch.diag_embed(1 + SCALE * normal(2))
    skew[:, 0, 1] = SHEAR * normal()
    theta = torch.cat([turn @ skew * 28 / 20, SHIFT * normal(2, 1)], 2)
    grid = F.affine_grid(theta, [batch, 1, 28, 28], align_corners=False)
    # One free displacement every seven pixels bends strokes without tearing them.
    bend = F.interpolate(ELASTIC * normal(2, 4, 4), size=28, mode="bicubic")
    return F.grid_sample(field, grid + bend.permute(0, 2, 3, 1), align_corners=False)


def _pen(field: Tensor) -> Tensor:
    """The contrast curve: field -> grey values uint8, black below the threshold, soft at edges."""
    return (CONTRAST * (field - THRESHOLD) + 0.5).clamp(0, 1).mul(255).round().byte()
