"""The console script `ganmnist`: its list of commands, and what a command gets."""

import json
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from helpers.launch import BRIEF
from helpers.paths import CHECKOUT

import ganmnist.__main__ as script
from ganmnist.commands import COMMANDS, Command

SPY = """
import json
import sys
from lightning.pytorch.callbacks import Callback


class Spy(Callback):
    def on_train_start(self, trainer, gan):
        with open(f"rank{trainer.global_rank}.json", "w") as file:
            json.dump(sys.argv[1:], file)
"""


def start(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `python -m ganmnist` in a folder."""
    command = [sys.executable, "-m", "ganmnist", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ganmnist", *words])
    script.main()
    lines = capsys.readouterr().out.splitlines()
    for command in COMMANDS:
        assert [line for line in lines if command.name in line and command.help in line]


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["ganmnist", "--version"])
    script.main()
    assert capsys.readouterr().out.split() == ["ganmnist", version("ganmnist")]


@pytest.mark.parametrize("word", ["trian", "objective=wgan", "--color"])
def test_unknown_command_ends_with_2(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ganmnist", word])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert word in line
    assert all(command.name in line for command in COMMANDS)
    assert ("Did you mean 'train'?" in line) == (word == "trian")


@pytest.mark.parametrize("words", [[], ["--version"], ["trian"]])
def test_the_list_of_commands_imports_neither_torch_nor_hydra(words: list[str]) -> None:
    code = f"""
import sys
from ganmnist.__main__ import main
sys.argv = ["ganmnist", *{words}]
try:
    main()
except SystemExit:
    pass
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "ganmnist.commands" in loaded
    assert not loaded & {"torch", "lightning", "hydra", "omegaconf", "yaml"}


def test_every_command_has_a_main_function() -> None:
    for command in COMMANDS:
        assert callable(import_module(command.module).main), command.name


def test_pyproject_installs_the_script() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["ganmnist"].partition(":")
    assert getattr(import_module(module), function) is script.main


def test_command_gets_its_arguments_and_sys_argv_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "note_words.py").write_text("given = []\nmain = given.append\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(script, "COMMANDS", (Command("note", "note_words", "Notes words."),))
    monkeypatch.setattr(sys, "argv", ["ganmnist", "note", "a=1", "-m"])
    script.main()
    assert import_module("note_words").given == [["a=1", "-m"]]
    assert sys.argv == ["ganmnist", "note", "a=1", "-m"]


@pytest.mark.parametrize("command", ["train", "evaluate", "generate"])
def test_command_refuses_unknown_settings(command: str, tmp_path: Path) -> None:
    done = start(command, "epoch_s=3", folder=tmp_path)
    assert done.returncode == 2
    assert "epoch_s" in done.stderr
    assert not [*tmp_path.iterdir()]


def test_both_processes_of_a_run_get_the_command(tmp_path: Path, data_root: Path) -> None:
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "my_conf/callbacks").mkdir(parents=True)
    (tmp_path / "my_conf/callbacks/spy.yaml").write_text("spy: {_target_: spy.Spy}\n")
    own = ("--config-dir", "my_conf", "callbacks=spy", "metrics=none", "logger=none")
    two = ("trainer=ddp", "trainer.gpus=0", "trainer.devices=2")
    given = [word for word in BRIEF if not word.startswith(("trainer=", "metrics."))]
    words = ["train", *own, *two, *given]
    done = start(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == words
    assert second[: len(words)] == words
