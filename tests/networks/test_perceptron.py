"""Fast linear and dropout layers, compared with PyTorch's."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganmnist.networks import perceptron
from ganmnist.networks.perceptron import MIN_WEIGHTS, Dropout, Linear, affine, linear

close = torch.testing.assert_close


def gradients(
    function: Callable[..., Tensor], *inputs: Tensor, order: int = 1
) -> tuple[Tensor, ...]:
    """Gradients of the sum of squares of the output, or of the gradients of the order before."""
    value = function(*inputs).square().sum()
    for _ in range(order - 1):
        grads = torch.autograd.grad(value, inputs, create_graph=True)
        value = sum((grad.square().sum() for grad in grads), torch.zeros(()))
    return torch.autograd.grad(value, inputs)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_gradients_of_any_order_equal_those_of_pytorch(order: int) -> None:
    inputs = [torch.randn(*shape).div_(8).requires_grad_() for shape in ((5, 7), (9, 7), (9,))]
    close(affine(*inputs), F.linear(*inputs))
    close(gradients(affine, *inputs, order=order), gradients(F.linear, *inputs, order=order))


def test_an_expanded_gradient() -> None:
    x, w = torch.randn(3, 4), torch.randn(2, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(affine(x, w).sum(), w)
    close(grad, x.sum(0).expand(2, 4))


@pytest.mark.parametrize("precision", [torch.float32, torch.float64, torch.bfloat16])
def test_large_and_small_layers_equal_those_of_pytorch(
    precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(perceptron, "affine", lambda *args: calls.append(1) or affine(*args))
    for n_in, n_out in ((256, MIN_WEIGHTS // 256), (8, 4)):
        ours, theirs = Linear(n_in, n_out).to(precision), nn.Linear(n_in, n_out).to(precision)
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(6, n_in, dtype=precision)
        close(ours(x), theirs(x))
        close(linear(x, ours.weight), F.linear(x, ours.weight))
    assert len(calls) == (2 if precision == torch.float32 else 0)


def test_tensors_that_require_no_gradient_get_none() -> None:
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4)
    y = affine(x, w)
    y.sum().backward()
    assert w.grad is None
    close(x.grad, w.sum(0).expand(3, 4))
    with torch.no_grad():
        assert not affine(x, w).requires_grad


def test_autocast_applies() -> None:
    layer = Linear(256, MIN_WEIGHTS // 256)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 256)).dtype == torch.bfloat16


@pytest.mark.parametrize("p", [0.0, 0.25, 0.3, 0.5, 1.0])
def test_dropout_drops_a_fraction_p_and_keeps_the_mean(p: float) -> None:
    n = 1_000_001
    x = torch.ones(n, requires_grad=True)
    y = Dropout(p)(x)
    rounded = round(p * 2**16) / 2**16
    kept = 0.0 if p == 1 else torch.tensor(1 / (1 - rounded)).item()
    assert set(y.detach().unique().tolist()) <= {0.0, kept}
    # Five standard errors of a fraction of n samples.
    assert abs((y == 0).double().mean().item() - p) <= 5 * (p * (1 - p) / n) ** 0.5
    y.sum().backward()
    close(x.grad, y.detach())


def test_dropout_masks_are_independent_and_a_function_of_the_seed() -> None:
    torch.manual_seed(3)
    layer, x = Dropout(0.5), torch.ones(100, 100)
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    # Neighbors are independent: a quarter of the pairs are kept, to five standard errors.
    pairs = (first[:, 0::2] * first[:, 1::2] > 0).double().mean().item()
    assert abs(pairs - 0.25) <= 5 * (0.25 * 0.75 / 5000) ** 0.5


def test_dropout_is_the_identity_in_evaluation_mode() -> None:
    x = torch.randn(3, 5)
    assert torch.equal(Dropout(0.3).eval()(x), x)
    assert Dropout(0.3)(x.bfloat16()).dtype == torch.bfloat16
