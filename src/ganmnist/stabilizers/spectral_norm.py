"""Spectral normalization (Miyato et al., 2018, arXiv 1802.05957)."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import spectral_norm

from ganmnist.networks.base import Discriminator, DiscriminatorWrapper
from ganmnist.stabilizers.base import Stabilizer


class SpectralNorm(Stabilizer):
    """Divides the weights of every layer by their largest singular value.

    Miyato et al. (2018, arXiv 1802.05957). It bounds D's Lipschitz constant. Every forward pass in
    training makes one step of power iteration. The matrix of a convolution has one row per output
    channel.
    """

    discriminator_norm = "none"

    def wrap_discriminator(self, discriminator: Discriminator) -> Discriminator:
        for layer in [*discriminator.modules()]:
            if isinstance(layer, _NormBase | nn.GroupNorm | nn.LayerNorm):
                raise ValueError(
                    "stabilizer=spectral_norm: D has norm layers, which undo the division. Use "
                    "model.discriminator.norm=none, or a model without them, such as resnet"
                )
            if isinstance(layer, nn.Linear | nn.Conv2d):
                if not layer.weight.any():
                    raise ValueError(
                        "stabilizer=spectral_norm: D has a layer with weights 0 (model=r3gan has), "
                        "whose largest singular value is 0. Use another model, or penalty=r1"
                    )
                spectral_norm(layer)
        return DiscriminatorWrapper(discriminator)
