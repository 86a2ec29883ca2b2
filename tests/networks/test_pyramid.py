"""Networks of LAPGAN."""

import pytest
import torch
from helpers.data import images
from torch import nn

from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.losses.penalties import R1, GradientPenalty
from ganmnist.networks import pyramid
from ganmnist.utils.batch import Batch

close = torch.testing.assert_close


def generator() -> pyramid.Generator:
    return pyramid.Generator(7, image_size=8, n_scales=3, width=4).eval()


@pytest.mark.parametrize("n_scales", [2, 3, 4])
def test_untile_inverts_tile(n_scales: int) -> None:
    x = torch.rand(2, 3, 8, 8)
    scales = pyramid.build_pyramid(x, n_scales)
    assert [scale.shape[-1] for scale in scales] == [8, 4, 2, 1][:n_scales]
    for scale in scales:
        close(scale.mean((2, 3)), x.mean((2, 3)))
    tiles = pyramid.tile(scales)
    assert tiles.shape == (2, 3, 8, 12)
    for found, expected in zip(pyramid.untile(tiles, n_scales), scales, strict=True):
        assert torch.equal(found, expected)


def test_each_scale_adds_a_residual_to_the_next_coarser_one() -> None:
    g, z = generator(), torch.randn(5, 7)
    scales = g.coarse_to_fine(z)
    assert [scale.shape for scale in scales] == [(5, 1, n, n) for n in (8, 4, 2)]
    assert torch.equal(g(z), scales[0])
    for found, expected in zip(g.scales(z, pyramid.upsampled(scales)), scales, strict=True):
        close(found, expected)
    for finer in g.finer:
        nn.init.zeros_(finer.layers[-1].weight)
        nn.init.zeros_(finer.layers[-1].bias)
    close(g(z), pyramid.upsample(pyramid.upsample(scales[2])))


def test_each_scale_has_its_own_part_of_the_latent() -> None:
    g, z = generator(), torch.randn(2, 7)
    scales = g.coarse_to_fine(z)
    for k, part in enumerate([slice(0, 3), slice(3, 5), slice(5, 7)]):
        other = z.clone()
        other[:, part] += 1
        same = [torch.equal(a, b) for a, b in zip(scales, g.coarse_to_fine(other), strict=True)]
        assert same == [k > scale for scale in (2, 1, 0)]


def test_each_scale_has_its_own_logit() -> None:
    d = pyramid.Discriminator(image_size=8, n_scales=3, width=4)
    scales = pyramid.build_pyramid(images().x, 3)
    y = pyramid.tile(pyramid.upsampled(scales))
    logits = d(Batch(pyramid.tile(scales), y)).view(3, 8)
    for k, scale in enumerate(scales):
        others = [*scales[:k], -scale, *scales[k + 1 :]]
        changed = d(Batch(pyramid.tile(others), y)).view(3, 8) != logits
        assert changed.all(1).tolist() == changed.any(1).tolist() == [i == k for i in range(3)]


def test_r1_sums_the_squared_gradients_of_each_logit() -> None:
    d = pyramid.Discriminator(image_size=8, width=4)
    real = Batch(*(torch.randn(2, 1, 8, 12) for _ in range(2))).detach(requires_grad=True)
    out = DiscriminatorOutputs(d, real, real)
    rows = [torch.autograd.grad(logit, real.x, retain_graph=True)[0] for logit in d(real)]
    assert len(rows) == 6
    close(R1(2.0).penalty(out), torch.stack(rows).square().sum((1, 2, 3, 4)).mean() / 2)


def test_gradient_penalty_is_refused() -> None:
    d = pyramid.Discriminator(image_size=8, width=4)
    with pytest.raises(ValueError, match="one logit"):
        GradientPenalty().setup(nn.Identity(), d)


@pytest.mark.parametrize("n_scales", [1, 0, 4, 9])
@pytest.mark.parametrize("network", [pyramid.Generator, pyramid.Discriminator])
def test_scales_that_the_image_does_not_have_are_refused(network: type, n_scales: int) -> None:
    with pytest.raises(ValueError, match=rf"n_scales={n_scales}"):
        network(image_size=28, n_scales=n_scales)
