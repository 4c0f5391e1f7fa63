"""Asks for rehearsals: a process of its own does them, and what it finds is stored in the cache.

Equal questions have equal answers, so a file in ``cache/rehearsal/`` is named after its question: a row with its
configuration, that of the model, the setting, versions of packages and the code of the project. A row is stored when it
is done, so a command that was stopped goes on with the next one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cache as once
from pathlib import Path
from typing import Any, Literal, get_args

from bench import assets, records, registry
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig
from bench.launch.bound import bound
from bench.launch.command import SAFE
from bench.machine.versions import versions
from bench.plan.estimates import GPUS, Assumptions
from bench.plan.work import Work
from bench.rehearsal import answers
from bench.rehearsal.fit import needed
from bench.rehearsal.results import Rehearsal, Setting, from_json, setting_of

Report = Callable[[Rehearsal], None]
Grid = Literal["", "own", "all"]
"""Which forwards and backwards are rehearsed beside a stage, for ``fit``: none; under the experiment's own setting;
with and without checkpointing and sharding."""


def rehearsed(
    config: ExperimentConfig, setting: Setting, cache: Path, *, grid: Grid, report: Report = lambda rehearsal: None
) -> list[Rehearsal]:
    """Rehearsals of an experiment's stages, row by row, from the cache or done now.

    Args:
        grid: also what forwards and backwards take by row, which ``fit`` needs.
        report: called with each that is done now.

    Raises:
        BenchError: no rehearsal runs on this machine, or nothing can be rehearsed of this.
    """
    shared = _shared(config, setting, cache)
    places = {row: _place(config, shared, cache, row, grid=grid) for row in config.methods}
    found = {row: _cached(path) for row, path in places.items()}
    if lacking := tuple(row for row, cached in found.items() if cached is None):
        if reason := answers.why_not():
            raise BenchError(reason)
        request = {
            "library": str(answers.library(cache).absolute()),
            "config": config.model_copy(update={"methods": lacking}).model_dump(mode="json"),
            "setting": asdict(setting),
            "cache": str(cache.absolute()),
            "grid": grid,
        }
        made: list[Rehearsal] = []
        for line in _lines(request):
            if "error" in line:
                raise BenchError(line["error"])
            if "done" in line:
                row = line["done"]
                _keep(places[row], made)
                found[row], made = made, []
                continue
            made.append(from_json(line))
            report(made[-1])
    return [rehearsal for row in config.methods for rehearsal in found[row] or ()]


def memory_of(config: ExperimentConfig, gpus: int | None, cache: Path) -> dict[str, int]:
    """Bytes that one GPU must have, of each row that was rehearsed under this configuration. Starts nothing."""
    shared, most = _shared(config, setting_of(config, gpus or GPUS), cache), dict[str, int]()
    for row in config.methods:
        kept = (_cached(_place(config, shared, cache, row, grid=grid)) for grid in get_args(Grid))
        found = next((each for each in kept if each is not None), [])
        if peaks := [each.peak for each in found if not each.short]:
            most[row] = needed(max(peaks))
    return most


def _cached(path: Path) -> list[Rehearsal] | None:
    if not path.exists():
        return None
    try:
        return [from_json(each) for each in records.read_json(path)]
    except (BenchError, KeyError, TypeError, ValueError):  # of another release, or damaged
        return None


def _keep(path: Path, made: list[Rehearsal]) -> None:
    if not any(rehearsal.problem for rehearsal in made):  # what failed is looked at again
        records.write_json(path, [asdict(rehearsal) for rehearsal in made])


def _shared(config: ExperimentConfig, setting: Setting, cache: Path) -> list[Any]:
    """What the questions of all rows have in common."""
    work, packages = Work(config, cache, Assumptions()), versions()
    return [
        asdict(replace(work.architecture, name="", folder=None, why_absent="")),
        any(work.ahead(subset) for subset in config.subsets),
        config.model_dump(mode="json", exclude=_NOTHING_TO_DO_WITH_MEMORY | _OF_ROWS),
        asdict(setting),
        [packages[name] for name in ("torch", "diffusers", "transformers", "peft")],
        _code(),
        [_text(path) for path in config.plugins],
        [name for name in assets.TABLE if assets.here(name, cache)],  # rewards whose models can be rehearsed
    ]


def _place(config: ExperimentConfig, shared: list[Any], cache: Path, row: str, *, grid: Grid) -> Path:
    stages = [(name, config.method_of(name)) for name in config.stages_of(row)]
    question = [
        *shared,
        [row, config.micro_batches.get(row)],
        [[name, method, config.overrides_of(name), _source(method)] for name, method in stages],
        grid,
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

_OF_ROWS = {"methods", "method", "variant", "pipeline", "tuned", "micro_batches"}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


@once
def _source(method: str) -> str:
    """The file of a registered method, or its place where no file is found: ``config.plugins`` names that one."""
    place = registry.table("methods").get(method, "")
    file = registry.find(place.partition(":")[0]) if place else None
    return _text(str(file)) if file else place


def _code() -> str:
    """A digest of the code that is rehearsed: the project's own."""
    root = Path(__file__).parents[2]
    folders = (root / "bench", root / "methods", root / "benchmarks")
    return records.digest([_text(str(path)) for folder in folders for path in sorted(folder.rglob("*.py"))])


def _lines(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the process prints, as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request), encoding="utf-8")
        complaints = Path(folder) / "stderr"
        with complaints.open("w", encoding="utf-8") as stderr:
            command = bound((sys.executable, SAFE, "-m", "bench.rehearsal.worker", str(path)))
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
