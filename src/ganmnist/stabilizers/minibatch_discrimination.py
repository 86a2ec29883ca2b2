"""Minibatch discrimination (Salimans et al., 2016, arXiv 1606.03498)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganmnist.networks.base import Discriminator, DiscriminatorWrapper
from ganmnist.stabilizers.base import Stabilizer, require_one_scale
from ganmnist.utils.batch import Batch


class MinibatchDiscrimination(Stabilizer):
    """Similarities to the other images of the minibatch, for D (`SimilarityDiscriminator`)."""

    def __init__(self, kernels: int = 50, dims: int = 5) -> None:
        self.kernels = kernels
        self.dims = dims

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        return SimilarityDiscriminator(discriminator, self.kernels, self.dims)


class SimilarityDiscriminator(DiscriminatorWrapper):
    """Adds similarities of the images of a minibatch to D's logit.

    Minibatch discrimination (Salimans et al., 2016, arXiv 1606.03498). The weights of the
    similarities start at 0, so the first logits are those of the wrapped discriminator.
    """

    def __init__(self, discriminator: Discriminator, kernels: int = 50, dims: int = 5) -> None:
        super().__init__(discriminator)
        for name, value in (("kernels", kernels), ("dims", dims)):
            if value < 1:
                raise ValueError(
                    f"stabilizer.minibatch_discrimination.{name}={value}: choose 1 or more"
                )
        require_one_scale(discriminator, "minibatch_discrimination")
        self.similarity = MinibatchSimilarity(discriminator.n_features, kernels, dims)
        self.weight = nn.Linear(kernels, 1, bias=False)
        nn.init.zeros_(self.weight.weight)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        logits = super().logits(features, batch)
        statistic: Tensor = self.weight(self.similarity(features))
        return logits + statistic.flatten()


class MinibatchSimilarity(nn.Module):
    """Similarities of each image to the others of its batch: features (B, F) to (B, kernels).

    With matrices M_i = T h_i of `kernels` rows and `dims` columns, the similarities are
    o_k(i) = sum over j != i of exp(-|M_ik - M_jk|_1), plus a bias. As in the authors' code, the
    first images set the bias so that the mean is 0; with a bias of 0 the similarities start near
    B - 1. The authors' code scales T by the first batch, too (docs/objectives.md).
    """

    def __init__(self, n_features: int, kernels: int, dims: int) -> None:
        super().__init__()
        self.matrix_shape = (kernels, dims)
        self.project = nn.Linear(n_features, kernels * dims, bias=False)
        self.bias = nn.Parameter(torch.zeros(kernels))

    def forward(self, features: Tensor) -> Tensor:
        return sum_similarities(self.distances(features)) + self.bias

    def distances(self, features: Tensor) -> Tensor:
        """Distances (kernels, B, B). This order of the dimensions is fast on a CPU."""
        m = torch.unflatten(self.project(features).float().T, 0, self.matrix_shape)
        return (m[..., None] - m[:, :, None]).abs().sum(1)

    @torch.no_grad()
    def init_from_input(self, features: Tensor, rows: int) -> None:
        batches = torch.split(features, rows)
        similarities = [sum_similarities(self.distances(batch)) for batch in batches]
        self.bias.copy_(-torch.cat(similarities).mean(0))


def sum_similarities(distances: Tensor) -> Tensor:
    """Sums (B, kernels) of exp(-distance) over the other images, of distances (kernels, B, B)."""
    return ((-distances).exp().sum(1) - 1).T  # minus the image itself
