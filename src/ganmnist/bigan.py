"""Bidirectional GANs (BiGAN: Donahue et al., 2016, arXiv 1605.09782; ALI: arXiv 1606.00704).

Beside G, which makes images of latents, an encoder E makes latents of images, and D tells the pairs
(x, E(x)) from (G(z), z). Where it cannot, each undoes the other:

    L_D = l_D((x, E(x)), (G(z), z)),    L_G,E = l_G((G(z), z)) + l_G((x, E(x)), sides swapped)

for any objective l whose sides can change places: E's loss is G's, of a D whose logits are mirrored
at the one that takes neither side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ganmnist.duel import Duel, Part, Sample, at_least_float32
from ganmnist.gan import GAN
from ganmnist.metrics.neighbours import nearest
from ganmnist.networks.base import Discriminator, Wrapper
from ganmnist.objectives import AsDPlays, Objective
from ganmnist.passes import at_rest

BATCH = 500  # images at a time, where nothing is trained


class Opposed(Wrapper):
    """A discriminator that answers the opposite: its logits, mirrored at `neutral`."""

    def __init__(self, inside: Discriminator, neutral: float) -> None:
        super().__init__(inside)
        self.neutral = neutral

    def score(self, features: Tensor, sample: Sample) -> Tensor:
        return 2 * self.neutral - super().score(features, sample)


class BothWays(AsDPlays):
    """A game that the real side plays too: it shall pass for the fake one.

    Raises:
        ValueError: the sides of this game cannot change places.
    """

    def __init__(self, game: Objective) -> None:
        super().__init__(game)
        if game.neutral is None:
            raise ValueError(
                f"An encoder plays G's game with the sides swapped, and those of "
                f"{type(game).__name__} cannot be: choose another objective, such as bce_logits"
            )
        self.neutral = self.mirror = game.neutral
        of_d, of_g = game.equilibrium
        self.equilibrium = (of_d, None if of_g is None else 2 * of_g)

    def g_loss(self, duel: Duel) -> Tensor:
        opposed = Opposed(duel.discriminator, self.mirror)
        swapped = Duel(opposed, duel.fake, duel.real)
        of_g, of_e = self.game.g_loss(duel), self.game.g_loss(swapped)
        assert of_g is not None
        assert of_e is not None
        return duel.part("generator", of_g) + duel.part("encoder", of_e)


class BiGAN(GAN):
    """A GAN with an encoder, samples (B, C, H, W) to latents (B, Z); D sees pairs."""

    def __init__(self, encoder: nn.Module, **parts: Any) -> None:
        super().__init__(**parts)
        self.encoder = encoder

    def real(self, batch: Sample, z: Tensor) -> Sample:
        return Sample(batch.x, batch.y, at_least_float32(self.encoder(batch)))

    def pictures(self, real: Callable[[int], Sample]) -> dict[str, Tensor]:
        return {"reconstructions": self.beside(real(50))}

    def figures(self, real: Callable[[Part], Sample]) -> dict[str, float]:
        """`nn_accuracy`: of test images, labelled like the training image of the nearest latent."""
        train, test = real("train"), real("test")
        assert train.y is not None
        assert test.y is not None
        _, index = nearest(*(self.encode(part).cpu().double() for part in (test, train)))
        right = train.y.cpu()[index] == test.y.cpu()
        return {
            "nn_accuracy": right.double().mean().item(),
            "reconstruction": distance(test, self.reconstruct(test)),
        }

    def encode(self, real: Sample) -> Tensor:
        """The latents (B, Z) of real samples, in evaluation mode."""
        with at_rest(self.encoder):
            return torch.cat([self.encoder(part) for part in split(real)])

    def beside(self, real: Sample) -> Tensor:
        """Rows of ten real images, and below each row what G makes of their codes."""
        assert real.x is not None
        pairs = [x.unflatten(0, (-1, 10)) for x in (real.x, self.reconstruct(real))]
        return torch.stack(pairs, 1).flatten(0, 1)

    def reconstruct(self, real: Sample) -> Tensor:
        """G(E(x)), images (B, C, H, W), in evaluation mode."""
        parts = zip(self.encode(real).split(BATCH), split(real), strict=True)
        return torch.cat([self.sample(z, part.y) for z, part in parts])


def split(real: Sample) -> list[Sample]:
    """Real samples in batches."""
    assert real.x is not None
    labels = [None] * len(real.x.split(BATCH)) if real.y is None else real.y.split(BATCH)
    return [Sample(x, y) for x, y in zip(real.x.split(BATCH), labels, strict=True)]


def distance(real: Sample, images: Tensor) -> float:
    """The mean squared distance of an image from the one that was made of it, a pixel in [0, 1]."""
    assert real.x is not None
    return ((real.x - images) / 2).square().flatten(1).sum(1).mean().item()
