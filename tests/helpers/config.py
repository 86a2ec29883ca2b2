"""Composed configurations."""

from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from ganmnist.runs.composition import plain, setup
from ganmnist.runs.folders import conf_dir
from ganmnist.runs.norm import resolve_norm


def configuration(*overrides: str) -> DictConfig:
    """The configuration that the command line composes from these overrides."""
    if not any(word.startswith("folder=") for word in overrides):
        overrides = ("folder=here", *overrides)  # otherwise Hydra's
    setup()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", list(overrides))
    settings = plain(config)
    resolve_norm(settings)
    return OmegaConf.create(settings)


def settings_of(*overrides: str) -> dict[str, Any]:
    """The same as plain settings."""
    settings: dict[str, Any] = plain(configuration(*overrides))
    return settings
