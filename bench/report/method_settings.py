"""What each row was run with: every setting, and where the method came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.records.schema import JobRecord
from bench.report.study import Study
from bench.report.text import Grid, by_subset

NOTE = "Every setting as its jobs recorded it, whether a default, the embedded world's, tuned or given."


def settings(study: Study) -> Grid:
    """A row for each method: where it comes from, and its settings. A pipeline has its stages', and their split."""
    rows = []
    for method in study.methods:
        jobs = [job.record for job in study.jobs if job.method == method and job.record]
        cells = [by_subset((job.subset, cell(job)) for job in jobs) for cell in (_origin, _settings)]
        rows.append([method, *(cell or "–" for cell in cells)])
    return Grid(["Method", "Comes from", "Settings"], rows)


def _origin(job: JobRecord) -> str:
    origins = [stage["origin"] for stage in job.stages] if job.stages else [job.origin]
    return ", ".join(dict.fromkeys(map(_place, origins)))


def _place(origin: Any) -> str:
    if isinstance(origin, Mapping) and "file" in origin:
        return f"{origin['file']} (SHA-256 {origin['sha256'][:12]}…)"
    if isinstance(origin, Mapping):
        return f"{origin['package']} {origin['version']}"
    return str(origin or "–")


def _settings(job: JobRecord) -> str:
    if not job.stages:
        return spelled({job.method: job.config})
    parts = {f"{stage['name']} (to {100 * stage['end']:g} % of the budget)": stage["name"] for stage in job.stages}
    return spelled({title: job.config[name] for title, name in parts.items()})


def spelled(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """Settings as ``key value, …``: of one stage alone, or of several after their names."""
    texts = {name: ", ".join(f"{k} {_value(v)}" for k, v in config.items()) for name, config in stages.items()}
    return "; ".join(texts.values() if len(texts) == 1 else (f"{name}: {text}" for name, text in texts.items()))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
