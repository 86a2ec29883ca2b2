"""ganmnist completion: tab completion for bash and zsh.

The candidates come from the files of conf/. Neither torch nor Hydra nor OmegaConf is imported.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ganmnist.commands import COMMANDS
from ganmnist.runs.folders import conf_dir

try:
    from yaml import CSafeLoader as Loader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader as Loader

SHELLS = ("bash", "zsh")
USAGE = """usage: ganmnist completion {bash,zsh}

Prints the tab completion for a shell. Add one of these lines to the shell's start-up file:

  ~/.bashrc    eval "$(ganmnist completion bash)"
  ~/.zshrc     eval "$(ganmnist completion zsh)"
"""
FLAGS = ("--cfg ", "--config-dir ", "--help ", "--hydra-help ", "--info ", "--multirun ")


def main(args: Sequence[str] | None = None) -> None:
    match [*(sys.argv[1:] if args is None else args)]:
        case [shell] if shell in SHELLS:
            print(Path(__file__).with_name(f"completion.{shell}").read_text(), end="")
        case ["-h" | "--help"]:
            print(USAGE, end="")
        case ["candidates", line]:  # called by the shell
            print(*candidates(line), sep="\n")
        case given:
            problem = f"Unknown shell {' '.join(given)!r}" if given else "No shell is given"
            print(f"ganmnist completion: {problem}. Use bash or zsh.", file=sys.stderr)
            sys.exit(2)


def candidates(line: str) -> list[str]:
    """Possible last words of a command line. A finished word ends with a space.

    Args:
        line: The command line up to the cursor, with the name of the program.
    """
    words = line.split()
    last = words.pop() if line[-1:].strip() else ""
    match words[1:]:
        case []:
            found = [f"{command.name} " for command in COMMANDS]
        case ["completion"]:
            found = [f"{shell} " for shell in SHELLS]
        case [command, *overrides] if (conf_dir() / f"{command}.yaml").is_file():
            found = Settings(command, overrides).complete(last)
        case _:
            found = []
    return [word for word in found if word.startswith(last)]


class Settings:
    """The groups and settings of a command, as far as its YAML files name them."""

    def __init__(self, command: str, overrides: Sequence[str]) -> None:
        text = " ".join(overrides)
        own = re.findall(r"(?:^| )(?:--config-dir|-cd)[ =](\S+)", text)
        self.folders = [conf_dir(), *map(Path, own)]
        self.groups: dict[str, Any] = {}  # with their default choices
        self.tree: dict[str, Any] = {}
        self.chosen: dict[str, Any] = dict(re.findall(r"(?:^| )\+?(\w+)=(\S+)", text))
        self.read(command)
        # The experiment and the data come last, because they choose for the groups before them.
        for group in reversed(self.groups):
            choices = self.chosen.get(group, self.groups[group])
            for choice in str(choices).strip("[]").split(","):
                self.read(f"{group}/{choice}")

    def read(self, name: str) -> None:
        """Merges a file into the tree, after the files in its defaults list."""
        files = [folder / f"{name}.yaml" for folder in self.folders]
        text = next((file.read_text() for file in files if file.is_file()), "")
        content = yaml.load(text, Loader) or {}
        group = name.rpartition("/")[0]
        for item in content.pop("defaults", []):
            if isinstance(item, str):
                self.read(item[1:] if item.startswith("/") else f"{group}/{item}".lstrip("/"))
                continue
            [(key, choice)] = item.items()
            if key.startswith("override /"):
                self.chosen.setdefault(key.removeprefix("override /"), choice)
            elif not group and " " not in key:
                self.groups[key] = choice
        is_global = not group or "@package _global_" in text
        merge(self.tree, content if is_global else {group: content})

    def complete(self, word: str) -> list[str]:
        """Flags, choices of a group, or names of settings."""
        if word.startswith("-"):
            return list(FLAGS)
        name, equals, value = word.lstrip("+~").partition("=")
        sign = word[: len(word) - len(word.lstrip("+~"))]
        if equals:
            earlier = value[: value.rfind(",") + 1]  # a sweep's
            return [f"{sign}{name}={earlier}{choice} " for choice in self.choices(name)]
        parents = name.split(".")[:-1]
        tree: Any = self.tree if parents else self.tree | dict.fromkeys(self.groups)
        for parent in parents:
            tree = tree.get(parent) if isinstance(tree, dict) else None
        keys = tree if isinstance(tree, dict) else {}
        return [
            f"{sign}{'.'.join([*parents, key])}{'.' if isinstance(keys[key], dict) else '='}"
            for key in sorted(map(str, keys))
            if not key.startswith("_")
        ]

    def choices(self, group: str) -> list[str]:
        if group not in self.groups:
            return []
        folders = [folder / group for folder in self.folders]
        files = [file.relative_to(folder) for folder in folders for file in folder.rglob("*.yaml")]
        return sorted(
            {file.with_suffix("").as_posix() for file in files if not file.name.startswith("_")}
        )


def merge(tree: dict[str, Any], other: dict[str, Any]) -> None:
    """Adds the keys of `other` to `tree`, level by level."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            merge(tree[key], value)
        else:
            tree[key] = value
