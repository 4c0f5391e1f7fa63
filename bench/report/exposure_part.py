"""The part of a report on exposure bias. Where there is much of it, a second process makes it beside the rest."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine.environment import own_cores
from bench.report import exposure, exposure_plots
from bench.report.study import Study, read_study

MUCH = 100
"""Files of readings from which on a second process pays: it takes two seconds to start. Ours."""


@dataclass(frozen=True)
class ExposurePart:
    """What was found, and the report's files on it."""

    found: exposure.Exposure | None = None
    files: dict[str, str | bytes] = field(default_factory=dict)


def exposure_part(study: Study) -> ExposurePart:
    """Make the part here. The study needs no samples. BenchError where readings are damaged."""
    found = exposure.exposure(study)
    if found is None:
        return ExposurePart()
    files: dict[str, str | bytes] = {"exposure.md": exposure.exposure_markdown(study, found)}
    files |= {"exposure.csv": exposure.exposure_csv(found)} if found.lines else {}
    return ExposurePart(found, {**files, **exposure_plots.figures(study, found)})


@contextmanager
def beside(runs: Sequence[Path]) -> Iterator[Callable[[Study], ExposurePart]]:
    """Context in which the part of these run folders is made, if there is much and a second core to do it.

    Yields:
        ``exposure_part`` of the study of these folders, which waits for the other process, or works itself.
    """
    if own_cores() < 2 or not sys.executable or _readings(runs) < MUCH:
        yield exposure_part
        return
    command = [sys.executable, "-m", __name__, *map(str, runs)]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, env=where, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:

        def part(study: Study) -> ExposurePart:
            made, _ = other.communicate()
            if other.returncode:  # damaged readings, or no memory for two: say or do it here
                return exposure_part(study)
            return ExposurePart(*pickle.loads(made))  # which the same code has just written

        try:
            yield part
        finally:
            other.kill()


def _readings(runs: Sequence[Path]) -> int:
    return sum(1 for run in runs for _ in run.glob("*/evaluations/*/probes.jsonl"))


if __name__ == "__main__":
    made = exposure_part(read_study([Path(run) for run in sys.argv[1:]], samples=False))
    with sys.stdout.buffer as out:
        out.write(pickle.dumps((made.found, made.files)))
    os._exit(0)  # the report waits for the end, and taking all this down takes half a second
