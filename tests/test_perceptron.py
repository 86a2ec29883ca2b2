"""The layers of perceptrons are PyTorch's, and may be differentiated as often."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ganmnist.networks import perceptron
from ganmnist.networks.perceptron import LARGE, Dropout, Linear, affine, linear

close = torch.testing.assert_close


def slopes(function, *inputs, order=1):
    """The slopes of a sum of squares, or of the slopes' sum of squares."""
    value = function(*inputs).square().sum()
    for _ in range(order - 1):
        found = torch.autograd.grad(value, inputs, create_graph=True)
        value = sum(slope.square().sum() for slope in found)
    return torch.autograd.grad(value, inputs)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_product_and_its_slopes_of_any_order(order):
    torch.manual_seed(0)
    inputs = [torch.randn(*shape).div_(8).requires_grad_() for shape in ((5, 7), (9, 7), (9,))]
    close(affine(*inputs), F.linear(*inputs))
    close(slopes(affine, *inputs, order=order), slopes(F.linear, *inputs, order=order))


def test_a_slope_that_is_spread_from_one_number():
    x, w = torch.randn(3, 4), torch.randn(2, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(affine(x, w).sum(), w)
    close(slope, x.sum(0).expand(2, 4))


@pytest.mark.parametrize("precision", [torch.float32, torch.float64, torch.bfloat16])
def test_large_and_small_layers_are_the_same_function(precision, monkeypatch):
    asked = []
    monkeypatch.setattr(perceptron, "affine", lambda *args: asked.append(1) or affine(*args))
    for n_in, n_out in ((256, LARGE // 256), (8, 4)):
        ours, theirs = Linear(n_in, n_out).to(precision), nn.Linear(n_in, n_out).to(precision)
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(6, n_in, dtype=precision)
        close(ours(x), theirs(x))
        close(linear(x, ours.weight), F.linear(x, ours.weight))
    assert len(asked) == (2 if precision == torch.float32 else 0)


def test_what_takes_no_slope_gets_none():
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4)
    y = affine(x, w)
    y.sum().backward()
    assert w.grad is None
    close(x.grad, w.sum(0).expand(3, 4))
    with torch.no_grad():
        assert not affine(x, w).requires_grad


def test_autocast_has_its_way():
    layer = Linear(256, LARGE // 256)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 256)).dtype == torch.bfloat16


@pytest.mark.parametrize("p", [0.0, 0.25, 0.3, 0.5, 1.0])
def test_dropout_keeps_its_share_and_the_mean(p):
    torch.manual_seed(0)
    n = 1_000_001
    x = torch.ones(n, requires_grad=True)
    y = Dropout(p)(x)
    rounded = round(p * 2**16) / 2**16
    kept = 0.0 if p == 1 else torch.tensor(1 / (1 - rounded)).item()
    assert set(y.detach().unique().tolist()) <= {0.0, kept}
    # Five standard deviations of a share of n draws.
    assert abs((y == 0).double().mean().item() - p) <= 5 * (p * (1 - p) / n) ** 0.5
    y.sum().backward()
    close(x.grad, y.detach())


def test_dropout_draws_anew_and_by_the_seed():
    torch.manual_seed(3)
    layer, x = Dropout(0.5), torch.ones(100, 100)
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    # Neighbours are drawn apart: a quarter of the pairs are kept, to five standard deviations.
    pairs = (first[:, 0::2] * first[:, 1::2] > 0).double().mean().item()
    assert abs(pairs - 0.25) <= 5 * (0.25 * 0.75 / 5000) ** 0.5


def test_dropout_evaluates_to_its_input():
    x = torch.randn(3, 5)
    assert torch.equal(Dropout(0.3).eval()(x), x)
    assert Dropout(0.3)(x.bfloat16()).dtype == torch.bfloat16
