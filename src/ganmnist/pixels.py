"""Bytes to the networks' range and back. What is float is in that range, [-1, 1], already."""

from __future__ import annotations

from torch import Tensor


def to_unit_range(x: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1], in torchvision's order of roundings (mean 0.5, std 0.5)."""
    return x if x.is_floating_point() else x.float().div_(255).sub_(0.5).div_(0.5)


def to_bytes(x: Tensor) -> Tensor:
    """[-1, 1] to the nearest uint8."""
    return x.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte()
