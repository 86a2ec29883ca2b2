"""Euclidean distances between sets of features, in blocks that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 250  # rows at a time: 250 x 60,000 distances in float64 are 120 MB


def blocks(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Distances of (N, F) to (M, F): (n, M) for one block of rows of `a` after the other."""
    for rows in a.split(BLOCK):
        yield torch.cdist(rows, b)


def nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The distance (N,) of each row of (N, F) to the nearest of (M, F), and its index (N,)."""
    # |x - y|^2 = |x|^2 - 2 x.y + |y|^2, of which |x|^2 is the same for all y: half of cdist's time.
    squares, columns = b.square().sum(1), b.T.contiguous()
    index = torch.cat(
        [torch.addmm(squares, rows, columns, alpha=-2).argmin(1) for rows in a.split(BLOCK)]
    )
    # A distance found by matrix products is not exactly 0 for equal rows; this one is.
    return (a - b[index]).norm(dim=1), index


def radii(a: Tensor, k: int) -> Tensor:
    """The distance (N,) of each row of (N, F) to its k-th nearest among the others."""
    # Each row is its own nearest, at about 0. topk takes a seventh of kthvalue's time.
    near = [block.topk(k + 1, dim=1, largest=False).values for block in blocks(a, a)]
    return torch.cat(near)[:, k]
