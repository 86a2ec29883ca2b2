"""Networks of conf/model/, and their layers."""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache

import torch
from hydra.utils import instantiate
from torch import nn

from helpers.config import configuration


@cache
def built(model: str, *overrides: str) -> tuple[nn.Module, nn.Module]:
    config = configuration(f"model={model}", *overrides)
    channels = config.data.channels
    torch.manual_seed(0)
    generator = instantiate(config.model.generator)
    discriminator = instantiate(config.model.discriminator)
    return (
        generator(latent_dim=config.latent_dim, channels=channels),
        discriminator(channels=channels),
    )


def build(model: str, *overrides: str) -> tuple[nn.Module, nn.Module]:
    """G and D of conf/model/`model`.yaml, with the same initial weights every time."""
    return deepcopy(built(model, *overrides))


def layers(network: nn.Module) -> Iterator[nn.Module]:
    """Modules without children, in order, without those that only reshape."""
    for module in network.modules():
        if not (list(module.children()) or isinstance(module, nn.Flatten | nn.Unflatten)):
            yield module
