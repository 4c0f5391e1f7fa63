"""What a step of each method costs beside another method's, as a run measured it.

``costs.json`` beside this file holds the figures of one run; ``perf/cost_per_step.py`` writes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from bench import records
from bench.errors import BenchError, unknown

PATH = Path(__file__).with_name("costs.json")
FIGURES: dict[str, Callable[[list[float]], float]] = {
    "flops_per_step": fmean,
    "flops_per_update": fmean,
    "seconds_per_step": min,
}
"""Training FLOPs and device-seconds without evaluations, and the statistic over several jobs."""


def measure(run: Path, reference: str, machine: str) -> dict[str, Any]:
    """The figures of every method and variant of a run, over its finished jobs, and relative to ``reference``.

    FLOPs are means. Seconds are those of the fastest job: whatever else a machine does can only slow a job down.
    Pipelines are left out: a step of theirs is one of several methods'.

    Args:
        run: its folder.
        reference: method of the run that the others are held against.
        machine: where it ran, in words.

    Raises:
        BenchError: no finished job of the reference, or a record that is damaged.
    """
    experiment = records.read_json(run / "experiment.json")
    jobs_of: dict[str, list[dict[str, float]]] = defaultdict(list)
    commits: set[str] = set()
    for name in experiment["jobs"]:
        folder = run / name
        if not (folder / "status.json").exists() or records.read_json(folder / "status.json")["status"] != "finished":
            continue
        job = records.read_json(folder / "job.json")
        if job.get("stages") is None:
            jobs_of[job["method"]].append(_figures(folder))
            commits.add(f"{job['git']['commit'] or 'unknown'}{' with changes' if job['git']['dirty'] else ''}")
    if reference not in jobs_of:
        raise unknown(f"finished method in {run}", reference, jobs_of)
    methods = {name: {"jobs": len(jobs)} | _over(jobs) for name, jobs in jobs_of.items()}
    base = methods[reference]
    for figures in methods.values():
        figures["relative"] = {key: figures[key] / base[key] for key in FIGURES}
    return {
        "v": records.VERSION,
        "run": experiment["name"],
        "backbone": experiment["backbone"],
        "commits": sorted(commits),
        "machine": machine,
        "reference": reference,
        "methods": methods,
    }


def read() -> Mapping[str, Any] | None:
    """The figures that are kept; None where there are none."""
    return records.read_json(PATH) if PATH.exists() else None


def _figures(job: Path) -> dict[str, float]:
    """Of one job, over all of its steps."""
    last = {name: list(records.read_lines(job / f"{name}.jsonl"))[-1:] for name in ("meter", "clock")}
    if not (last["meter"] and last["clock"]):
        raise BenchError(f"{job} is finished and lacks meter.jsonl or clock.jsonl; delete it and run again")
    (meter,), (clock,) = last["meter"], last["clock"]
    return {
        "flops_per_step": meter["flops"] / meter["step"],
        "flops_per_update": meter["flops"] / meter["updates"],
        "seconds_per_step": clock["seconds"] / clock["step"],
    }


def _over(jobs: list[dict[str, float]]) -> dict[str, Any]:
    return {key: of([job[key] for job in jobs]) for key, of in FIGURES.items()}
