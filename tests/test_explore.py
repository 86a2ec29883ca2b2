"""scripts/explore.py, and what it asks of latents: inversion and directions."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import CHECKOUT
from PIL import Image

from ganmnist.latents import direction, invert

close = torch.testing.assert_close


@pytest.fixture
def explore(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    return importlib.import_module("explore")


def pictures_of(z: torch.Tensor) -> torch.Tensor:
    """Latents (N, 4) as 2x2 pixels."""
    return z.view(-1, 1, 2, 2)


def test_without_a_step_the_nearest_start_is_found() -> None:
    z = torch.randn(5, 3, 4)
    x = pictures_of(z[[4, 0, 2], [0, 1, 2]])
    found = invert(pictures_of, x, z, steps=0)
    close(found, x.flatten(1))


def test_steps_come_nearer_and_change_no_start() -> None:
    z, x = torch.randn(5, 3, 4), torch.randn(3, 1, 2, 2)
    before = z.clone()
    apart = [(invert(pictures_of, x, z, n) - x.flatten(1)).norm(dim=1) for n in (0, 5, 20)]
    assert (apart[1] < apart[0]).all()
    assert (apart[2] < apart[1]).all()
    assert torch.equal(z, before)


def test_a_direction_leads_from_the_mean_of_the_lowest_to_that_of_the_highest() -> None:
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


def test_slant_is_the_columns_a_row(explore: ModuleType) -> None:
    upright, right, left = -torch.ones(3, 1, 28, 28)
    for row in range(28):
        upright[:, row, 14] = 1
        right[:, row, 27 - row] = 1
        left[:, row, row] = 1
    found = explore.slant(torch.stack([upright, right, left]))
    # Each black pixel weighs a millionth of a white one.
    close(found, torch.tensor([0.0, 1.0, -1.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("runs/none", "runs/none"),
        ("RUN --which last --n 15", "--n 15: ten digits make a row"),
        ("RUN --which last --n 0", "--n 0: ten digits make a row"),
        ("RUN --which last --starts 0", "--starts 0 --steps 200: choose 1 and 0 or more"),
        ("RUN --which last --steps -1", "--starts 4 --steps -1: choose 1 and 0 or more"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(
    words: str,
    said: str,
    trained: Path,
    explore: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "argv", ["explore", *words.replace("RUN", str(trained)).split()])
    with pytest.raises(SystemExit) as ended:
        explore.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_run_is_explored(
    trained: Path, explore: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(trained), "--which", "last", "--out", str(tmp_path), "--n", "10", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["explore", *words])
    explore.main()
    figures = json.loads((tmp_path / "explore.json").read_text())
    assert figures.keys() == {"run", "distance_test", "distance_own", "ink", "slant"}
    assert len(figures["ink"]) == len(figures["slant"]) == 9
    cell = 28 * 2 + 2
    assert Image.open(tmp_path / "inversion.png").size == (10 * cell + 2, 2 * cell + 2)
    assert Image.open(tmp_path / "ink.png").size == (9 * cell + 2, 10 * cell + 2)
