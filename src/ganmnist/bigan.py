"""Bidirectional GANs (BiGAN: Donahue et al., 2016, arXiv 1605.09782; ALI: arXiv 1606.00704).

Beside G, which makes images of latents, an encoder E makes latents of images, and D tells the pairs
(x, E(x)) from (G(z), z). Where it cannot, each undoes the other:

    L_D = l_D((x, E(x)), (G(z), z)),    L_G,E = l_G((G(z), z)) + l_G((x, E(x)), sides swapped)

for any objective l whose sides can change places: E's loss is G's, of a D whose logits are mirrored
at the one that takes neither side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from ganmnist.duel import PARTS, Duel, Part, Sample, at_least_float32, columns
from ganmnist.gan import GAN
from ganmnist.initialization import first_batches, init_from_data
from ganmnist.metrics.neighbours import nearest
from ganmnist.networks.base import Discriminator, Wrapper
from ganmnist.networks.encoders import Encoder
from ganmnist.objectives import AsDPlays, Objective
from ganmnist.passes import at_rest, batch_statistics


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


class EncoderGAN(GAN):
    """A GAN with an encoder E, samples with images (B, C, H, W) to latents (B, Z)."""

    def __init__(self, encoder: Encoder, **parts: Any) -> None:
        super().__init__(**parts)
        self.encoder = encoder

    def initialize(self, real: Callable[[int], Sample], batch_size: int) -> None:
        super().initialize(real, batch_size)
        batch, batches = first_batches(real, batch_size)
        init_from_data(self.encoder, lambda: self.encoder(batch), batches)

    def encode(self, real: Sample) -> Tensor:
        """The latents (B, Z) of real samples, in evaluation mode."""
        with at_rest(self.encoder):
            return self.encoder(real)

    def reconstruct(self, real: Sample) -> Tensor:
        """G(E(x)), images (B, C, H, W), in evaluation mode."""
        return self.sample(self.encode(real), real.y)

    def reconstruction(self, batches: Iterable[Sample]) -> float:
        """The mean of |x - G(E(x))|^2, a pixel in [0, 1]."""
        (apart,) = columns((distances(batch, self.reconstruct(batch)),) for batch in batches)
        return apart.mean().item()

    def beside(self, real: Sample) -> Tensor:
        """Rows of ten real images, and below each row what G makes of their codes."""
        assert real.x is not None
        pairs = [x.unflatten(0, (-1, 10)) for x in (real.x, self.reconstruct(real))]
        return torch.stack(pairs, 1).flatten(0, 1)


class BiGAN(EncoderGAN):
    """A GAN whose D sees pairs. E as it was before training is kept, to compare with."""

    def __init__(self, encoder: Encoder, **parts: Any) -> None:
        super().__init__(encoder, **parts)
        self.untrained = deepcopy(encoder).requires_grad_(False)

    def initialize(self, real: Callable[[int], Sample], batch_size: int) -> None:
        super().initialize(real, batch_size)
        self.untrained.load_state_dict(self.encoder.state_dict())

    def real(self, batch: Sample, z: Tensor) -> Sample:
        return Sample(batch.x, batch.y, at_least_float32(self.encoder(batch)))

    def pictures(self, real: Callable[[int], Sample]) -> dict[str, Tensor]:
        return {"reconstructions": self.beside(real(50))}

    def figures(self, real: Callable[[Part], Iterable[Sample]]) -> dict[str, float]:
        """1-NN accuracies of the encoder on test images, and `reconstruction`.

        `nn_accuracy_hidden` compares E's last hidden layers, as the published figure does,
        `nn_accuracy` its latents, `nn_accuracy_untrained` the hidden layers of E before training.
        """
        views: dict[str, Callable[[Sample], Tensor]] = {
            "nn_accuracy_hidden": self.encoder.features,
            "nn_accuracy": self.encoder,
            "nn_accuracy_untrained": self.untrained.features,
        }
        # Batch norm has no running statistics before training.
        with batch_statistics(self.untrained):
            figures = {name: nn_accuracy(view, real) for name, view in views.items()}
        return figures | {"reconstruction": self.reconstruction(real("test"))}


def nn_accuracy(
    view: Callable[[Sample], Tensor], real: Callable[[Part], Iterable[Sample]], n: int = 50_000
) -> float:
    """The share of test samples that have the label of the nearest of n training samples.

    view: samples to rows (B, F), compared by their Euclidean distance.
    """
    (known, names), (codes, labels) = (
        columns((view(batch), batch.y) for batch in real(part)) for part in PARTS
    )
    _, index = nearest(codes.cpu().double(), known[:n].cpu().double())
    return (names[:n].cpu()[index] == labels.cpu()).double().mean().item()


def distances(real: Sample, images: Tensor) -> Tensor:
    """(B,) |x - y|^2 of images and those that were made of them, a pixel in [0, 1]."""
    assert real.x is not None
    return ((real.x - images) / 2).square().flatten(1).sum(1)
