"""A bounded memory of results, so that metrics that look at the same picture compute what they share once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np

V = TypeVar("V")

BATCHES = 1024
"""Pictures that a metric remembers so that words on them cost no second look. More than a batch is scored."""


class Remembered(Generic[V]):
    """Results by key. Above ``limit`` results, the least recently used one is forgotten."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._results: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The result under a key, made if it is not there."""
        if key not in self._results:
            self._results[key] = make()
            if len(self._results) > self.limit:
                self._results.popitem(last=False)
        self._results.move_to_end(key)
        return self._results[key]


def digest(image: np.ndarray) -> bytes:
    """A hash of a picture's size and pixels."""
    size = str(image.shape[:2]).encode()  # its 16 bytes hold sides of six digits
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, person=size).digest()
