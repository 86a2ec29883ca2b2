"""Composed configurations."""

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from ganmnist.runs import command_line
from ganmnist.runs.folders import conf_dir
from ganmnist.runs.norm import resolve_norm


def configuration(*overrides: str) -> DictConfig:
    """The configuration that the command line composes from these overrides."""
    command_line.setup()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", list(overrides))
    resolve_norm(config)
    return config
