"""InfoGAN: the structured latent, Q's loss, and what the category predicts."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.data import images
from helpers.gan import changed, fit, small_gan, snapshot, watch
from helpers.networks import d_8x8, trained_names
from torch import nn

from ganmnist.families.infogan import InfoGAN, MutualInformationLoss, StructuredLatent
from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.utils.batch import Batch

close = torch.testing.assert_close


def infogan() -> InfoGAN:
    """Two categories, one continuous code and one noise variable."""
    term = MutualInformationLoss(StructuredLatent(4, 2, 1), hidden=5)
    return small_gan(InfoGAN, latent=term.latent, auxiliary={"information": term})


def test_latents_are_a_category_continuous_codes_and_noise() -> None:
    prior = StructuredLatent(dim=20, n_categories=4, n_continuous=3)
    z = prior(50_000, generator=torch.Generator().manual_seed(0))
    assert z.shape == (50_000, 20)
    assert set(z[:, :4].unique().tolist()) == {0.0, 1.0}
    assert (z[:, :4].sum(1) == 1).all()
    category, continuous = prior.split(z)
    close(F.one_hot(category, 4).float(), z[:, :4])
    close(continuous, z[:, 4:7])
    # To five standard errors: frequencies of 1/4, then mean 0 and variance 1/3.
    root = 50_000**0.5
    assert ((z[:, :4].mean(0) - 1 / 4).abs() < 5 * (3 / 16) ** 0.5 / root).all()
    others = z[:, 4:]
    assert others.abs().max() <= 1
    assert (others.mean(0).abs() < 5 * (1 / 3) ** 0.5 / root).all()
    assert ((others.square().mean(0) - 1 / 3).abs() < 5 * (4 / 45) ** 0.5 / root).all()


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [((11,), "latent_dim=11"), ((20, 1), "n_categories=1"), ((20, 2, -1), "n_continuous=-1")],
)
def test_settings_out_of_range_are_refused(arguments: tuple[int, ...], setting: str) -> None:
    with pytest.raises(ValueError, match=setting):
        StructuredLatent(*arguments)


def test_a_constant_q_has_the_entropy_of_the_code_as_loss() -> None:
    """ln 3 for the category, and E|c|^2 / 2 for two continuous codes c."""
    term = MutualInformationLoss(
        StructuredLatent(8, 3, 2), weight=2.0, continuous_weight=0.1, hidden=5
    )
    term.setup(nn.Identity(), d_8x8())
    nn.init.zeros_(term.q[-1].weight)
    nn.init.zeros_(term.q[-1].bias)
    z = term.latent(8)
    out = DiscriminatorOutputs(d_8x8(), images(), images()._replace(z=z))
    continuous = term.latent.split(z)[1].square().sum(1).mean().item() / 2
    expected = 2 * (math.log(3) + 0.1 * continuous)
    close(term.d_loss(out).item(), expected)
    close(term.g_loss(out).item(), expected)


def test_q_is_trained_with_d() -> None:
    gan = infogan()
    moved = watch(gan)
    fit(gan, batches=2)
    trained = trained_names(gan)
    assert moved["d"] & trained == trained_names(gan, "discriminator", "loss_terms.information")
    assert moved["g"] & trained == trained_names(gan, "generator")


def test_each_grid_changes_one_part_of_the_code() -> None:
    gan = infogan()
    latents = []
    gan.sample = lambda z: latents.append(z) or torch.zeros(len(z), 1, 8, 8)
    grids = gan.extra_images(images)
    assert {name: (*grid.shape,) for name, grid in grids.items()} == {
        "categories": (10, 2, 1, 8, 8),
        "continuous_1": (2, 10, 1, 8, 8),
    }
    by_category, by_code = latents[0].view(10, 2, 4), latents[1].view(2, 10, 4)
    close(by_category[:, :, :2], torch.eye(2).expand(10, 2, 2))
    close(by_category[:, 0, 2:], by_category[:, 1, 2:])
    close(by_code[..., 2], torch.linspace(-2, 2, 10).expand(2, 10))
    close(by_code[..., 3], by_code[:1, :1, 3].expand(2, 10))


def test_code_error_uses_the_most_frequent_class_of_each_category() -> None:
    gan = infogan()
    predicted = {5: [0, 0, 0, 1, 1], 4: [0, 1, 1, 0]}
    gan.categories = lambda real: torch.tensor(predicted[len(real.y)])
    train, test = (Batch(torch.empty(0), torch.tensor(y)) for y in ([7, 7, 2, 3, 3], [7, 3, 7, 2]))
    # Category 0 is mostly a 7, category 1 a 3. They predict 7 3 3 7 instead of 7 3 7 2.
    splits = {"train": [train], "test": [test]}
    assert gan.extra_metrics(splits.get) == {"code_error": 0.5}


def test_categories_use_the_batch_statistics_and_keep_the_running_ones() -> None:
    gan, real = infogan(), images()
    gan.eval()
    with torch.no_grad():
        before = gan.categories(real)
        for name, buffer in gan.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand_like(buffer) + 1)
        state = snapshot(gan)
        assert torch.equal(gan.categories(real), before)
        assert not changed(state, gan.state_dict())
        assert not any(module.training for module in gan.modules())
        gan.train()
        q = gan.loss_terms["information"]
        expected = q.predict_code(gan.discriminator.features(real))[0].argmax(1)
    assert torch.equal(before, expected)


def test_q_has_batch_norm_before_its_nonlinearity() -> None:
    q = infogan().loss_terms["information"].q
    kinds = [type(layer).__name__ for layer in q]
    assert kinds == ["Linear", "BatchNorm1d", "LeakyReLU", "Linear"]
