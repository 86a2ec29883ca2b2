"""Conditional generators and discriminators."""

from functools import partial

import pytest
import torch
from helpers.data import images
from helpers.networks import d_8x8

from ganmnist.losses.outputs import DiscriminatorOutputs
from ganmnist.networks import conditional, mlp
from ganmnist.utils.batch import Batch

close = torch.testing.assert_close


def test_the_generator_gets_latents_and_one_hot_labels() -> None:
    generator = conditional.Generator(partial(mlp.Generator, image_size=8), 3, latent_dim=2).eval()
    z, y = torch.randn(3, 2), torch.tensor([2, 0, 1])
    rows = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    close(generator(z, y), generator.generator(torch.cat([z, rows], 1)))


def test_missing_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="needs labels"):
        conditional.Generator(mlp.Generator, 3)(torch.randn(1, 100))
    batch = Batch(torch.randn(1, 1, 8, 8))
    for discriminator in (
        conditional.LabelChannel(d_8x8, 10, image_size=8),
        conditional.Projection(d_8x8, 10),
        conditional.ConcatImage(d_8x8),
    ):
        with pytest.raises(ValueError, match="needs y"):
            discriminator(batch)


def test_label_channel_concatenates_the_embedded_label() -> None:
    d, batch = conditional.LabelChannel(d_8x8, 10, image_size=8).eval(), images()
    maps = d.embedding.weight.T[batch.y].view(-1, 1, 8, 8)
    close(d(batch), d.discriminator(Batch(torch.cat([batch.x, maps], 1))))
    assert not torch.allclose(d(batch), d(batch._replace(y=(batch.y + 1) % 10)))


def test_projection_adds_the_inner_product_of_label_and_features() -> None:
    d, batch = conditional.Projection(d_8x8, 10).eval(), images()
    v = d.embedding.weight.T[batch.y]
    inner = d.discriminator
    close(d(batch) - inner(batch), (v * inner.features(batch)).sum(1))


def test_concat_image_concatenates_the_condition() -> None:
    d, batch = conditional.ConcatImage(d_8x8).eval(), images()
    y = torch.rand_like(batch.x)
    close(d(batch._replace(y=y)), d.discriminator(Batch(torch.cat([batch.x, y], 1))))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_joint_forward_equals_separate_passes_without_batch_norm(norm: str) -> None:
    inner = partial(d_8x8, norm=norm)
    for d in (
        conditional.LabelChannel(inner, 10, image_size=8),
        conditional.Projection(inner, 10),
    ):
        assert d.per_sample == (norm == "none")
        if d.per_sample:
            real, fake = images(), images()
            joint = DiscriminatorOutputs(d, real, fake, joint_forward=True)
            separate = DiscriminatorOutputs(d, real, fake)
            close(joint.real_logits, separate.real_logits)
            close(joint.fake_logits, separate.fake_logits)
