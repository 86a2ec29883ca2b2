"""Parts of --help: the settings of a command, and the groups of conf/ with their choices."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from ganmnist.runs.folders import conf_dir
from ganmnist.runs.schema import SETTINGS


def describe_settings(command: str) -> str:
    """The settings of a command as lines of --help."""
    width = max(map(len, SETTINGS[command]))
    lines = (f"  {name:<{width}} {o.metadata['help']}" for name, o in SETTINGS[command].items())
    return "\n".join(lines)


def describe_groups() -> str:
    """The groups in conf/ and their choices as lines of --help."""
    lines = []
    for folder in sorted(path for path in conf_dir().iterdir() if path.is_dir()):
        if folder.name != "hydra":
            text = ", ".join(public(file.stem for file in folder.glob("*.yaml")))
            lines += textwrap.wrap(f"  {folder.name:<11} {text}", 96, subsequent_indent=" " * 14)
    return "\n".join(lines)


def public(choices: Iterable[str] | None) -> list[str]:
    """The choices of a group, without the shared bases."""
    return sorted(choice for choice in choices or () if not choice.startswith("_"))
