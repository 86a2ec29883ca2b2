"""norm=auto: the normalization of D, which depends on the loss terms and the stabilizers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from inspect import signature
from typing import Any

from ganmnist.runs.arguments import Find
from ganmnist.runs.instantiate import find_target

log = logging.getLogger(__name__)


def resolve_norm(settings: dict[str, Any], find: Find = find_target) -> None:
    """Replaces every norm=auto by a name.

    `discriminator_norm` of a loss term or a stabilizer names the norm that D needs: layer for a
    gradient of each image, none for spectral norm. Otherwise the default of the constructor stays.

    Args:
        settings: the settings of a run.
        find: returns what a `_target_` names.
    """
    networks = [node for node in nodes(settings) if node.get("norm") == "auto"]
    if not networks:
        return
    family = settings["family"]
    targets = [find(node["_target_"]) for node in nodes(family) if "_target_" in node]
    needed = {getattr(target, "discriminator_norm", None): target for target in targets}
    norm = next((norm for norm in ("none", "layer") if norm in needed), None)
    if norm and not any(node.get("norm") == "auto" for node in nodes(family["discriminator"])):
        norm = None  # the discriminator of this family is another network
    if norm:
        name = needed[norm].__name__
        log.info("model.discriminator.norm=auto: %s, because %s needs it.", norm, name)
    for network in networks:
        default = signature(find(network["_target_"])).parameters["norm"].default
        network["norm"] = norm or default


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a tree of settings."""
    if isinstance(node, dict):
        yield node
        node = [*node.values()]
    if isinstance(node, list):
        for value in node:
            yield from nodes(value)
