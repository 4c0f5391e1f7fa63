"""Scalars of a job to TensorBoard or Weights & Biases, through accelerate's trackers. Records do not depend on them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BenchError

Track = Callable[[int, dict[str, float]], None]


def check_trackers(names: Sequence[str]) -> None:
    """BenchError for a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise BenchError(f"the tracker {name} is not installed: pip install {name}, or --trackers none")


@contextmanager
def tracking(names: Sequence[str], folder: Path) -> Iterator[Track]:
    """A function that takes (step, scalars) and hands them to each tracker.

    Args:
        names: ``tensorboard`` (event files under ``<experiment>/tensorboard/<job>``) and ``wandb`` (project ``bench``).
        folder: of the job; its name is the run's.
    """
    check_trackers(names)
    if not names:
        yield lambda step, scalars: None
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, TensorBoardTracker

    opened = []
    for name in names:
        kind = LOGGER_TYPE_TO_CLASS[name]
        if kind is TensorBoardTracker:
            tracker = kind(folder.name, logging_dir=folder.parent / "tensorboard")
        else:
            tracker = kind("bench", name=folder.name, group=folder.parent.name, dir=str(folder.parent))
        tracker.start()
        opened.append(tracker)

    def track(step: int, scalars: dict[str, float]) -> None:
        for tracker in opened:
            tracker.log(scalars, step=step)

    try:
        yield track
    finally:
        for tracker in opened:
            tracker.finish()
