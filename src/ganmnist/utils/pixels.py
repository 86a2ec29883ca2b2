"""Conversion of images between uint8 and the range of the networks, [-1, 1]."""

from __future__ import annotations

from torch import Tensor

BLACK = -1.0


def to_signed_range(x: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1], bit-identical to torchvision's (mean 0.5, std 0.5).

    Float images are in [-1, 1] already.
    """
    return x if x.is_floating_point() else x.float().div_(255).sub_(0.5).div_(0.5)


def to_bytes(x: Tensor) -> Tensor:
    """Images in [-1, 1] to the nearest uint8."""
    return x.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte()
