"""Encoders, and discriminators of latents."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.data import images
from helpers.families import encoder, joint_discriminator

from ganmnist.networks import encoders, mlp

close = torch.testing.assert_close


def test_the_joint_discriminator_depends_on_image_and_latent() -> None:
    d = joint_discriminator().eval()
    batch = images()._replace(z=torch.randn(8, 4))
    for other in (batch._replace(z=-batch.z), batch._replace(x=-batch.x)):
        assert not torch.allclose(d(batch), d(other))


def test_a_bounded_encoder_is_a_scaled_sigmoid() -> None:
    bounded, batch = encoder(bounded=True).eval(), images()
    close(bounded(batch), (bounded.last(bounded.features(batch)) / 2).tanh())


def test_the_latent_is_an_input_of_the_second_hidden_layer() -> None:
    body = partial(mlp.Discriminator, image_size=8, widths=[6], slope=0.2, dropout=0.0)
    d = encoders.JointDiscriminator(body, 4, hidden=5, norm="batch")
    assert not d.per_sample
    batch = images()._replace(z=torch.randn(8, 4))
    first = d.body.layers[1]
    h = F.leaky_relu(F.linear(batch.x.flatten(1), first.weight, first.bias), 0.2)
    h = F.linear(torch.cat([h, batch.z], 1), d.join[0].weight, d.join[0].bias)
    h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()
    close(d(batch), F.linear(F.leaky_relu(h, 0.2), d.last.weight, d.last.bias).flatten())


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"family\.discriminator\.norm=layer"):
        joint_discriminator(norm="layer")
