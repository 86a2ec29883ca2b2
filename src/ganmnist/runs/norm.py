"""norm=auto: the normalization of D, which depends on the loss terms and the stabilizers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from inspect import signature
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)


def resolve_norm(config: DictConfig) -> None:
    """Replaces every norm=auto by a name.

    `discriminator_norm` of a loss term or a stabilizer names the norm that D needs: layer for a
    gradient of each image, none for spectral norm. Otherwise the default of the constructor stays.
    """
    networks = [*networks_with_auto_norm(config)]
    if not networks:
        return
    family: Any = OmegaConf.to_container(config.family, resolve=True)
    targets = [get_object(node["_target_"]) for node in nodes(family) if "_target_" in node]
    needed = {getattr(target, "discriminator_norm", None): target for target in targets}
    norm = next((norm for norm in ("none", "layer") if norm in needed), None)
    if norm and not any(node.get("norm") == "auto" for node in nodes(family["discriminator"])):
        norm = None  # the discriminator of this family is another network
    if norm:
        name = needed[norm].__name__
        log.info("model.discriminator.norm=auto: %s, because %s needs it.", norm, name)
    for network in networks:
        default = signature(get_object(network._target_)).parameters["norm"].default
        network.norm = norm or default


def networks_with_auto_norm(node: DictConfig) -> Iterator[DictConfig]:
    """The nodes with norm=auto. References to a node are left out, so each comes once."""
    if node._is_none() or node._is_missing():
        return
    for name in map(str, node):
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        if name == "norm" and node[name] == "auto":
            yield node
        elif isinstance(node[name], DictConfig):
            yield from networks_with_auto_norm(node[name])


def nodes(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping in a tree of settings."""
    if isinstance(node, Mapping):
        yield node
        node = [*node.values()]
    if isinstance(node, list):
        for value in node:
            yield from nodes(value)
