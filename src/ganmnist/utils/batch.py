"""Batches of images, with their conditions and latents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


class Batch(NamedTuple):
    """Images with their conditions and latents. A family sets the fields that it uses."""

    x: Tensor  # images (B, C, H, W) in [-1, 1]
    y: Tensor | None = None  # the condition: labels (B,), or images (B, C, H, W)
    z: Tensor | None = None  # latents (B, Z)

    @property
    def condition(self) -> Tensor:
        """y, which must be set.

        Raises:
            ValueError: y is None.
        """
        if self.y is None:
            raise ValueError("Batch.y=None: this network needs y: labels or images")
        return self.y

    @property
    def latents(self) -> Tensor:
        """z, which must be set.

        Raises:
            ValueError: z is None.
        """
        if self.z is None:
            raise ValueError("Batch.z=None: this network needs latents. Pass z (B, Z)")
        return self.z

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Applies a function to every field that is set."""
        mapped = [value if value is None else function(value) for value in self]
        return Batch(*cast(list[Tensor], mapped))

    def to(self, device: torch.device) -> Batch:
        return self.map(lambda value: value.to(device))

    def detach(self, requires_grad: bool = False) -> Batch:
        """A detached batch. With `requires_grad`, x and z require gradients."""
        detached = self.map(Tensor.detach)
        for value in (detached.x, detached.z):
            if requires_grad and value is not None:
                value.requires_grad_()
        return detached


class FakeSample(NamedTuple):
    """Fake inputs of D for one real batch.

    z are the sampled latents. inputs.z are the latents that D sees: in an adversarial autoencoder
    the codes E(x).
    """

    inputs: Batch
    z: Tensor  # (B, Z)


def concat(a: Batch, b: Batch) -> Batch:
    """Concatenates two batches. A field that one of them lacks is None."""
    pairs = zip(a, b, strict=True)
    both = [None if v is None or w is None else torch.cat([v, w]) for v, w in pairs]
    return Batch(*cast(list[Tensor], both))


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Splits a batch into its first and its second half."""
    n = len(batch.x) // 2
    return batch.map(lambda value: value[:n]), batch.map(lambda value: value[n:])


def concat_columns(rows: Iterable[tuple[Any, ...]]) -> list[Tensor]:
    """Concatenates each column of tensors (B, ...) over all rows, to tensors (N, ...)."""
    return [torch.cat(column) for column in zip(*rows, strict=True)]


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
