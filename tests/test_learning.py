"""What families learn of a few hundred batches of digits: more than chance, by five errors."""

from pathlib import Path

import pytest
import torch
from conftest import configuration
from hydra.utils import instantiate
from lightning import Trainer
from torch import Tensor

from ganmnist.data import DataModule
from ganmnist.duel import Sample
from ganmnist.gan import GAN
from ganmnist.pixels import to_bytes

SMALL = (
    *("model=mlp", "model.generator.dropout=0.0", "model.discriminator.dropout=0.0"),
    *("model.generator.widths=[128,256]", "model.discriminator.widths=[256,128]"),
    *("objective=bce_logits", "ema=null", "latent_dim=16"),
    *("optimizer.d.betas=[0.0,0.99]", "optimizer.g.betas=[0.0,0.99]"),  # fast from the start
)
CPU = torch.device("cpu")


def learned(epochs: int, *settings: str) -> tuple[GAN, DataModule]:
    """A GAN of small perceptrons after so many epochs of 46 batches."""
    config = configuration("folder=here", "data=digits", "lr=1e-3", *SMALL, *settings)
    torch.manual_seed(0)
    gan, data = instantiate(config.gan), DataModule(instantiate(config.data), config.batch_size)
    data.prepare_data()
    data.setup()
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    Trainer(accelerator="cpu", max_epochs=epochs, **quiet).fit(gan, datamodule=data)
    return gan, data


def above(values: Tensor, chance: float) -> float:
    """By how many standard errors the mean of (N,) values is above `chance`."""
    values = values.double()
    return ((values.mean() - chance) / (values.std() / len(values) ** 0.5)).item()


@pytest.mark.parametrize("family", ["cgan", "projection", "acgan"])
def test_labels_are_obeyed(family: str, data_root: Path) -> None:
    gan, data = learned(15, f"family={family}")
    evaluator = instantiate(configuration("folder=here", "data=digits").metrics)
    evaluator.prepare(data)
    z, y = gan.prior(500, torch.Generator().manual_seed(0))
    seen = evaluator.extractor(to_bytes(gan.sample(z, y)))
    assert above(seen.numbers == y, 1 / 10) > 5


@pytest.mark.parametrize(("family", "epochs"), [("bigan", 15), ("aae", 5), ("aae_labels", 5)])
def test_an_image_is_nearer_to_its_own_reconstruction(
    family: str, epochs: int, data_root: Path
) -> None:
    """Than to that of the next image of its label, whom it shares its digit with."""
    gan, data = learned(epochs, f"family={family}")
    test = data.some("test", 10_000, CPU)
    order = test.y.argsort(stable=True)
    real = Sample(test.x[order], test.y[order])
    made = gan.reconstruct(real)
    own, other = ((real.x - x).square().flatten(1).sum(1) for x in (made, made.roll(1, 0)))
    assert above(other - own, 0.0) > 5


def test_a_hundred_labels_teach_d_the_digits(data_root: Path) -> None:
    gan, data = learned(5, "family=semisupervised", "penalty=feature_matching")
    test = data.some("test", 10_000, CPU)
    gan.eval()
    with torch.no_grad():
        named = gan.discriminator.classify(gan.discriminator.features(Sample(test.x))).argmax(1)
    assert above(named == test.y, 1 / 10) > 5


@pytest.mark.parametrize("family", ["inpainting", "superresolution"])
def test_what_is_made_is_nearer_than_what_was_left(family: str, data_root: Path) -> None:
    gan, data = learned(5, f"family={family}")
    x = data.some("test", 10_000, CPU).x
    left, made = ((x - y).abs().flatten(1).sum(1) for y in (gan.keep(x), gan.made_of(x)))
    assert above(left - made, 0.0) > 5


def test_a_code_is_read_off_generated_images(data_root: Path) -> None:
    gan, _ = learned(5, "family=infogan")
    z = gan.latent(500, "cpu", torch.Generator().manual_seed(0))
    read = gan.categories(Sample(gan.sample(z)))
    assert above(read == gan.latent.read(z)[0], 1 / 10) > 5
