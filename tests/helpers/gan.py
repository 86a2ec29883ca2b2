"""A GAN that trains in milliseconds, and what its updates change."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from ganmnist.callbacks.checkpoint import AtomicCheckpointIO
from ganmnist.data import DataModule
from ganmnist.gan import GAN
from ganmnist.losses.adversarial import BCE
from ganmnist.losses.base import NetworkName
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks import dcgan
from ganmnist.networks.latents import Normal
from ganmnist.utils.training_options import TrainingOptions
from helpers.data import RandomImages

NETWORKS = ("generator", "discriminator", "encoder")


def small_gan(family: type[GAN] = GAN, **settings: Any) -> GAN:
    """A DCGAN of two blocks for 8x8 images, with the same initial weights every time.

    `settings` replace arguments of the GAN and of its TrainingOptions. A network may be given as a
    factory or as a module.
    """
    torch.manual_seed(0)
    adam = partial(torch.optim.Adam, lr=1e-2, betas=(0.5, 0.999))
    names = {f.name for f in dataclasses.fields(TrainingOptions)} & settings.keys()
    options = TrainingOptions(**{name: settings.pop(name) for name in names})
    default = {
        "generator": partial(dcgan.Generator, widths=[8], kernels=[4, 4], strides=[1, 2]),
        "discriminator": partial(dcgan.Discriminator, widths=[4], kernels=[4, 4], strides=[2, 1]),
        "objective": BCE(),
        "latent": Normal(4),
        "optimizers": {"d": adam, "g": adam},
    }
    return family(**{**default, **factories(settings)}, options=options)


def factories(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings, with a factory in the place of each network."""

    def factory(network: nn.Module) -> Callable[..., nn.Module]:
        return lambda **_: network

    return {
        name: factory(value) if isinstance(value, nn.Module) and name in NETWORKS else value
        for name, value in settings.items()
    }


def fit(
    gan: GAN,
    batches: int = 3,
    epochs: int = 1,
    chunk: int = 1,
    intervals: Sequence[int] = (),
    ckpt_path: Path | None = None,
    **trainer: Any,
) -> L.Trainer:
    """Trains on the CPU with `batches` batches of 8 random images an epoch, without callbacks."""
    data = DataModule(RandomImages(8 * batches + 3), 8, chunk=chunk, intervals=intervals)
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    default: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "plugins": [AtomicCheckpointIO()],
    }
    lightning = L.Trainer(max_epochs=epochs, **{**default, **quiet, **trainer})
    lightning.fit(gan, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return lightning


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that differ in any bit."""
    assert before.keys() == after.keys()
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def watch(gan: GAN) -> dict[NetworkName, set[str]]:
    """Names of the parameters and buffers that the updates of D and of G change, filled by `fit`.

    The forward passes through D belong to an update. Sampling fakes does not.
    """
    moved: dict[NetworkName, set[str]] = {"d": set(), "g": set()}
    minimize = gan.minimize

    def watched(network: NetworkName, outputs: Sequence[DiscriminatorOutputs]) -> None:
        before = snapshot(gan)
        minimize(network, outputs)
        moved[network] |= changed(before, gan.state_dict())

    gan.minimize = watched
    return moved
