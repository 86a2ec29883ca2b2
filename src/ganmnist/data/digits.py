"""A replacement of MNIST that needs no download: real 8x8 digits, enlarged to 28x28.

The originals in digits.npz are the test part of Optical Recognition of Handwritten Digits,
E. Alpaydin and C. Kaynak, UCI Machine Learning Repository (1998), doi 10.24432/C50P49, CC BY 4.0.
The same 13 people wrote all of them.

Each of the 8x8 values counts the ink in a 4x4 block of a scanned 32x32 bitmap. Enlarging them is
an inverse problem. With u the bicubic enlargement, s a steep sigmoid and P the mean over blocks,

    ink = s(u(v)),    v <- v + (t - P(ink)),    v_0 = t

changes the cells v until the sharp image s(u(v)) has the scanned values t as its block means. The
strokes are then thinned and fitted to MNIST's 20x20 box. Small affine and elastic distortions make
many images of a training original. The result is a function of `VERSION` alone.
"""

from math import radians
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

VERSION = 1  # seed, and part of the cache's name: raise it with any change of the images
N_TEST = 297  # of 1,797 originals; 1,500 remain, and 40 images of each make MNIST's 60,000

# Stroke width and contrast, tuned to MNIST's test images: the undistorted digits have a mean gray
# of 0.135 (MNIST 0.133), a standard deviation of 0.317 (0.310), and 9.1 % (9.0 %) of the pixels
# over 0.9.
STEEPNESS, THINNING, THRESHOLD, CONTRAST = 6.0, 0.5, 0.4, 2.0

# Standard deviations of the random distortion of a copy. They are small enough to keep its label.
ROTATION, SCALE, SHEAR = radians(6), 0.06, 0.1
SHIFT, ELASTIC = 0.05, 0.06  # in units of half the 20-pixel box: 0.1 is one pixel


def build(copies: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Builds the data set, with `copies` training images of every training original.

    Returns:
        (x, y) of the training and of the test split: x (N, 1, 28, 28) uint8, white on black, y (N,)
        int64. The first 1,500 training images are the undistorted originals. Image i + 1500 k is
        copy k of original i. Fewer copies are a prefix of more.
    """
    counts, labels = _originals()
    field = _fit_box(_strokes(counts))
    rng = Generator().manual_seed(VERSION)
    train, test = _split(labels, rng)

    undistorted = F.pad(_to_gray(F.interpolate(field, size=20, mode="area")), (4, 4, 4, 4))
    distorted = [_to_gray(_distort(field[train], rng)) for _ in range(copies - 1)]
    x = torch.cat([undistorted[train], *distorted])
    return (x, labels[train].repeat(copies)), (undistorted[test], labels[test])


def _originals() -> tuple[Tensor, Tensor]:
    """The scanned digits (1797, 1, 8, 8) in [0, 1], 1 = full ink, and their labels (1797,)."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        counts, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    return counts.float().div(16).unsqueeze(1), labels.long()


def _split(labels: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the test originals, 29 or 30 of every class for testing."""
    order = torch.randperm(len(labels), generator=rng)
    classes = [order[labels[order] == c] for c in range(10)]
    sizes = [N_TEST // 10 + (c < N_TEST % 10) for c in range(10)]
    test = torch.cat([members[:n] for members, n in zip(classes, sizes, strict=True)])
    return order[~torch.isin(order, test)], test


def _strokes(counts: Tensor) -> Tensor:
    """Ink counts (B, 1, 8, 8) to thinned strokes (B, 1, 40, 40): the 32x32 bitmap and a margin."""
    target = F.pad(counts, (1, 1, 1, 1))  # strokes reach the edge: the margin lets them end inside
    cells = target.clone()
    for _ in range(12):  # the mean error of t falls from 0.057 to 0.013, then slowly
        ink = torch.sigmoid(STEEPNESS * (_enlarge(cells) - 0.5))
        cells = (cells + target - F.avg_pool2d(ink, 4)).clamp(-0.5, 1.5)
    # Subtracting the local mean lowers a broad stroke more than a narrow one.
    return ink - THINNING * _enlarge(F.avg_pool2d(target, 3, stride=1, padding=1))


def _enlarge(cells: Tensor) -> Tensor:
    return F.interpolate(cells, scale_factor=4, mode="bicubic")


def _fit_box(field: Tensor) -> Tensor:
    """Moves and scales every digit to fill a box (B, 1, 40, 40), twice the size of MNIST's.

    As in MNIST, the longer side fills the box and the aspect ratio stays.
    """
    size = field.shape[-1]
    inked = (field > THRESHOLD - 0.5 / CONTRAST).squeeze(1)  # where the image is not black
    spans = [_span(inked.any(dim)) for dim in (1, 2)]  # columns, then rows: grid_sample's x and y
    center = torch.stack([(first + last) / size - 1 for first, last in spans], 1)
    half = torch.stack([(last - first) / size for first, last in spans], 1).amax(1)
    theta = torch.cat([half[:, None, None] * torch.eye(2), center.unsqueeze(2)], 2)
    grid = F.affine_grid(theta, list(field.shape), align_corners=False)
    return F.grid_sample(field, grid, align_corners=False)


def _span(inked: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last true position of each row of (B, L)."""
    return inked.int().argmax(1), inked.shape[1] - inked.flip(1).int().argmax(1)


def _distort(field: Tensor, rng: Generator) -> Tensor:
    """One random distortion (B, 1, 28, 28) of each field (B, 1, 40, 40)."""
    batch = len(field)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=rng)

    angle = ROTATION * normal()
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    skew = torch.diag_embed(1 + SCALE * normal(2))
    skew[:, 0, 1] = SHEAR * normal()
    theta = torch.cat([rotation @ skew * 28 / 20, SHIFT * normal(2, 1)], 2)
    grid = F.affine_grid(theta, [batch, 1, 28, 28], align_corners=False)
    # Independent displacements seven pixels apart bend strokes without breaking them.
    bend = F.interpolate(ELASTIC * normal(2, 4, 4), size=28, mode="bicubic")
    return F.grid_sample(field, grid + bend.permute(0, 2, 3, 1), align_corners=False)


def _to_gray(field: Tensor) -> Tensor:
    """Gray values uint8 of a field: black below the threshold, soft at edges."""
    return (CONTRAST * (field - THRESHOLD) + 0.5).clamp(0, 1).mul(255).round().byte()
