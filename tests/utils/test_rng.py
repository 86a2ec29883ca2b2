"""Random numbers as a function of a key."""

import torch

from ganmnist.utils.rng import generator_for, seed_device, seed_for


def test_seed_is_the_same_on_every_machine() -> None:
    # printf 'step/0/0/1' | b2sum -l 64 gives these bytes
    assert seed_for("step", 0, 0, 1) == int.from_bytes(
        bytes.fromhex("df12c381aafdbe3a"), "little", signed=True
    )
    assert seed_for("order", 0, 7) == int.from_bytes(
        bytes.fromhex("6447dd93fc454f9f"), "little", signed=True
    )


def test_seeds_differ_between_keys() -> None:
    keys = [("step", s, r, t) for s in range(10) for r in range(10) for t in range(100)]
    keys += [("order", s, e) for s in range(10) for e in range(10)]
    assert len({seed_for(*key) for key in keys}) == len(keys) == 10_100


def test_seeds_have_64_random_bits_and_fit_torch_generators() -> None:
    seeds = [seed_for("bits", i) for i in range(1000)]
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
    for bit in range(64):  # 1,000 random bits have a sum of 500, standard deviation 15.8
        ones = sum(seed >> bit & 1 for seed in seeds)
        assert abs(ones - 500) < 5 * 15.8
    for seed in (min(seeds), max(seeds)):
        torch.Generator().manual_seed(seed)


def test_generator_for_depends_on_the_key_only() -> None:
    state = torch.get_rng_state()
    first, again, other = (torch.rand(5, generator=generator_for("a", i)) for i in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_seed_device_is_manual_seed() -> None:
    seed_device(torch.device("cpu"), "step", 3)
    ours = torch.rand(5)
    torch.manual_seed(seed_for("step", 3))
    assert torch.equal(ours, torch.rand(5))
