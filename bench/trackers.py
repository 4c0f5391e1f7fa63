"""Scalars of a job to TensorBoard or Weights & Biases, through accelerate's trackers. Records do not depend on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BenchError

Track = Callable[[int, dict[str, float]], None]


@contextmanager
def tracking(names: Sequence[str], folder: Path) -> Iterator[Track]:
    """A function that takes (step, scalars) and hands them to each tracker.

    Args:
        names: ``tensorboard`` (event files under ``<experiment>/tensorboard/<job>``) and ``wandb`` (project ``bench``).
        folder: of the job; its name is the run's.

    Raises:
        BenchError: a tracker's package is not installed.
    """
    if not names:
        yield lambda step, scalars: None
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, TensorBoardTracker

    opened = []
    for name in names:
        kind = LOGGER_TYPE_TO_CLASS[name]
        try:
            if kind is TensorBoardTracker:
                tracker = kind(folder.name, logging_dir=folder.parent / "tensorboard")
            else:
                tracker = kind("bench", name=folder.name, group=folder.parent.name, dir=str(folder.parent))
            tracker.start()
        except ImportError as error:
            raise BenchError(f"the tracker {name} is not installed: pip install {name}, or --trackers none") from error
        opened.append(tracker)

    def track(step: int, scalars: dict[str, float]) -> None:
        for tracker in opened:
            tracker.log(scalars, step=step)

    try:
        yield track
    finally:
        for tracker in opened:
            tracker.finish()
