"""The settings that are typed beside resume=..., applied to the settings of the run."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganmnist.runs.composition import compose_words, parse
from ganmnist.runs.config_tree import (
    children,
    interpolations,
    is_reference,
    leaves,
    overlap,
    select,
    settings_in,
    source,
    suggest,
)
from ganmnist.runs.explain import explain
from ganmnist.runs.folders import quoted
from ganmnist.runs.instantiate import TRUSTED, find_any, is_in
from ganmnist.runs.norm import nodes
from ganmnist.runs.schema import SETTINGS
from ganmnist.utils.errors import UserError

# Settings that do not change the training. Those of the trainer that do are compared as well.
CHANGEABLE = (
    *("epochs", "print_every", "sample_every", "log_every", "checkpoint", "name"),
    *("optimized_metric", "metrics", "callbacks", "logger", "trainer", "trusted_modules"),
    *("data.root", "datamodule.chunk", "datamodule.intervals"),
)
OF_TRAINING = ("precision", "limit_train_batches", "num_nodes")  # settings of the trainer


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
            UserError: a word is not a setting, or a choice or a value is wrong.
        """
        overrides = [
            override
            for override in parse(words)
            if override.key_or_group != "hydra.run.dir" or Path(str(override.value())) != run
        ]
        defaults = compose_words("train", ("folder=.",), words)
        public = (*SETTINGS["train"], "trusted_modules")
        composed = [
            str(override.input_line)
            for override in overrides
            if override.key_or_group in public or is_group(override, defaults)
        ]
        folder = f"folder={quoted(str(run))}"
        try:
            today = compose_words("train", (*composed, folder), words) if composed else defaults
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
    is_node = name == "experiment" or (name in tree and OmegaConf.is_dict(tree[name]))
    return is_node and not override.is_delete() and isinstance(override.value(), str | list)


def is_changeable(path: str) -> bool:
    return any(f"{path}.".startswith(f"{name}.") for name in CHANGEABLE)


def same_target(today: str, saved: Any) -> bool:
    """Whether two names are of one class. data=auto has become a data set in the saved settings."""
    found = find_any(today)
    name = f"{found.__module__}.{found.__qualname__}"
    return bool(saved == name or found.__name__ == "Auto")


def to_plain(value: Any) -> Any:
    """A parsed value as plain containers and numbers."""
    container: Any = OmegaConf.to_container(OmegaConf.create({"value": value}))
    return container["value"]


def refuse_changes(changed: Sequence[tuple[str, Any, Any]]) -> None:
    """Raises UserError for settings that would change the training: name, old and new value."""
    if changed:
        listed = "; ".join(f"{name} was {old} and is now {new}" for name, old, new in changed[:5])
        raise UserError(
            f"These settings must not change on resume: {listed}. Keep them, or start a new run."
        )
