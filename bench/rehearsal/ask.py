"""Asks for rehearsals: a process of its own does them, and what it finds is stored in the cache.

Equal questions have equal answers, so a file in ``cache/rehearsal/`` is named after its question: the configuration,
the setting, torch's version and the code of the project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache as once
from pathlib import Path
from typing import Any

from bench import records
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig
from bench.launch.command import SAFE
from bench.machine.versions import versions
from bench.plan.estimates import GPUS
from bench.rehearsal import answers
from bench.rehearsal.fit import needed
from bench.rehearsal.results import Rehearsal, Setting, from_json, setting_of

Report = Callable[[Rehearsal], None]


def rehearsed(
    config: ExperimentConfig, setting: Setting, cache: Path, *, grid: bool, report: Report = lambda rehearsal: None
) -> list[Rehearsal]:
    """Rehearsals of an experiment's stages, from the cache or done now.

    Args:
        grid: also what forwards and backwards take under other settings, which ``fit`` needs.
        report: called with each as it is done.

    Raises:
        BenchError: no rehearsal runs on this machine, or nothing can be rehearsed of this.
    """
    path = _place(config, setting, cache, grid=grid)
    if (cached := _cached(path)) is not None:
        return cached
    if reason := answers.why_not():
        raise BenchError(reason)
    request = {
        "library": str(answers.library(cache).absolute()),
        "config": config.model_dump(mode="json"),
        "setting": asdict(setting),
        "cache": str(cache.absolute()),
        "grid": grid,
    }
    out = []
    for line in _lines(request):
        if "error" in line:
            raise BenchError(line["error"])
        out.append(from_json(line))
        report(out[-1])
    if not any(rehearsal.problem for rehearsal in out):  # what failed is looked at again
        records.write_json(path, [asdict(rehearsal) for rehearsal in out])
    return out


def in_cache(config: ExperimentConfig, setting: Setting, cache: Path) -> list[Rehearsal] | None:
    """What the cache holds of it; None: nothing. Starts nothing."""
    for grid in (True, False):
        if (cached := _cached(_place(config, setting, cache, grid=grid))) is not None:
            return cached
    return None


def memory_of(config: ExperimentConfig, gpus: int | None, cache: Path) -> dict[str, int]:
    """Bytes that one GPU must have, of each row that was rehearsed under this configuration. Starts nothing."""
    most: dict[str, int] = {}
    for each in in_cache(config, setting_of(config, gpus or GPUS), cache) or ():
        if not each.short:
            most[each.row] = max(most.get(each.row, 0), needed(each.peak))
    return most


def _cached(path: Path) -> list[Rehearsal] | None:
    if not path.exists():
        return None
    try:
        return [from_json(each) for each in records.read_json(path)]
    except (BenchError, KeyError, TypeError, ValueError):  # of another release, or damaged
        return None


def _place(config: ExperimentConfig, setting: Setting, cache: Path, *, grid: bool) -> Path:
    memory_relevant = config.model_dump(mode="json", exclude=_NOTHING_TO_DO_WITH_MEMORY)
    question = [
        memory_relevant,
        asdict(setting),
        grid,
        versions()["torch"],
        _code(),
        [_text(path) for path in config.plugins],
    ]
    return cache / "rehearsal" / f"{records.digest(question)}.json"


_NOTHING_TO_DO_WITH_MEMORY = {
    "name",
    "seeds",
    "budget",
    "evaluations",
    "evaluate_at",
    "trackers",
    "context",
    "probes",
    "holdout",
}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


@once
def _code() -> str:
    """A digest of the code that is rehearsed: the project's own."""
    root = Path(__file__).parents[2]
    folders = (root / "bench", root / "methods")
    return records.digest([_text(str(path)) for folder in folders for path in sorted(folder.rglob("*.py"))])


def _lines(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the process prints, as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request), encoding="utf-8")
        complaints = Path(folder) / "stderr"
        with complaints.open("w", encoding="utf-8") as stderr:
            command = (sys.executable, SAFE, "-m", "bench.rehearsal.worker", str(path))
            # No GPU is touched, also where there is one: the pretended device would ask it for its properties.
            environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith("{"):
                        yield json.loads(line)
                code = process.wait()
            finally:
                process.kill()
                process.wait()
        if code:
            last = complaints.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise BenchError(f"the process that rehearses ended with status {code}: {''.join(last)[:300]}")
