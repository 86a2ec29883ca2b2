"""Linear and dropout layers that are faster than PyTorch's on a CPU.

`linear` uses oneDNN's float32 matrix product instead of MKL's, which reaches half of the peak of an
AMD core. Both are equal up to rounding. `Dropout` samples 16 bits per element instead of a double.

Under torch.compile and torch.export both are PyTorch's own: Inductor needs a constant weight for
oneDNN's product, and Dynamo cannot trace `Tensor.random_`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BITS = 16
# The smallest number of weights for which oneDNN pays, because its backward pass runs in Python:
# 128 x 784 gain a fifth, 1024 x 784 half; 64 x 128 would take 40 us more.
MIN_WEIGHTS = 2**16


class Affine(torch.autograd.Function):
    """x w^T + b for x (B, I), w (O, I) and b (O,) or None, differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, w)
        return onednn_linear(x, w, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        (grad,), (needs_x, needs_w, needs_b) = grads, ctx.needs_input_grad
        return (
            affine(grad, w.t()) if needs_x else None,
            affine(grad.t(), x.t()) if needs_w else None,
            grad.sum(0) if needs_b else None,
        )


def onednn_linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """The product without a gradient."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(x, w, b, "none", [], "")
    return output


def affine(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """`Affine`, without the cost of autograd where no gradient is needed."""
    if not torch.is_grad_enabled():
        return onednn_linear(x, w, b)
    output: Tensor = Affine.apply(x, w, b)
    return output


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """x w^T + b (B, O) for x (B, I), w (O, I) and b (O,) or None, on any device."""
    if (
        not torch.compiler.is_compiling()
        and w.numel() >= MIN_WEIGHTS
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
    """Sets elements to 0 with probability p, rounded to a multiple of 2^-16."""

    def forward(self, input: Tensor) -> Tensor:
        dropped = round(self.p * 2**BITS)
        if (
            torch.compiler.is_compiling()
            or not self.training
            or input.device.type != "cpu"
            or dropped in (0, 2**BITS)
        ):
            return super().forward(input)
        words = -(-input.numel() * BITS // 64)
        bits = torch.empty(words, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = bits[: input.numel()].view(input.shape) >= dropped - 2 ** (BITS - 1)
        scale: Tensor = kept.to(input.dtype).mul_(2**BITS / (2**BITS - dropped))
        return input * scale
