"""Tab completion: the candidates, and their use in bash and zsh."""

import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ganmnist.commands import COMMANDS, completion
from ganmnist.commands.completion import candidates
from ganmnist.runs.folders import conf_dir
from ganmnist.runs.schema import SETTINGS

GROUPS = ("model", "objective", "family", "data", "experiment", "trainer", "stabilizer")


def offered(line: str) -> set[str]:
    return {word.strip() for word in candidates(line)}


def test_commands() -> None:
    assert offered("ganmnist ") == {command.name for command in COMMANDS}
    assert candidates("ganmnist tr") == ["train "]
    assert offered("ganmnist completion ") == {"bash", "zsh"}


@pytest.mark.parametrize("group", GROUPS)
def test_choices_are_the_files_of_a_group(group: str) -> None:
    files = {path.stem for path in (conf_dir() / group).glob("*.yaml")}
    choices = {stem for stem in files if not stem.startswith("_")}
    assert offered(f"ganmnist train {group}=") == {f"{group}={choice}" for choice in choices}


def test_choices_begin_with_the_typed_text() -> None:
    assert offered("ganmnist train objective=wg") == {"objective=wgan", "objective=wgan_gp"}
    assert offered("ganmnist train epochs=1 model=ml") == {"model=mlp"}
    assert offered("ganmnist train -m objective=hinge,wgan_") == {"objective=hinge,wgan_gp"}
    assert offered("ganmnist train +objective=wgan_") == {"+objective=wgan_gp"}


@pytest.mark.parametrize("command", list(SETTINGS))
def test_all_settings_of_a_command_are_offered(command: str) -> None:
    names = {word.rstrip("=.") for word in offered(f"ganmnist {command} ")}
    assert names >= SETTINGS[command].keys()


def test_groups_are_offered_as_settings() -> None:
    assert {f"{group}=" for group in GROUPS} <= offered("ganmnist train ")
    assert candidates("ganmnist train obj") == ["objective="]
    assert offered("ganmnist evaluate m") == {"metrics="}


def test_settings_inside_a_group_are_those_of_its_choice() -> None:
    assert candidates("ganmnist train trainer.g") == ["trainer.gpus="]
    assert candidates("ganmnist train model.generator.drop") == []
    inside = "model.generator.dropout="
    assert candidates("ganmnist train model=mlp model.generator.drop") == [inside]
    assert candidates("ganmnist train experiment=report_mlp model.generator.drop") == [inside]
    assert candidates("ganmnist train model=plane model.generator.drop") == [inside]  # by defaults


def test_own_files_are_offered_but_not_those_with_an_underscore(tmp_path: Path) -> None:
    (tmp_path / "objective").mkdir()
    for name in ("mine", "_shared"):
        (tmp_path / f"objective/{name}.yaml").write_text("_target_: mine.Mine\n")
    for option in (f"--config-dir {tmp_path}", f"--config-dir={tmp_path}", f"-cd {tmp_path}"):
        assert offered(f"ganmnist train {option} objective=mi") == {
            "objective=mine",
            "objective=minimax",
        }
        assert offered(f"ganmnist train {option} objective=_") == set()


@pytest.mark.parametrize("line", ["ganmnist nothing ", "ganmnist train lr=", "ganmnist train x.y."])
def test_unknown_words_have_no_candidates(line: str) -> None:
    assert candidates(line) == []


def test_candidates_import_neither_torch_nor_hydra() -> None:
    code = (
        "import sys; from ganmnist.commands.completion import main; "
        "main(['candidates', 'ganmnist train objective=wg']); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *words, loaded = done.stdout.splitlines()
    assert len(words) == 2
    assert not set(loaded.split()) & {"torch", "lightning", "hydra", "omegaconf"}


@pytest.mark.parametrize("words", [[], ["fish"], ["bash", "zsh"]])
def test_other_shells_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        completion.main(words)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "bash" in error
    assert "zsh" in error


# A program that completes as ganmnist does and prints the words that it is started with.
PROGRAM = """#!/bin/sh
if [ "$1" = completion ]; then exec "{python}" -m ganmnist "$@"; fi
printf '<%s>' "$@"
"""


class Terminal:
    """An interactive shell in a pseudo-terminal."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        os.close(theirs)
        self.unread = ""

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def wait_for(self, text: str) -> None:
        """Reads up to `text`; the next call begins behind it."""
        while text not in self.unread:
            ready, _, _ = select.select([self.ours], [], [], 60)
            assert ready, self.unread
            self.unread += os.read(self.ours, 4096).decode()
        self.unread = self.unread.partition(text)[2]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("tr\tobj\twgan_\tepochs=1", "<train><objective=wgan_gp><epochs=1>"),
        ("train lr=1 objective=hin\tmodel=res\t", "<train><lr=1><objective=hinge><model=resnet>"),
        ("train -m objective=bce,wgan_\texp\tqui\t", "<objective=bce,wgan_gp><experiment=quick>"),
        ("generate out=ima\t", "<generate><out=image.png>"),
    ],
)
def test_a_shell_completes(shell: str, typed: str, words: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    program = tmp_path / "bin/ganmnist"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    (tmp_path / "image.png").touch()
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "TERM": "dumb"}
    environment |= {"PS1": "ready> ", "INPUTRC": "/dev/null", "HOME": str(tmp_path)}
    options = {"bash": ["--norc", "--noprofile"], "zsh": ["-f", "-o", "no_global_rcs"]}[shell]
    terminal = Terminal([shell, *options, "-i"], environment, tmp_path)
    try:
        terminal.wait_for("ready> ")
        terminal.type(f'eval "$(ganmnist completion {shell})"; printf "<%s>" loaded\n')
        terminal.wait_for("<loaded>")
        terminal.wait_for("ready> ")
        terminal.type(f"ganmnist {typed}\n")
        terminal.wait_for(words)
    finally:
        terminal.close()
