"""Commands that write to one run folder take turns: each row of a run is held by one of them at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.machine.engine import Engine

FOLDER = ".locks"
EXPERIMENT = "experiment"
"""What is held while ``experiment.json`` is read and written again."""


@contextmanager
def hold_lock(run: Path, name: str, engine: Engine, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock ``name`` of a run folder, after whoever holds it now. Every process of a group calls this.

    The lock is the system's, so a killed command leaves none behind. It does not nest: one name twice waits for ever.

    Args:
        name: of a job or another row, or ``EXPERIMENT``.
        say: called once with a line if another command holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(run / FOLDER / name)

    def take() -> bool:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    if engine.is_main:
        (run / FOLDER).mkdir(parents=True, exist_ok=True)
    announced = False
    try:
        # Main asks again and tells the others each time: in one long wait their collective would time out.
        while not engine.broadcast(engine.is_main and take()):
            if not announced:
                say(f"{name}: another command works on it in {run}; waiting for its end")
            announced = True
            pause()
        yield
    finally:
        lock.release()


def pause() -> None:
    """Until the next attempt."""
    time.sleep(1.0)
