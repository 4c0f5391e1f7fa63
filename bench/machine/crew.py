"""Several processes at one piece of work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.machine.engine import Engine


@dataclass(frozen=True)
class Crew:
    """The processes that share a piece of work, as one of them sees it, and who hears how far it is.

    Attributes:
        rank, world_size: the number of this process, and how many there are. Process 0 merges and writes.
        barrier: returns once every process has called it.
        tick: called with the number of pairs that are done now.
        say: called with a line for the user.
    """

    rank: int = 0
    world_size: int = 1
    barrier: Callable[[], None] = lambda: None
    tick: Callable[[int], None] = lambda pairs: None
    say: Callable[[str], None] = lambda line: None

    @staticmethod
    def of(engine: Engine, *, tick: Callable[[int], None], say: Callable[[str], None]) -> Crew:
        """The processes of an engine."""
        return Crew(engine.rank, engine.world_size, engine.barrier, tick, say)

    @property
    def is_main(self) -> bool:
        """True in process 0."""
        return self.rank == 0


ALONE = Crew()
"""One process, and nobody who hears of it."""
