"""Batches."""

import pytest
import torch
from helpers.data import images

from ganmnist.utils.batch import Batch, concat, halves


def test_detach_keeps_values_and_drops_the_graph() -> None:
    z = torch.randn(4, 2, requires_grad=True)
    batch = Batch(x=2 * z, z=z)
    detached = batch.detach()
    assert torch.equal(detached.x, batch.x)
    assert torch.equal(detached.latents, z)
    assert detached.y is None
    assert not detached.x.requires_grad
    assert not detached.latents.requires_grad
    assert z.requires_grad


def test_detach_can_make_leaves_that_require_gradients() -> None:
    batch = images().detach(requires_grad=True)
    assert batch.x.is_leaf
    assert batch.x.requires_grad
    assert not batch.condition.requires_grad


def test_concat_drops_fields_of_one_batch_only() -> None:
    a, b = images(3), images(5)
    both = concat(a, b._replace(z=torch.zeros(5, 2)))
    assert torch.equal(both.x, torch.cat([a.x, b.x]))
    assert torch.equal(both.condition, torch.cat([a.condition, b.condition]))
    assert both.z is None


def test_halves() -> None:
    batch = images(6)
    first, second = halves(batch)
    assert torch.equal(torch.cat([first.x, second.x]), batch.x)
    assert torch.equal(second.condition, batch.condition[3:])


@pytest.mark.parametrize(("name", "field"), [("condition", "y"), ("latents", "z")])
def test_missing_field_is_an_error(name: str, field: str) -> None:
    with pytest.raises(ValueError, match=f"Batch.{field}"):
        getattr(Batch(torch.zeros(2, 1, 8, 8)), name)
