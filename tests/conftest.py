"""What tests share: data on disk, random images, and a GAN that trains in milliseconds."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from launch import BRIEF
from omegaconf import DictConfig
from torch import Tensor, nn

from ganmnist import cli, resume
from ganmnist.callbacks.checkpoint import WholeFiles
from ganmnist.config import resolve_norm
from ganmnist.data import Auto, DataModule, DataSet, Digits, Images
from ganmnist.duel import Duel, Player, Sample
from ganmnist.gan import GAN
from ganmnist.latents import Normal
from ganmnist.networks import dcgan
from ganmnist.objectives import BCE
from ganmnist.paths import conf_dir
from ganmnist.train import train

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees another's random numbers, what `data=auto` came to in it or what it resumed."""
    torch.manual_seed(0)
    for name in (Auto.decision, resume.ALREADY):
        monkeypatch.setenv(name, "")  # noted even where unset, and so undone afterwards
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder that has the real MNIST."""
    asked = os.environ.get("GANMNIST_DATA")
    for root in (asked and Path(asked), CHECKOUT / "data"):
        if root and (root / "MNIST/raw/train-images-idx3-ubyte").is_file():
            return root
    pytest.skip("needs MNIST's files: set GANMNIST_DATA to the folder that has them")


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without MNIST in which the digits are 3,000 training images instead of 60,000."""
    root = tmp_path_factory.mktemp("data")
    few = Digits(root, copies=2)
    few.prepare()
    few.cache.rename(Digits(root).cache)
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Path:
    """The folder of a finished run: an MLP after two batches of digits."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANMNIST_DATA", str(digits_root))
        train(configuration(f"folder={folder}", *BRIEF, "model=mlp"))
    return folder


@pytest.fixture
def data_root(digits_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `digits_root` the GANMNIST_DATA of the test."""
    monkeypatch.setenv("GANMNIST_DATA", str(digits_root))
    return digits_root


def configuration(*overrides: str) -> DictConfig:
    """What the command line would compose."""
    cli.setup()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", list(overrides))
    resolve_norm(config)
    return config


class RandomImages(DataSet):
    """`n` images of uniform noise, as many of each label, all a function of the seed."""

    name = "random images"

    def __init__(self, n: int = 27, size: int = 8, channels: int = 1, seed: int = 0) -> None:
        super().__init__(".", channels)
        self.n = n
        self.size = size
        self.seed = seed

    def prepare(self) -> None: ...

    def read(self) -> tuple[Images, Images]:
        rng = torch.Generator().manual_seed(self.seed)
        shape = (1, self.size, self.size)
        train, test = (
            Images(
                torch.randint(256, (n, *shape), generator=rng, dtype=torch.uint8),
                torch.randperm(n, generator=rng) % 10,
            )
            for n in (self.n, 16)
        )
        return train, test


def small_gan(family: type[GAN] = GAN, **parts: Any) -> GAN:
    """A DCGAN of two blocks a side for 8x8 images, the same bits every time.

    `parts` takes the place of any argument of the GAN.
    """
    torch.manual_seed(0)
    adam = partial(torch.optim.Adam, lr=1e-2, betas=(0.5, 0.999))
    default = {
        "generator": dcgan.Generator(4, widths=[8], kernels=[4, 4], strides=[1, 2]),
        "discriminator": dcgan.Discriminator(widths=[4], kernels=[4, 4], strides=[2, 1]),
        "objective": BCE(),
        "latent": Normal(4),
        "d_optimizer": adam,
        "g_optimizer": adam,
    }
    return family(**{**default, **parts})


def fit(
    gan: GAN,
    batches: int = 3,
    epochs: int = 1,
    chunk: int = 1,
    intervals: Sequence[int] = (),
    ckpt_path: Path | None = None,
    **trainer: Any,
) -> L.Trainer:
    """Trains on the CPU, `batches` of 8 random images an epoch, with nobody watching."""
    data = DataModule(RandomImages(8 * batches + 3), 8, chunk=chunk, intervals=intervals)
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    how: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "plugins": [WholeFiles()]}
    lightning = L.Trainer(max_epochs=epochs, **{**how, **quiet, **trainer})
    lightning.fit(gan, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return lightning


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """What is not the same in every bit."""
    assert before.keys() == after.keys()
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def watch(gan: GAN) -> dict[Player, set[str]]:
    """Notes which parameters and buffers each player's updates have changed, filled by `fit`.

    The passes through D that an update asks for are part of it; drawing the samples is not.
    """
    moved: dict[Player, set[str]] = {"d": set(), "g": set()}
    update = gan.update

    def watched(player: Player, duels: Sequence[Duel]) -> None:
        before = snapshot(gan)
        update(player, duels)
        moved[player] |= changed(before, gan.state_dict())

    gan.update = watched
    return moved


def images(n: int = 8) -> Sample:
    """A batch of noise in [-1, 1], 8x8, with labels."""
    return Sample(torch.rand(n, 1, 8, 8) * 2 - 1, torch.randint(10, (n,)))
