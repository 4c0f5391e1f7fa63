"""The next batch is read on a thread while the present one trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Prefetch(Generic[K, T]):
    """Reads the next thing on a thread while the caller uses the present one. For one calling thread.

    Args:
        read: from a key (compared with ``==``) to what it names.
        thread: one thread to read on, which ``close`` ends; None: a thread of its own.

    Attributes:
        waited: seconds that ``get`` kept its caller waiting so far.
    """

    def __init__(self, read: Callable[[K], T], thread: ThreadPoolExecutor | None = None) -> None:
        self.waited = 0.0
        self._read = read
        self._worker = thread or ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._coming: tuple[K, Future[T]] | None = None

    def get(self, key: K, next_key: K | None = None) -> T:
        """What ``key`` names; reading ``next_key`` starts meanwhile. An error of ``read`` is raised for its key."""
        started = time.perf_counter()
        coming, self._coming = self._coming, None
        if coming is not None and coming[0] == key:
            future = coming[1]
        else:
            if coming is not None:
                coming[1].cancel()
            future = self._worker.submit(self._read, key)
        if next_key is not None:
            self._coming = next_key, self._worker.submit(self._read, next_key)
        try:
            return future.result()
        finally:
            self.waited += time.perf_counter() - started

    def close(self) -> None:
        """End the thread; what it was about to read is forgotten."""
        self._coming = None
        self._worker.shutdown(cancel_futures=True)
