"""Random numbers as a function of a key.

Everything random in a run has a key: the order of an epoch has (seed, epoch), the latents and the
dropout of a step have (seed, rank, step). A key alone determines the numbers, so resume, chunks of
batches and other uses of random numbers do not change a run.
"""

from __future__ import annotations

from hashlib import blake2b

import torch


def seed_for(*key: object) -> int:
    """A 64-bit seed for a key such as ("latents", seed, rank, step); the same on every machine."""
    text = "/".join(map(str, key)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)


def generator_for(*key: object) -> torch.Generator:
    """A new CPU generator for a key."""
    return torch.Generator().manual_seed(seed_for(*key))


def seed_device(device: torch.device, *key: object) -> None:
    """Seeds the default generator of one device.

    It takes 4 us. `torch.manual_seed` seeds the generators of all devices in 200 us.
    """
    seed = seed_for(*key)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
