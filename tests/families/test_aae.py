"""Adversarial autoencoders: reconstruction, grids, and penalties on latents."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from helpers.config import settings_of
from helpers.data import RandomImages
from helpers.families import encoder, small_aae, small_pix2pix
from helpers.launch import BRIEF
from helpers.networks import d_8x8
from torch import Tensor

from ganmnist.data import DataModule
from ganmnist.families.aae import Reconstruction
from ganmnist.gan import GAN
from ganmnist.losses.base import LossTerm
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks import encoders
from ganmnist.networks.latents import Normal
from ganmnist.train import train
from ganmnist.utils.batch import Batch

close = torch.testing.assert_close


def test_reconstruction_loss_of_black_for_white_is_half_the_number_of_pixels() -> None:
    white, black = Batch(torch.ones(2, 1, 8, 8)), Batch(-torch.ones(2, 1, 8, 8))
    out = DiscriminatorOutputs(d_8x8(), white, black)
    assert Reconstruction(3.0).g_loss(out).item() == 3 * 64 / 2


def test_an_encoder_that_inverts_g_reconstructs_the_images() -> None:
    gan = small_aae()
    z = torch.randn(30, 4)
    real = Batch(gan.sample(z))
    gan.encode = lambda batch: z[: len(batch.x)]
    close(gan.reconstruct(real), real.x)
    grid = gan.extra_images(lambda n: real)["reconstructions"]
    assert grid.shape == (6, 10, 1, 8, 8)
    close(grid[0::2], grid[1::2])
    close(grid[0], real.x[:10])


def test_the_manifold_is_a_grid_of_quantiles_of_the_prior() -> None:
    gan = small_aae(
        encoder=partial(encoder, latent_dim=2),
        discriminator=partial(encoders.LatentDiscriminator, latent_dim=2, widths=[8]),
        latent=Normal(2),
    )
    real = Batch(torch.rand(40, 1, 8, 8) * 2 - 1)
    latents = []
    sample = gan.sample
    gan.sample = lambda z, y=None: latents.append(z) or sample(z, y)
    grids = gan.extra_images(lambda n: real)
    assert {name: grid.shape[:2] for name, grid in grids.items()} == {
        "reconstructions": (8, 10),
        "manifold": (10, 10),
        "map": (10, 10),
    }
    points = latents[-1].view(10, 10, 2)
    # The first number rises to the right, the second one upwards, in equal quantiles of N(0, 1).
    quantiles, steps = torch.special.ndtr(points), (torch.arange(10) + 0.5) / 10
    close(quantiles[..., 0], steps.expand(10, 10))
    close(quantiles[..., 1], 1 - steps[:, None].expand(10, 10))
    nearest = (points[3, 7] - gan.encode(real)).norm(dim=1).argmin()
    close(grids["map"][3, 7], real.x[nearest])


@pytest.mark.parametrize("make", [small_aae, small_pix2pix])
def test_with_second_batch_fakes_belong_to_the_images_of_the_generator_step(
    make: Callable[..., GAN],
) -> None:
    """A reconstruction is compared with its own image."""
    seen = []

    class Recorder(LossTerm):
        def g_loss(self, out: DiscriminatorOutputs) -> Tensor:
            seen.append(out)
            return 0 * out.fake.x.sum()

    gan = make(second_batch=True, penalties={"recorder": Recorder()})
    data = DataModule(RandomImages(20), 4, second_batch=True)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(gan, datamodule=data)
    assert len(seen) == 5
    for out in seen:
        assert torch.equal(out.fake.y, out.real.y)
        assert len(out.real.x) == len(out.fake.x) == 4


@pytest.mark.parametrize("penalty", ["r1", "r2", "gradient_penalty", "dragan"])
def test_penalties_apply_to_latents(penalty: str, data_root: Path, tmp_path: Path) -> None:
    train(settings_of(f"folder={tmp_path}", *BRIEF, "family=aae", f"penalty={penalty}"))
    scalars = json.loads((tmp_path / "summary.json").read_text())["scalars"]
    assert scalars[f"epoch/d/{penalty}"] > 0
