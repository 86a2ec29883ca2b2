"""Randomness as a function of what it is for.

Every random draw of a run is keyed: the order of an epoch by (seed, epoch), the latents and the
dropout of a step by (seed, rank, step). Nothing depends on how many numbers were drawn before,
so a run can be continued, cut into chunks or looked into without changing what it computes.
"""

from __future__ import annotations

from hashlib import blake2b

import torch


def seed_for(*key: object) -> int:
    """A 64-bit seed for a key such as ("latents", seed, rank, step); the same on every machine."""
    text = "/".join(map(str, key)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)


def generator_for(*key: object) -> torch.Generator:
    """A CPU generator of its own for a key."""
    return torch.Generator().manual_seed(seed_for(*key))


def seed_device(device: torch.device, *key: object) -> None:
    """Seeds the default generator of one device.

    `torch.manual_seed` seeds every kind of device there might be, which takes 200 us; this 4 us.
    """
    seed = seed_for(*key)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
