"""A report that follows a run while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench import records
from bench.records.schema import ExperimentRecord
from bench.records.status import read_status
from bench.report import render_report

EVERY = 30.0
"""Seconds between two looks at the records. Ours: a report takes about as long to draw on a busy machine."""


def watch(
    runs: list[Path],
    out: Path,
    published: bool | None,
    noise: Path | None = None,
    *,
    wait: Callable[[float], object] = time.sleep,
    tell: Callable[[Path], object],
) -> None:
    """Draw the report of run folders now, and again whenever an evaluation or a job has ended, until all jobs have.

    A page of an unfinished run says so, and loads itself anew every minute.

    Args:
        noise: as ``render_report`` takes it.
        wait: what to do for so many seconds.
        tell: is called with the page after each drawing.
    """
    drawn = None
    while True:
        seen, ended = _state(runs)
        if seen != drawn:
            render_report(runs, out, published, noise)
            tell(out / "index.html")
            drawn = seen
        if ended:
            return
        wait(EVERY)


def _state(runs: list[Path]) -> tuple[list[str], bool]:
    """What the report of runs depends on, and whether all of their jobs have ended."""
    seen, ended = [], True
    for run in runs:
        # Of a run that trains nothing, the rows that have begun.
        rows = sorted(path.parent.name for path in run.glob(f"{records.EVALUATED}--*/status.json"))
        names = records.read_record(ExperimentRecord, run / "experiment.json").jobs or rows
        ended &= bool(names)
        for name in names:
            status = read_status(run / name)["status"]
            ended &= status in ("finished", "failed")
            seen.append(f"{run / name} {status}")
        seen += [str(path) for path in sorted(run.glob("*/evaluations/[!.]*/evaluation.json"))]
        seen += [f"{path} {path.stat().st_size}" for path in sorted(run.glob("*/evaluations/[!.]*/samples.jsonl"))]
    return seen, ended
