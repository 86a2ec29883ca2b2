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

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganmnist.runs.arguments import foreign_path, path_arguments
from ganmnist.runs.checks import check_types
from ganmnist.runs.composition import compose_words, parse
from ganmnist.runs.config_tree import (
    children,
    interpolations,
    overlap,
    settings_in,
    source,
    suggest,
)
from ganmnist.runs.explain import explain
from ganmnist.runs.folders import is_locked, is_sweep, quoted, refuse_links
from ganmnist.runs.instantiate import TRUSTED, find_any, find_target, is_in
from ganmnist.runs.norm import nodes
from ganmnist.runs.schema import SETTINGS
from ganmnist.utils.errors import UserError
from ganmnist.utils.files import read_json
from ganmnist.utils.plain import is_plain

LAST = "checkpoints/last.ckpt"
RUN_FILES = ("summary.json", LAST)  # a folder with one of these belongs to a run

# Settings that do not change the training. Those of the trainer that do are compared as well.
CHANGEABLE = (
    *("epochs", "print_every", "sample_every", "log_every", "checkpoint", "name"),
    *("optimized_metric", "metrics", "callbacks", "logger", "trainer", "trusted_modules"),
    *("data.root", "datamodule.chunk", "datamodule.intervals"),
)
OF_TRAINING = ("precision", "limit_train_batches", "num_nodes")  # settings of the trainer
# Further arguments of Lightning's Trainer that are taken from a file. They are plain values.
OF_TRAINER = ("detect_anomaly", "max_steps", "max_time", "sync_batchnorm")


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
        UserError: there is none, it is damaged, or the folder has links to other places.
    """
    refuse_links(run)
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


class TypedSettings:
    """The settings that are typed beside resume=..., and what they stand for today.

    Args:
        overrides: the parsed words, without resume=....
        today: the configuration that today's conf/ composes from the typed groups and public
            settings.
        defaults: the same without any word.
    """

    def __init__(
        self, overrides: Sequence[Override], today: DictConfig, defaults: DictConfig
    ) -> None:
        self.tree: Any = OmegaConf.to_container(today, resolve=False)
        self.defaults: Any = OmegaConf.to_container(defaults, resolve=False)
        self.resolved: Any = OmegaConf.to_container(today, resolve=True)
        targets = [str(node["_target_"]) for node in nodes(self.resolved) if "_target_" in node]
        modules = {target.rpartition(".")[0] for target in targets} | {*today.trusted_modules}
        own = (module for module in modules if not is_in(module, ("ganmnist", "torch")))
        self.allowed = (*TRUSTED, *own)  # the modules that settings of a file may name
        self.groups = [o.key_or_group for o in overrides if is_group(o, today)]
        self.values = [o for o in overrides if o.key_or_group not in self.groups]
        self.paths = [override.key_or_group for override in self.values]

    @classmethod
    def parse(cls, words: Sequence[str], run: Path) -> TypedSettings:
        """The settings in the words of a command line.

        Raises:
            UserError: a word is no setting, or a choice or a value is wrong.
        """
        overrides = [
            override
            for override in parse(words)
            if override.key_or_group != "hydra.run.dir" or Path(str(override.value())) != run
        ]
        folder = f"folder={quoted(str(run))}"
        defaults = compose_words("train", [folder], words)
        public = (*SETTINGS["train"], "trusted_modules")
        composed = [
            str(override.input_line)
            for override in overrides
            if override.key_or_group in public or is_group(override, defaults)
        ]
        try:
            today = compose_words("train", [*composed, folder], words)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(error, "train", overrides)) from error
        return cls(overrides, today, defaults)

    def applied_to(self, saved: dict[str, Any]) -> dict[str, Any]:
        """The saved settings with the typed ones.

        Raises:
            UserError: a typed setting would change the training, or is unknown.
        """
        settings = deepcopy(saved)
        self.check_groups(saved)
        replaced = [group for group in self.groups if group in ("callbacks", "logger", "metrics")]
        for group in replaced:
            settings[group] = deepcopy(self.resolved[group])
        if "trainer" in self.groups:
            for name, value in self.tree["trainer"].items():
                if name not in OF_TRAINING and not is_reference(value):
                    settings["trainer"][name] = value
        for override in self.values:
            self.apply(override, settings)
        self.follow_references(saved, settings, replaced)
        if "data.root" not in self.paths:
            settings["data"]["root"] = self.resolved["data"]["root"]
        return settings

    def check_groups(self, saved: dict[str, Any]) -> None:
        """Raises UserError if a choice of a group would change the training."""
        changed = []
        for path, value in leaves(self.tree):
            group = path.partition(".")[0]
            if group not in self.groups and value == select(self.defaults, path):
                continue
            if is_changeable(path) or is_reference(value) or value in ("auto", "???"):
                continue
            if any(overlap(path, typed) for typed in self.paths) or path == "folder":
                continue
            then = select(saved, path)
            if then != value and not (path.endswith("_target_") and same_target(value, then)):
                changed.append((path, then, value))
        for group in self.groups:
            removed = children(saved.get(group)).keys() - children(self.tree.get(group)).keys()
            if not is_changeable(group):
                changed += [(f"{group}.{name}", saved[group][name], None) for name in removed]
        refuse_changes(changed)

    def apply(self, override: Override, settings: dict[str, Any]) -> None:
        """Applies one typed setting.

        Raises:
            UserError: it would change the training, or is unknown.
        """
        path = override.key_or_group
        *above, name = path.split(".")
        node = select(settings, ".".join(above)) if above else settings
        if isinstance(node, dict) and override.is_delete() and is_changeable(path):
            node.pop(name, None)
            return
        if path.startswith("hydra."):
            raise UserError(
                f"{override.input_line}: a run continues in its own folder and process. Leave this "
                "out."
            )
        if not isinstance(node, dict) or not (name in node or override.is_add()):
            close = suggest(path, settings_in(settings))
            hint = f" Did you mean {close}=...?" if close else ""
            raise UserError(f"Unknown setting {path!r} of the run that continues.{hint}")
        value: Any = override.value()
        if "${" in str(value):
            raise UserError(f"{override.input_line}: with resume=..., type the value itself.")
        value = to_plain(value)
        if not is_changeable(path) and value not in (node.get(name), "auto"):
            refuse_changes([(path, node.get(name), value)])
        if is_changeable(path) and not (path == "trainer.precision" and value == "auto"):
            node[name] = value

    def follow_references(
        self, saved: dict[str, Any], settings: dict[str, Any], replaced: Sequence[str]
    ) -> None:
        """Sets what repeats a changed setting, such as trainer.max_epochs for epochs."""
        for path, value in leaves(self.tree):
            if not (is_changeable(path) and is_reference(value)) or path in self.paths:
                continue
            *above, name = path.split(".")
            node = select(settings, ".".join(above)) if above else settings
            if not isinstance(node, dict) or name not in node:
                continue
            if isinstance(value, list):  # datamodule.intervals
                names = [name for text in value for name in interpolations(text, path)]
                node[name] = [select(settings, name) for name in names]
                continue
            original = source(self.tree, path)
            repeats = select(saved, path) == select(saved, original)
            if original != path and (repeats or any(overlap(path, group) for group in replaced)):
                node[name] = deepcopy(select(settings, original))


def is_group(override: Override, tree: DictConfig) -> bool:
    """Whether an override chooses files of a group. `tree` is any configuration of a run."""
    name = override.key_or_group
    is_node = name == "experiment" or (name in tree and OmegaConf.is_dict(tree._get_node(name)))
    return is_node and not override.is_delete() and isinstance(override.value(), str | list)


def is_changeable(path: str) -> bool:
    return any(f"{path}.".startswith(f"{name}.") for name in CHANGEABLE)


def is_reference(value: Any) -> bool:
    return "${" in str(value)


def same_target(today: str, saved: Any) -> bool:
    """Whether two names are of one class. data=auto has become a data set in the saved settings."""
    found = find_any(today)
    name = f"{found.__module__}.{found.__qualname__}"
    return bool(saved == name or found.__name__ == "Auto")


def to_plain(value: Any) -> Any:
    """A parsed value as plain containers and numbers."""
    container: Any = OmegaConf.to_container(OmegaConf.create({"value": value}))
    return container["value"]


def select(node: Any, path: str) -> Any:
    """The node at a path of plain settings; None: there is none."""
    for part in path.split("."):
        node = children(node).get(part)
    return node


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The paths and values of a tree of settings. A list is a value."""
    for name, value in node.items():
        inner = f"{path}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            yield from leaves(value, inner)
        else:
            yield inner, value


def refuse_changes(changed: Sequence[tuple[str, Any, Any]]) -> None:
    """Raises UserError for settings that would change the training: name, old and new value."""
    if changed:
        listed = "; ".join(f"{name} was {old} and is now {new}" for name, old, new in changed[:5])
        raise UserError(
            f"These settings must not change on resume: {listed}. Keep them, or start a new run."
        )


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
        if name not in known or isinstance(value, dict | list):
            raise UserError(
                f"trainer.{name}={value} is not accepted from a checkpoint. If it is yours, add "
                f"+trainer.{name}=... to the command line."
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
