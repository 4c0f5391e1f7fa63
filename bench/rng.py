"""Named random generators. Every random draw in the harness comes from here.

A generator is a function of ``(seed, step, row, stream)``, where a row is a position in a step's global batch. So a
resumed job draws what an uninterrupted one would have drawn; no two rows, and so no two ranks, share noise; the number
of ranks changes nothing; and adding a draw to one stream moves no other stream.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed from any sequence of ints and strings; different keys give independent seeds."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(*key: int | str) -> np.random.Generator:
    """A numpy generator for a key such as ``(seed, step, "stream")``."""
    return np.random.default_rng(derive_seed(*key))


def torch_generator(*key: int | str) -> torch.Generator:
    """A CPU torch generator for a key. Noise is drawn on the CPU, so that it is the same on every device."""
    import torch

    return torch.Generator("cpu").manual_seed(derive_seed(*key))
