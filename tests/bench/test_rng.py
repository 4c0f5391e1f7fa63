"""Named generators: a function of their key alone, and nobody else's state moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.rng import derive_seed, numpy_generator, torch_generator

KEYS = [(0, 0, 0, "noise"), (1, 0, 0, "noise"), (0, 1, 0, "noise"), (0, 0, 1, "noise"), (0, 0, 0, "time")]


def test_the_same_key_draws_the_same_numbers():
    for key in KEYS:
        assert torch.equal(
            torch.randn(8, generator=torch_generator(*key)), torch.randn(8, generator=torch_generator(*key))
        )
        assert (numpy_generator(*key).random(8) == numpy_generator(*key).random(8)).all()


def test_every_part_of_the_key_gives_other_numbers():
    torch_draws = {tuple(torch.randn(4, generator=torch_generator(*key)).tolist()) for key in KEYS}
    numpy_draws = {tuple(numpy_generator(*key).random(4).tolist()) for key in KEYS}
    assert len(torch_draws) == len(numpy_draws) == len(KEYS)


def test_key_parts_are_neither_joined_nor_cast():
    keys = [("ab", "c"), ("a", "bc"), ("abc",), (1, 2), (12,), ("1", 2), ("1", "2")]
    assert len({derive_seed(*key) for key in keys}) == len(keys)


def test_seeds_fit_into_63_bits_and_use_them():
    seeds = [derive_seed(i, "x") for i in range(2000)]
    assert len(set(seeds)) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert sum(seed >= 2**62 for seed in seeds) == pytest.approx(1000, abs=150)


def test_neighbouring_keys_are_uncorrelated():
    draws = np.stack([torch.randn(4096, generator=torch_generator(0, step, 0, "noise")).numpy() for step in range(8)])
    off_diagonal = np.corrcoef(draws)[~np.eye(8, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(4096)


def test_no_global_generator_is_touched():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.randn(3, generator=torch_generator(1, "a"))
    numpy_generator(1, "a").random()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()
