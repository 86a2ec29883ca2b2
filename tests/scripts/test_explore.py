"""scripts/explore.py: inversion and directions in latent space."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.paths import CHECKOUT
from PIL import Image

from ganmnist.networks.latents import direction, invert

close = torch.testing.assert_close


@pytest.fixture
def explore(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    return importlib.import_module("explore")


def images_of(z: torch.Tensor) -> torch.Tensor:
    """Latents (N, 4) as 2x2 pixels."""
    return z.view(-1, 1, 2, 2)


def test_inversion_without_steps_returns_the_nearest_start() -> None:
    z = torch.randn(5, 3, 4)
    x = images_of(z[[4, 0, 2], [0, 1, 2]])
    found = invert(images_of, x, z, steps=0)
    close(found, x.flatten(1))


def test_inversion_steps_reduce_the_distance() -> None:
    z, x = torch.randn(5, 3, 4), torch.randn(3, 1, 2, 2)
    before = z.clone()
    distances = [(invert(images_of, x, z, n) - x.flatten(1)).norm(dim=1) for n in (0, 5, 20)]
    assert (distances[1] < distances[0]).all()
    assert (distances[2] < distances[1]).all()
    assert torch.equal(z, before)


def test_direction_is_mean_of_highest_minus_mean_of_lowest() -> None:
    z = torch.randn(40, 3)
    value = z[:, 1] + 5
    order = value.argsort()
    close(direction(z, value, 0.25), z[order[30:]].mean(0) - z[order[:10]].mean(0))
    highest, lowest = value.argmax(), value.argmin()
    close(direction(z, value, 0.001), z[highest] - z[lowest])


def test_ink_is_the_share_of_white(explore: ModuleType) -> None:
    x = -torch.ones(3, 1, 4, 4)
    x[1, :, :2] = 1
    x[2] = 1
    close(explore.ink(x), torch.tensor([0.0, 0.5, 1.0]))


def test_slant_is_in_columns_per_row(explore: ModuleType) -> None:
    upright, right, left = -torch.ones(3, 1, 28, 28)
    for row in range(28):
        upright[:, row, 14] = 1
        right[:, row, 27 - row] = 1
        left[:, row, row] = 1
    found = explore.slant(torch.stack([upright, right, left]))
    # Each black pixel weighs a millionth of a white one.
    close(found, torch.tensor([0.0, 1.0, -1.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("runs/none", "runs/none"),
        ("RUN --which last --n 15", "--n 15"),
        ("RUN --which last --n 0", "--n 0"),
        ("RUN --which last --starts 0", "--starts 0"),
        ("RUN --which last --steps -1", "--steps -1"),
    ],
)
def test_wrong_arguments_are_named(
    words: str,
    named: str,
    trained: Path,
    explore: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["explore", *words.replace("RUN", str(trained)).split()])
    with pytest.raises(SystemExit) as exited:
        explore.main()
    assert exited.value.code == 2
    assert named in capsys.readouterr().err


def test_run_is_explored(
    trained: Path, explore: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(trained), "--which", "last", "--out", str(tmp_path), "--n", "10", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["explore", *words])
    explore.main()
    results = json.loads((tmp_path / "explore.json").read_text())
    assert results.keys() == {"run", "distance_test", "distance_own", "ink", "slant"}
    assert len(results["ink"]) == len(results["slant"]) == 9
    cell = 28 * 2 + 2
    assert Image.open(tmp_path / "inversion.png").size == (10 * cell + 2, 2 * cell + 2)
    assert Image.open(tmp_path / "ink.png").size == (9 * cell + 2, 10 * cell + 2)
