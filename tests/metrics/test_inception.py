"""FID on Inception's features, without its weights."""

from urllib.error import URLError

import pytest
import torch
from helpers.features import reference_set
from torch import Tensor, nn

from ganmnist.metrics import FeatureBatch, inception
from ganmnist.metrics.fid import frechet_distance
from ganmnist.metrics.inception import InceptionFID
from ganmnist.utils.errors import UserError


def test_the_package_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(UserError, match="torch-fidelity"):
        InceptionFID()


def test_the_setting_is_named_if_the_weights_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise URLError("no network in this test")

    monkeypatch.setattr(inception, "FrechetInceptionDistance", fail)
    with pytest.raises(UserError, match=r"inception_fid\.weights.*no network in this test"):
        InceptionFID()


def test_the_network_gets_rgb_bytes_of_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the channel means in the place of Inception's features."""

    class Means(nn.Module):
        num_features = 3

        def forward(self, x: Tensor) -> Tensor:
            assert (x.dtype, x.shape[1:]) == (torch.uint8, (3, 8, 8))
            return x.double().mean((2, 3))

    fid = inception.FrechetInceptionDistance(Means())
    monkeypatch.setattr(inception, "FrechetInceptionDistance", lambda *a, **n: fid)
    a, b = (torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8) for n in (120, 70))
    fake, real = (
        FeatureBatch(x, torch.zeros(len(x), 1), torch.zeros(len(x), 1, 10)) for x in (a, b)
    )
    found = InceptionFID()(fake, reference_set(test=real))
    sides = (x.double().mean((2, 3)).expand(-1, 3) for x in (a, b))
    assert found["inception_fid"] == pytest.approx(frechet_distance(*sides), rel=1e-6)
