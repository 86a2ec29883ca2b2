"""scripts/reproduce.py: what it records is what the run's own files say."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from conftest import CHECKOUT


@pytest.fixture
def reproduce(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with no run and no figure yet."""
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    module = importlib.import_module("reproduce")
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(module, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["reproduce", "bigan"])
    return module


def made(runs: Path, overrides: list[str], status: str = "finished") -> None:
    """What a run of the row `bigan` leaves."""
    folder = runs / "bigan"
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    final = {"raw": {"nn_accuracy": 0.96789, "fid": 3.0}}
    summary = {"status": status, "seconds": 630, "metrics": {"final": final}}
    env = {"cores": 4, "threads": 2, "device": {"name": "x86"}, "packages": {"torch": "2.11.0"}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "env.json").write_text(json.dumps(env))
    (folder / ".hydra/overrides.yaml").write_text(json.dumps(overrides))


def words_of(command: list[str]) -> list[str]:
    """What a command asks of `ganmnist.train`, but for the folder."""
    return [word for word in command[3:] if not word.startswith("hydra.")]


def test_a_row_is_trained_and_recorded(
    reproduce: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def run(command: list[str]) -> SimpleNamespace:
        commands.append(command)
        made(reproduce.RUNS, words_of(command))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(reproduce.subprocess, "run", run)
    reproduce.main()
    reproduce.main()
    settings = reproduce.ROWS["bigan"].settings
    assert [words_of(command) for command in commands] == [
        ["data=mnist", *settings.split(), "task=bigan"]
    ]
    recorded = json.loads((reproduce.DOCS / "reproduction.json").read_text())["bigan"]
    assert recorded["settings"] == settings
    assert (recorded["final"]["nn_accuracy"], recorded["minutes"]) == (0.9679, 10.5)
    table = (reproduce.DOCS / "reproduction.md").read_text()
    assert "| `nn_accuracy` 0.9679 | 0.974 ([1605.09782]" in table
    assert f"`{settings}` |" in table


def test_a_row_that_was_trained_otherwise_says_so(
    reproduce: ModuleType, capsys: pytest.CaptureFixture
) -> None:
    made(reproduce.RUNS, ["family=bigan", "epochs=300", "data=mnist", "task=bigan"])
    reproduce.main()
    assert "bigan was trained otherwise: family=bigan epochs=300" in capsys.readouterr().out
    assert "`family=bigan epochs=300` |" in (reproduce.DOCS / "reproduction.md").read_text()


def test_a_row_that_was_broken_off_goes_on(
    reproduce: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(reproduce.RUNS, [], status="interrupted")
    (reproduce.RUNS / "bigan/checkpoints").mkdir()
    (reproduce.RUNS / "bigan/checkpoints/last.ckpt").touch()
    commands = []

    def run(command: list[str]) -> SimpleNamespace:
        commands.append(words_of(command))
        made(reproduce.RUNS, [])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(reproduce.subprocess, "run", run)
    reproduce.main()
    assert commands == [[f"resume={reproduce.RUNS / 'bigan'}"]]


def test_a_training_that_fails_has_said_why(
    reproduce: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce.subprocess, "run", lambda command: SimpleNamespace(returncode=2))
    with pytest.raises(SystemExit) as ended:
        reproduce.main()
    assert ended.value.code == 2
    assert not (reproduce.DOCS / "reproduction.json").exists()


def test_rows_that_there_are_not_are_refused(
    reproduce: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce", "gpt"])
    with pytest.raises(SystemExit):
        reproduce.main()
    assert "no row gpt; there are gan_parzen, cgan_parzen" in capsys.readouterr().err
