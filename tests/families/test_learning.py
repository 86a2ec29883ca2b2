"""After a few hundred batches, families are better than chance by five standard errors."""

from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.config import configuration
from hydra.utils import instantiate
from lightning import Trainer
from torch import Tensor

from ganmnist.data import DataModule
from ganmnist.gan import GAN
from ganmnist.utils.batch import Batch
from ganmnist.utils.pixels import to_bytes

SMALL = (
    "model=mlp",
    "model.generator.dropout=0.0",
    "model.discriminator.dropout=0.0",
    "model.generator.widths=[128,256]",
    "model.discriminator.widths=[256,128]",
    "objective=bce_logits",
    "ema=null",
    "latent_dim=16",
    "optimizer.d.betas=[0.0,0.99]",
    "optimizer.g.betas=[0.0,0.99]",  # fast from the start
)
CPU = torch.device("cpu")
slow = partial(pytest.param, marks=pytest.mark.slow)


def trained(epochs: int, *settings: str) -> tuple[GAN, DataModule]:
    """A GAN of small perceptrons after `epochs` epochs of 46 batches."""
    config = configuration("folder=here", "data=digits", "lr=1e-3", *SMALL, *settings)
    torch.manual_seed(0)
    gan, data = instantiate(config.family), DataModule(instantiate(config.data), config.batch_size)
    data.prepare_data()
    data.setup()
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    Trainer(accelerator="cpu", max_epochs=epochs, **quiet).fit(gan, datamodule=data)
    return gan, data


def standard_errors(values: Tensor, chance: float) -> float:
    """Difference of the mean of (N,) values and `chance`, in standard errors."""
    values = values.double()
    return ((values.mean() - chance) / (values.std() / len(values) ** 0.5)).item()


@pytest.mark.parametrize("family", ["acgan", slow("cgan"), slow("projection")])
def test_images_have_their_label(family: str, data_root: Path) -> None:
    gan, data = trained(15, f"family={family}")
    evaluator = instantiate(configuration("folder=here", "data=digits").metrics)
    evaluator.prepare(data)
    z, y = gan.sampler.prior(500, torch.Generator().manual_seed(0))
    features = evaluator.extractor(to_bytes(gan.sample(z, y)))
    assert standard_errors(features.predicted_labels == y, 1 / 10) > 5


@pytest.mark.parametrize(
    ("family", "epochs"), [("aae", 5), slow("aae_labels", 5), slow("bigan", 15)]
)
def test_an_image_is_closer_to_its_own_reconstruction(
    family: str, epochs: int, data_root: Path
) -> None:
    """Than to the reconstruction of another image of the same class."""
    gan, data = trained(epochs, f"family={family}")
    test = data.fixed_batch("test", 10_000, CPU)
    order = test.y.argsort(stable=True)
    real = Batch(test.x[order], test.y[order])
    reconstructed = gan.reconstruct(real)
    own, other = (
        (real.x - x).square().flatten(1).sum(1) for x in (reconstructed, reconstructed.roll(1, 0))
    )
    assert standard_errors(other - own, 0.0) > 5


def test_d_learns_to_classify_from_100_labels(data_root: Path) -> None:
    gan, data = trained(5, "family=semisupervised", "penalty=feature_matching")
    test = data.fixed_batch("test", 10_000, CPU)
    gan.eval()
    with torch.no_grad():
        predicted = gan.discriminator.classify(gan.discriminator.features(Batch(test.x))).argmax(1)
    assert standard_errors(predicted == test.y, 1 / 10) > 5


@pytest.mark.parametrize("family", ["inpainting", slow("superresolution")])
def test_translations_are_closer_to_the_image_than_conditions(family: str, data_root: Path) -> None:
    gan, data = trained(5, f"family={family}")
    x = data.fixed_batch("test", 10_000, CPU).x
    of_input, of_output = (
        (x - y).abs().flatten(1).sum(1) for y in (gan.degrade(x), gan.translate(x))
    )
    assert standard_errors(of_input - of_output, 0.0) > 5


def test_q_predicts_the_category_of_generated_images(data_root: Path) -> None:
    gan, _ = trained(5, "family=infogan")
    z = gan.latent(500, "cpu", torch.Generator().manual_seed(0))
    predicted = gan.categories(Batch(gan.sample(z)))
    assert standard_errors(predicted == gan.latent.split(z)[0], 1 / 10) > 5
