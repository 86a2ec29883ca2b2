"""The layers of perceptrons: PyTorch's, and faster where they run on a CPU.

Linear's matrix products are oneDNN's instead of MKL's, whose float32 reaches half of the peak of an
AMD core; both are equal up to rounding. Dropout draws sixteen bits an element instead of a double.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BITS = 16
# Weights from which on it pays to differentiate in Python: 128 x 784 gain a fifth, 1024 x 784 half;
# 64 x 128 would take 40 us more.
LARGE = 2**16


class Affine(torch.autograd.Function):
    """x (B, I), w (O, I) and b (O,) or None to x w^T + b; its slopes are such products again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, w)
        return torch.ops.mkldnn._linear_pointwise(x, w, b, "none", [], "")

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        (slope,), (of_x, of_w, of_b) = slopes, ctx.needs_input_grad
        return (
            affine(slope, w.t()) if of_x else None,
            affine(slope.t(), x.t()) if of_w else None,
            slope.sum(0) if of_b else None,
        )


def affine(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    if torch.is_grad_enabled():
        return Affine.apply(x, w, b)
    return torch.ops.mkldnn._linear_pointwise(x, w, b, "none", [], "")


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """x (B, I), w (O, I) and b (O,) or None to x w^T + b (B, O), on any device."""
    if (
        w.numel() >= LARGE
        and x.device.type == "cpu"
        and x.dtype == w.dtype == torch.float32
        and x.dim() == 2
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    ):
        return affine(x, w, b)
    return F.linear(x, w, b)


class Linear(nn.Linear):
    """(B, I) to (B, O)."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class Dropout(nn.Dropout):
    """Each element is 0 with probability p, to the nearest multiple of 2^-16."""

    def forward(self, input: Tensor) -> Tensor:
        dropped = round(self.p * 2**BITS)
        if not self.training or input.device.type != "cpu" or dropped in (0, 2**BITS):
            return super().forward(input)
        words = -(-input.numel() * BITS // 64)
        drawn = torch.empty(words, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = drawn[: input.numel()].view(input.shape) >= dropped - 2 ** (BITS - 1)
        return input * kept.to(input.dtype).mul_(2**BITS / (2**BITS - dropped))
