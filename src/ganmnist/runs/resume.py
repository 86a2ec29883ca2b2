"""Resume: continues a run with the state and the settings in its last checkpoint.

The folder may come from somebody else. Nothing in it is executed: the settings are plain values,
which no parser, resolver or environment variable touches, and they name classes of ganmnist, of
torch.optim and of the modules that the command line trusts. Paths outside of the folder are not
taken from it. Settings that do not change the training may be replaced on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from ganmnist.runs.arguments import foreign_path, path_arguments
from ganmnist.runs.checks import check_types
from ganmnist.runs.config_tree import select
from ganmnist.runs.folders import is_locked, is_sweep
from ganmnist.runs.instantiate import find_target
from ganmnist.runs.typed_settings import TypedSettings
from ganmnist.utils.errors import UserError
from ganmnist.utils.files import read_json
from ganmnist.utils.values import is_plain

LAST = "checkpoints/last.ckpt"
RUN_FILES = ("summary.json", LAST)  # a folder with one of these belongs to a run

# Further arguments of Lightning's Trainer that are taken from a file. They are plain values.
OF_TRAINER = ("detect_anomaly", "sync_batchnorm")
# Values that are taken from a file. Others start processes, wait for machines or import packages.
ACCEPTED = {
    "num_nodes": (1,),
    "devices": range(1, 9),
    "strategy": ("auto", "ddp", "ddp_find_unused_parameters_true"),
}


class Checkpoint(NamedTuple):
    """A checkpoint that continues."""

    path: Path
    content: dict[str, Any]

    @property
    def run(self) -> Path:
        return self.path.parents[1]

    @property
    def finished(self) -> bool:
        return finished(self.run)


def asked(args: Sequence[str]) -> str:
    """The value of resume=... in a command line; empty if there is none."""
    values = [word.partition("=")[2] for word in args if word.startswith("resume=")]
    return "" if not values or values[-1] == "null" else values[-1]


def find(asked: str) -> Path:
    """The run's folder; for "auto" the newest unfinished one under logs/, or the sweep of that run.

    Raises:
        UserError: there is none.
    """
    if asked != "auto":
        run = Path(asked.strip("'\""))
        if not os.path.isdir(run) or not str(run.resolve()).isprintable():
            raise UserError(
                f"resume={asked}: there is no such folder. resume=auto takes the newest run."
            )
        return run.resolve()
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UserError(
            "resume=auto: a launcher started several processes, which may find different runs. Use "
            "resume=FOLDER."
        )
    runs = [file.parents[1] for file in Path("logs").glob(f"**/{LAST}")]
    unfinished = [
        run for run in runs if not (finished(run) or is_locked(run) or is_locked(run.parent))
    ]
    if not unfinished:
        raise UserError("resume=auto: no unfinished run under logs/.")
    newest = max(unfinished, key=lambda run: (run / LAST).stat().st_mtime).resolve()
    return newest.parent if is_sweep(newest.parent) else newest


def finished(run: Path) -> bool:
    try:
        return bool(read_json(run / "summary.json")["status"] == "finished")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read(run: Path) -> Checkpoint:
    """The checkpoint of a run that continues.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = run / LAST
    if not path.is_file():
        raise UserError(f"resume={run}: this folder has no {LAST}. Choose another folder.")

    from ganmnist.runs.loading import read_checkpoint

    return Checkpoint(path, read_checkpoint(path))


def check_saved(saved: Any, path: Path) -> dict[str, Any]:
    """Returns a copy of the settings in a file.

    Raises:
        UserError: they are not the plain settings of a run.
    """
    parts = ("trainer", "gan", "data", "datamodule", "family", "metrics", "model")
    if (
        is_plain(saved)
        and isinstance(saved, dict)
        and all(isinstance(saved.get(part), dict) for part in parts)
        and all(isinstance(saved.get(part), dict | None) for part in ("callbacks", "logger"))
        and isinstance(saved.get("folder"), str)
    ):
        return deepcopy(saved)
    raise UserError(f"{path} has no settings of a run. Choose another folder.")


def continued_settings(saved: Any, typed: TypedSettings, run: Path, path: Path) -> dict[str, Any]:
    """The settings of a run that continues.

    Args:
        saved: the settings in a file.
        typed: the settings beside resume=....
        run: the folder of the run.
        path: the file, for messages.

    Raises:
        UserError: the saved settings are not accepted, or a typed one would change the training.
    """
    saved = check_saved(saved, path)
    settings = typed.applied_to(saved)
    settings |= {"resume": str(run), "trusted_modules": typed.resolved["trusted_modules"]}
    settings["datamodule"]["dataset"] = settings["data"]
    check_types(settings)
    check_trainer(settings["trainer"], typed)
    replace_paths(settings, typed, Path(saved["folder"]), run)
    settings["folder"] = str(run)
    return settings


def typed_changes(
    saved: Mapping[str, Any], settings: Mapping[str, Any], typed: TypedSettings
) -> Iterator[tuple[str, Any, Any]]:
    """The typed settings that differ from the saved ones, with both values."""
    for path in ("data.root", *typed.paths, *typed.groups):
        old, new = select(saved, path), select(settings, path)
        if old != new and not isinstance(new, dict):
            yield path, old, new


def check_trainer(trainer: dict[str, Any], typed: TypedSettings) -> None:
    """Raises UserError for settings of the trainer that are not accepted from a file."""
    own = typed.tree if "trainer" in typed.groups else typed.defaults
    known = {*own["trainer"], *OF_TRAINER}
    for name, value in trainer.items():
        if f"trainer.{name}" in typed.paths or name == "_target_":
            continue
        accepted = name in known and value in ACCEPTED.get(name, (value,))
        if not accepted or isinstance(value, dict | list):
            sign = "" if name in known else "+"
            raise UserError(
                f"trainer.{name}={value} is not accepted from a checkpoint. If it is yours, add "
                f"{sign}trainer.{name}={value} to the command line."
            )
    trainer["_target_"] = typed.resolved["trainer"]["_target_"]


def replace_paths(settings: dict[str, Any], typed: TypedSettings, folder: Path, run: Path) -> None:
    """Moves paths inside the run's old folder to its present one.

    folder: the run's old folder, which may be on another machine; `run` is the present one.

    Raises:
        UserError: a path outside of the folder, which is not typed.
    """
    find = partial(find_target, allowed=typed.allowed)
    for node, name, place in path_arguments({**settings, "trainer": {}}, find):
        value = node[name]
        if (
            value is None
            or place in typed.paths
            or place in ("data.root", "datamodule.dataset.root")
        ):
            continue
        if value == select(typed.resolved, place) and place.partition(".")[0] in typed.groups:
            continue
        inside = PurePath(str(value))
        if not inside.is_relative_to(folder) or ".." in inside.parts:
            raise foreign_path(place, value)
        node[name] = str(run / inside.relative_to(folder))
