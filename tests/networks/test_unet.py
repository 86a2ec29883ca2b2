"""The U-Net generator."""

import pytest
import torch

from ganmnist.networks import unet


@pytest.mark.parametrize("channels", [1, 3])
def test_images_depend_on_condition_and_latent(channels: int) -> None:
    g = unet.Generator(4, channels, image_size=24, widths=[4, 6, 8]).eval()
    z, y = torch.randn(2, 4), torch.rand(2, channels, 24, 24) * 2 - 1
    x = g(z, y)
    assert x.shape == y.shape
    assert x.abs().max() <= 1
    assert not torch.allclose(g(-z, y), x)
    assert not torch.allclose(g(z, -y), x)


def test_an_image_size_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="28 pixels"):
        unet.Generator(widths=[4, 6, 8])
