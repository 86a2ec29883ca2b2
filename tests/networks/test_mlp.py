"""Multilayer perceptrons."""

import pytest
import torch
from torch import nn

from ganmnist.networks import mlp
from ganmnist.utils.batch import Batch


def test_the_default_initialization_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(100, 32)
    torch.manual_seed(0)
    network = mlp.Generator()
    assert torch.equal(network.layers[0].weight, linear.weight)
    assert torch.equal(network.layers[0].bias, linear.bias)


def test_maxout_is_the_maximum_of_linear_functions() -> None:
    layer = mlp.Maxout(3, 4, pieces=5)
    x = torch.randn(6, 3)
    w, b = layer.linear.weight.view(4, 5, 3), layer.linear.bias.view(4, 5)
    expected = (torch.einsum("bi,opi->bop", x, w) + b).max(2).values
    torch.testing.assert_close(layer(x), expected)


def test_a_maxout_discriminator_has_no_other_nonlinearity() -> None:
    d = mlp.Discriminator(widths=[7, 5], pieces=3, dropout=0.5, input_dropout=0.2)
    kinds = [type(layer).__name__ for layer in d.layers]
    assert kinds == ["Flatten", "Maxout", "Dropout", "Maxout", "Dropout"]
    with pytest.raises(ValueError, match="pieces=0"):
        mlp.Discriminator(pieces=0)


def test_dropped_pixels_are_black() -> None:
    d = mlp.Discriminator(widths=[], input_dropout=0.25)
    x = Batch(torch.ones(4, 1, 28, 28))
    features = d.features(x)
    torch.testing.assert_close(features.unique(), torch.tensor([0.0, 4 / 3]))  # pixels in [0, 1]
    assert torch.equal(d.eval().features(x), torch.ones(4, 784))


@pytest.mark.parametrize("output", mlp.OUTPUTS)
def test_mean_bias_starts_at_the_mean_image(output: str) -> None:
    g = mlp.Generator(3, widths=[], output=output, mean_bias=True, dropout=0.0)
    x = torch.rand(20, 1, 28, 28) * 1.8 - 0.9
    g.init_from_images(x)
    torch.testing.assert_close(g(torch.zeros(1, 3))[0], x.mean(0))


def test_init_bound_bounds_uniform_weights() -> None:
    g = mlp.Generator(100, widths=[300], init_bound=0.05)
    assert not any(p.any() for name, p in g.named_parameters() if name.endswith("bias"))
    for w in (p for name, p in g.named_parameters() if name.endswith("weight")):
        assert w.abs().max() <= 0.05
        # The variance of a uniform number is bound^2 / 3; five standard errors.
        assert w.var().item() == pytest.approx(0.05**2 / 3, rel=5 * (0.8 / w.numel()) ** 0.5)


def test_batch_norm_is_before_the_nonlinearity() -> None:
    d = mlp.Discriminator(widths=[7, 5], norm="batch", first_norm=False, dropout=0.0)
    kinds = [type(layer).__name__ for layer in d.layers]
    first = ["Linear", "LeakyReLU", "Dropout"]
    assert kinds == ["Flatten", *first, "Linear", "BatchNorm1d", "LeakyReLU", "Dropout"]
    assert not d.per_sample
    with pytest.raises(ValueError, match="norm=layer"):
        mlp.Discriminator(norm="layer")


def test_dropout_is_off_in_evaluation_mode() -> None:
    generator = mlp.Generator().eval()
    z = torch.randn(4, 100)
    assert torch.equal(generator(z), generator(z))
    generator.train()
    assert not torch.equal(generator(z), generator(z))
