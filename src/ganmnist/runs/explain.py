"""Messages for the errors of Hydra: the setting, and its valid values."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf.errors import OmegaConfBaseException, ValidationError

from ganmnist.runs.composition import compose_groups
from ganmnist.runs.config_tree import children, follow, overlap, paths_in, settings_in, suggest
from ganmnist.runs.folders import conf_dir
from ganmnist.runs.help import public
from ganmnist.runs.schema import SETTINGS, describe_type
from ganmnist.runs.unused import used_paths
from ganmnist.utils.errors import UserError


def explain(error: Exception, config_name: str, parsed: Sequence[Override]) -> str:
    """One or two sentences for an override that Hydra refuses: the key, and valid values."""
    cause = error.__cause__
    if isinstance(cause, UserError):
        return str(cause)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group:
            choices = public(error.options)
            close = get_close_matches(choice, choices, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            return f"Unknown {group} {choice!r}.{hint} Available: {', '.join(choices)}."
    if isinstance(cause, OmegaConfBaseException):
        key = cause.full_key or ""
        override = next((o for o in parsed if f"{o.key_or_group}.".startswith(f"{key}.")), None)
        if override is not None and not isinstance(cause, ValidationError):
            return explain_unknown(override, config_name, parsed)
        if override is not None and key in SETTINGS[config_name]:
            return f"{override.input_line}: {key} takes {describe_type(key, config_name)}."
        if override is not None and key == "trusted_modules":
            value = override.value()
            return f"trusted_modules={value}: this is a list. Use trusted_modules=[{value}]."
    text = " ".join(str(error).split())
    if config_name == "evaluate" and text.startswith(
        "In 'data/"
    ):  # data/ring8.yaml overrides the group model, which evaluate lacks
        return (
            "data: a run of points is measured with its own data. Leave data=... out. Change "
            "single settings with +data.std=0.1, for example."
        )
    return text


def explain_unknown(override: Override, config_name: str, parsed: Sequence[Override]) -> str:
    """Names an unknown setting, and lists those of its level. A suggestion is a valid command."""
    tree = compose_groups(config_name, parsed)
    key = override.key_or_group
    value = (override.input_line or "").partition("=")[2]
    place, node = follow(tree, key)
    if node is not None and place != key:
        return f"{key}: this is a reference to {place}. Use {place}={value}."
    parts = place.split(".")
    n = 0  # the first part that is unknown
    while n < len(parts) - 1 and follow(tree, ".".join(parts[: n + 1]))[1] is not None:
        n += 1
    above, name = ".".join(parts[:n]), parts[n]
    inside = public(children(follow(tree, above)[1] if above else tree))
    similar = get_close_matches(name, inside, n=1)
    close = ".".join([*parts[:n], *similar, *parts[n + 1 :]])
    read = used_paths(tree) if config_name == "train" else {*paths_in(tree)}
    valid = follow(tree, close)[1] is not None and any(overlap(close, path) for path in read)
    if not similar or not valid:
        close = suggest(key, (path for path in settings_in(tree) if path in read))
    hint = f" Did you mean {close}={value}?" if close else ""
    if above and (conf_dir() / above / f"{name}.yaml").is_file():
        hint = f" It needs {above}={name}."
    where = f" in {above}" if above else ""
    return f"Unknown setting {key!r}.{hint} Available{where}: {', '.join(inside) or 'nothing'}."
