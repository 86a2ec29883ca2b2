"""Image grids with captions, film strips and GIFs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ganmnist.utils.errors import UserError
from ganmnist.utils.files import atomic_write
from ganmnist.utils.pixels import to_bytes

T = TypeVar("T")

MAX_PIXELS = 1 << 25  # a small file may claim any size
SCALE = 2  # screen pixels per image pixel
GAP = 2  # screen pixels between images
CAPTION = 22  # height of a caption in screen pixels
FOREGROUND, BACKGROUND = 235, 24


def to_uint8(x: Tensor) -> np.ndarray:
    """Converts images (N, C, H, W) in [-1, 1] to uint8 (N, H, W, C) on the CPU."""
    return to_bytes(x).cpu().permute(0, 2, 3, 1).numpy()


def check_channels(channels: int) -> None:
    """Raises UserError for a number of channels that no image has."""
    if channels not in (1, 3):
        raise UserError(
            f"An image has 1 (gray) or 3 (RGB) channels, these data have {channels}. For points in "
            "the plane use callbacks=plane, and ganmnist.load(run).sample(n)."
        )


def grid(images: np.ndarray, columns: int) -> Image.Image:
    """Images (N, H, W, C) uint8 in rows of `columns`, enlarged without interpolation."""
    n, h, w, c = images.shape
    check_channels(c)
    rows = -(-n // columns)
    cell_h, cell_w = h * SCALE + GAP, w * SCALE + GAP
    canvas = np.full((rows * cell_h + GAP, columns * cell_w + GAP, c), BACKGROUND, np.uint8)
    large = images.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    for i, image in enumerate(large):
        top, left = i // columns * cell_h + GAP, i % columns * cell_w + GAP
        canvas[top : top + h * SCALE, left : left + w * SCALE] = image
    return Image.fromarray(canvas[..., 0] if c == 1 else canvas)


def write_text(image: Image.Image, text: str, xy: tuple[float, float], anchor: str) -> None:
    color = FOREGROUND if image.mode == "L" else (FOREGROUND,) * 3
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(image).text(xy, text, fill=color, font=font, anchor=anchor)


def captioned(image: Image.Image, text: str) -> Image.Image:
    """The image with a line of text above it."""
    size = (image.width, image.height + CAPTION)
    canvas = Image.new(image.mode, size, _background(image.mode))
    canvas.paste(image, (0, CAPTION))
    write_text(canvas, text, (GAP + 2, CAPTION / 2), "lm")
    return canvas


def uncaptioned(image: Image.Image) -> Image.Image:
    """The image without its caption."""
    return image.crop((0, CAPTION, *image.size))


def filmstrip(strips: Sequence[tuple[str, Image.Image]], caption: str) -> Image.Image:
    """Images of one size below each other, each with a label to its left."""
    width, height = strips[0][1].size
    margin = 84
    canvas = Image.new(
        strips[0][1].mode, (margin + width, height * len(strips)), _background(strips[0][1].mode)
    )
    for i, (label, strip) in enumerate(strips):
        canvas.paste(strip, (margin, i * height))
        write_text(canvas, label, (margin - 8, (i + 0.5) * height), "rm")
    return captioned(canvas, caption)


def subsample(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spread, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


class Subsampler(Generic[T]):
    """Keeps evenly spread items of a growing sequence: between `most` and 2 `most` of them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: list[T] = []  # every `stride`-th item
        self.stride = 1
        self.seen = 0

    def add(self, item: T) -> None:
        if self.seen % self.stride == 0:
            self.kept.append(item)
        self.seen += 1
        self.newest = item
        if len(self.kept) > 2 * self.most:
            self.kept = self.kept[::2]
            self.stride *= 2

    def items(self) -> list[T]:
        """At most `most` of the items, with the first and the newest."""
        if not self.kept:
            return []
        newest = [] if self.kept[-1] is self.newest else [self.newest]
        return subsample([*self.kept, *newest], self.most)


def read(path: Path) -> Image.Image:
    """Reads an image.

    Raises:
        OSError: it is missing, damaged, or has more than `MAX_PIXELS`.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise OSError(f"{image.width} x {image.height} pixels")
            image.load()
            return image
    except (SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from error


def save(image: Image.Image, path: Path) -> None:
    """Writes an image in the format of its suffix."""
    with atomic_write(path) as part:
        image.save(part, format=path.suffix[1:])


def indexed(image: Image.Image) -> Image.Image:
    """An image as a GIF stores it. The palette of a color image takes a while."""
    return image.convert("P", palette=Image.Palette.ADAPTIVE) if image.mode == "RGB" else image


def save_gif(frames: Sequence[Image.Image], path: Path, seconds: float = 8.0) -> None:
    """Writes a looping GIF of about `seconds`, which shows its last frame longer.

    Gray frames keep 16 of their 256 levels, enough for digits. This saves two thirds of the bytes.
    """
    step = max(40, round(1000 * seconds / len(frames)))
    levels = [v & 0xF0 | v >> 4 for v in range(256)]
    first, *rest = [frame.point(levels) if frame.mode == "L" else frame for frame in frames]
    with atomic_write(path) as part:
        first.save(
            part,
            format="gif",
            save_all=True,
            append_images=rest,
            duration=[step] * len(rest) + [1500],
            loop=0,
            optimize=False,
        )


def _background(mode: str) -> int | tuple[int, int, int]:
    return BACKGROUND if mode == "L" else (BACKGROUND,) * 3
