"""Nearest neighbors by Euclidean distance, in blocks that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 250  # rows at a time: 250 x 60,000 distances in float64 are 120 MB


def blocks(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Yields the distances (n, M) from each block of n rows of a (N, F) to b (M, F)."""
    for rows in torch.split(a, BLOCK):
        yield torch.cdist(rows, b)


def nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The row of b (M, F) nearest to each row of a (N, F): distances (N,) and indices (N,)."""
    # |x - y|^2 = |x|^2 - 2 x.y + |y|^2. Without |x|^2, which has no effect: half of cdist's time.
    squares, columns = b.square().sum(1), b.T.contiguous()
    products = (torch.addmm(squares, rows, columns, alpha=-2) for rows in torch.split(a, BLOCK))
    index = torch.cat([block.argmin(1) for block in products])
    # Distances from matrix products are not exactly 0 for equal rows. These are.
    return (a - b[index]).norm(dim=1), index


def radii(a: Tensor, k: int) -> Tensor:
    """Distances (N,) from each row of a (N, F) to its k-th nearest other row."""
    # Each row is nearest to itself. topk takes a seventh of kthvalue's time.
    near = [block.topk(k + 1, dim=1, largest=False).values for block in blocks(a, a)]
    return torch.cat(near)[:, k]
