"""Training data as a job sees it, and how the next batch is read while the present one trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from torch import Tensor

from bench.backbone.loader import TextCondition
from bench.encoded.ahead import AheadText
from bench.experiment.toml import parse_size
from bench.suite import Prompt

if TYPE_CHECKING:
    from bench.method import Needs

__all__ = ["Latents", "Preferences", "Prefetch", "Text", "TrainingData", "parse_size"]

K = TypeVar("K")
T = TypeVar("T")


class Latents(Protocol):
    """Latents by pair; a tensor (pairs, C, H, W) is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """Float32 (N, C, H, W) of the pairs ``index`` (N,), all of one shape."""


class Text(Protocol):
    """Conditions by caption; a TextCondition is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor, /) -> TextCondition:
        """Float32 conditions of the captions ``index`` (N,)."""


@dataclass(frozen=True)
class TrainingData:
    """What every method of an experiment shares: cached latents, captions and their conditions.

    A method is given just what it declared: no latents without ``pairs``, no prompts without ``prompts``, no
    preferences without ``preference_pairs``.

    Attributes:
        latents: by pair, in the order of the subset.
        shapes: (pairs, 3): (C, H, W) of each pair's latents.
        text: by caption; every caption of the subset once.
        prompts: the captions.
        text_of: (pairs,) row of ``text`` and ``prompts`` that belongs to each pair.
        preferences: pairs of pictures of which one is preferred.
    """

    latents: Latents | None
    shapes: Tensor
    text: Text
    prompts: tuple[Prompt, ...]
    text_of: Tensor
    preferences: Preferences | None = None

    def __len__(self) -> int:
        return len(self.text_of)

    def given(self, needs: Needs) -> TrainingData:
        """Just what a method said it needs."""
        return replace(
            self,
            latents=self.latents if needs.pairs else None,
            prompts=self.prompts if needs.prompts else (),
            preferences=self.preferences if needs.preference_pairs else None,
        )

    def close(self) -> None:
        """Free the text encoders, if captions are encoded ahead; not those of ``preferences``, which subsets share."""
        if isinstance(self.text, AheadText):
            self.text.close()


@dataclass(frozen=True)
class Preferences:
    """Offline preference data.

    Attributes:
        pictures: all of them, encoded, with their captions' conditions.
        pairs: (P, 2) positions in ``pictures``: the preferred picture, and the other of the same caption and shape.
        record: what ``job.json`` holds of it.
    """

    pictures: TrainingData
    pairs: Tensor
    record: dict[str, Any] = field(default_factory=dict)


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
