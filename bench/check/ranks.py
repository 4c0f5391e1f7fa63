"""Two processes of one job, played by two threads that take turns: none is started, and nothing hangs on timing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.machine.engine import Engine

T = TypeVar("T")
RANKS = 2


class Apart(Exception):
    """The two did not make the same calls in the same order; real processes would wait for each other for ever."""


class Meeting:
    """Where the two ranks meet. One runs while the other waits."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._brought: dict[int, tuple[str, Any]] = {}
        self._met: list[Any] = []
        self._times = 0
        self._over: str | None = None

    def run(self, rank_of: Callable[[int], T]) -> list[T]:
        """The results of all ranks. Raises the error of a rank, or Apart where a rank waits in vain."""

        natives = set[int]()

        def one(rank: int) -> T:
            natives.add(threading.get_native_id())
            with self._turn:
                try:
                    return rank_of(rank)
                finally:
                    self._end("nothing more")

        with ThreadPoolExecutor(RANKS) as threads:
            ranks = [threads.submit(one, rank) for rank in range(RANKS)]
        while any(Path(f"/proc/self/task/{native}").exists() for native in natives):
            time.sleep(1e-3)  # it lets go of its tensors after Python calls it ended; an exit meanwhile would abort
        errors = [error for rank in ranks if (error := rank.exception()) is not None]
        if errors:
            raise next((error for error in errors if not isinstance(error, Apart)), errors[0])
        return [rank.result() for rank in ranks]

    def meet(self, rank: int, what: str, value: Any) -> list[Any]:
        """The values that the ranks bring, in their order."""
        meeting = self._times
        self._brought[rank] = what, value
        if len(self._brought) == RANKS:
            one, other = (self._brought[rank][0] for rank in range(RANKS))
            if one != other:
                self._end(what)
                raise Apart(f"one calls {one} where the other calls {other}")
            self._met = [self._brought[rank][1] for rank in range(RANKS)]
            self._brought, self._times = {}, meeting + 1
            self._turn.notify_all()
        while self._times == meeting:
            if self._over is not None:
                raise Apart(f"one calls {what} where the other calls {self._over}")
            self._turn.wait()
        return self._met

    def _end(self, what: str) -> None:
        self._over = self._over or what
        self._turn.notify_all()


class RankEngine(Engine):
    """One of two ranks on the CPU."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        super().__init__()
        self.rank, self.world_size = rank, RANKS
        self._meeting = meeting

    def meet(self, what: str, value: Any = None) -> list[Any]:
        """Both ranks' values."""
        return self._meeting.meet(self.rank, what, value)

    def barrier(self) -> None:
        self.meet("a barrier")

    def sum(self, values: Tensor) -> Tensor:
        return torch.stack(self.meet(f"a sum of shape {tuple(values.shape)}", values.clone())).sum(0)

    def broadcast(self, value: T) -> T:
        first: T = self.meet("a broadcast", value)[0]
        return first

    def gather_rows(self, rows: list[T]) -> list[T]:
        return [row for brought in self.meet("a gathering", rows) for row in brought]

    def wrap(self, model: torch.nn.Module, blocks: list[torch.nn.Module], *, shard: bool) -> torch.nn.Module:
        return model

    def without_sync(self, module: torch.nn.Module) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    def share_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        mine = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        for parameter, *grads in zip(parameters, *self.meet("job.update()", mine), strict=True):
            parameter.grad = torch.stack(grads).mean(0)
