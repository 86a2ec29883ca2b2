"""The classifier whose features the metrics compare, and its training.

Six convolutions and a linear layer, each with batch norm and ReLU, then the logits:

    1x28x28 -> 16 -> 32x14x14 -> 32 -> 64x7x7 -> 64 -> 24 -> flattened 1176 -> 64 -> 10

The 64 activations before the last layer are the features.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.utils.rng import generator_for, seed_device


class Classifier(nn.Module):
    """Maps gray images (B, 1, 28, 28) in [-1, 1] to logits (B, 10)."""

    architecture: ClassVar[str] = "conv3: 16 32/2 32 64/2 64, conv1: 24, linear: 64 10"

    def __init__(self) -> None:
        super().__init__()
        sizes = ((1, 16, 3, 1), (16, 32, 3, 2), (32, 32, 3, 1), (32, 64, 3, 2), (64, 64, 3, 1))
        layers: list[nn.Module] = []
        for c_in, c_out, kernel, stride in (*sizes, (64, 24, 1, 1)):
            conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        layers += [nn.Flatten(), nn.Linear(24 * 7 * 7, 64, bias=False)]
        layers += [nn.BatchNorm1d(64), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """Features (B, 64), at least 0."""
        features: Tensor = self.body(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.features(x))
        return logits


def fit(
    x: Tensor, y: Tensor, epochs: int = 20, batch_size: int = 128, lr: float = 4e-3, seed: int = 0
) -> Classifier:
    """Trains a classifier on images (N, 1, 28, 28) in [-1, 1] with random distortions.

    AdamW with one cycle of the learning rate (Smith and Topin, 2017, arXiv 1708.07120). The result
    is a function of the arguments on one machine.
    """
    with torch.random.fork_rng(devices=[]):
        seed_device(torch.device("cpu"), "classifier", seed)
        classifier = Classifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr, weight_decay=1e-2, fused=True)
    steps = epochs * (len(x) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps)
    rng = generator_for("distortions", seed)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator_for("classifier", seed, epoch))
        for batch in order.split(batch_size)[: len(x) // batch_size]:
            loss = F.cross_entropy(classifier(distort(x[batch], rng)), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return classifier.eval()


def distort(x: Tensor, rng: torch.Generator) -> Tensor:
    """Rotates, scales, shears and shifts images (B, 1, H, W) slightly, each at random."""

    def normal(std: float, *shape: int) -> Tensor:
        return std * torch.randn(len(x), *shape, generator=rng)

    angle = normal(math.radians(7))
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    skew = torch.diag_embed(1 + normal(0.07, 2))
    skew[:, 0, 1] = normal(0.1)
    theta = torch.cat([rotation @ skew, normal(0.06, 2, 1)], 2)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # the border is 0, black is -1


@torch.no_grad()
def accuracy(classifier: Classifier, x: Tensor, y: Tensor) -> float:
    """The share of images (N, 1, 28, 28) in [-1, 1] that are classified correctly."""
    batches = zip(x.split(1000), y.split(1000), strict=True)
    correct = torch.cat([classifier(a).argmax(1) == b for a, b in batches])
    return correct.double().mean().item()
