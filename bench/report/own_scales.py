"""Each method at its own scale of guidance, which `bench tune` chose on validation prompts, and at the suite's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench.report.axis import GUIDANCE
from bench.report.guidance import Sweep, SweptModel
from bench.report.stats import Cell
from bench.report.study import Study
from bench.report.tables import bounds, head, interval_text
from bench.report.text import Grid, markdown


@dataclass(frozen=True)
class AtScale:
    """A method at one scale: ``cells`` by metric, None where the sweep did not draw it.

    Attributes:
        trials: settings that were tried for the method; every method had as many.
        own: whether it is the method's own scale; else it is the suite's.
    """

    subset: str
    method: str
    trials: int
    scale: float
    own: bool
    cells: Mapping[str, Cell] | None


def own_scales(study: Study, made: Sweep) -> list[AtScale]:
    """Two entries for each method with a tuned scale, or one where that is the suite's."""
    if made.axis.setting != GUIDANCE or made.axis.beside:
        return []
    found = []
    for model in made.models:
        method = next(iter(model.jobs.values()))[0].sweep.get("method")
        tuned = _tuned(study, method, model.subset)
        if method is None or "guidance_scale" not in tuned:
            continue
        own, suite = float(tuned["guidance_scale"]), float(made.axis.own)
        for scale in dict.fromkeys((suite, own)):
            cells = _cells(made, model, scale)
            found.append(AtScale(model.subset, method, tuned["trials"], scale, scale == own, cells))
    return found


def _tuned(study: Study, method: str | None, subset: str) -> Mapping[str, Any]:
    """How the settings of a method were chosen, as its jobs on a subset recorded it; empty where they were not."""
    for job in study.jobs:
        if (job.method, job.subset) == (method, subset) and job.record and job.record.tuned:
            return (job.record.tuned.get("rows") or {}).get(job.method, {})
    return {}


def _cells(made: Sweep, model: SweptModel, scale: float) -> Mapping[str, Cell] | None:
    if scale not in model.jobs:
        return None
    return {metric.name: model.cells[metric.name, scale].cell for metric in made.metrics}


def own_scales_markdown(study: Study, made: Sweep, rows: list[AtScale]) -> str:
    """A table for each subset: two lines for each method, a column for each metric."""
    parts = []
    for subset, group in groupby(rows, key=lambda row: row.subset):
        headers = ["Method", "Trials", "Guidance scale", *(metric.heading for metric in made.metrics)]
        lines = [[row.method, str(row.trials), _scale(made, row), *_texts(made, row)] for row in group]
        parts.append(f"## Subset: {markdown(subset)}\n\n{Grid(headers, lines).markdown()}\n")
    notes = (
        "Each method at the suite's scale and at its own, which was the best on validation prompts.\n"
        "Nothing is ranked here: rows of different scales spend alike in training and differ in sampling.\n"
        "A scale that was not drawn needs `bench evaluate RUN --guidance SCALES`."
    )
    return "".join([head(study, "Own guidance scales"), *parts, *(f"- {note}\n" for note in notes.splitlines())])


def _scale(made: Sweep, row: AtScale) -> str:
    which = ["its own"] * row.own + ["the suite's"] * (row.scale == made.axis.own)
    return f"{row.scale:g} ({' and '.join(which)})"


def _texts(made: Sweep, row: AtScale) -> list[str]:
    if row.cells is None:
        return ["not drawn"] * len(made.metrics)
    texts = []
    for metric in made.metrics:
        estimate = row.cells[metric.name].estimate
        known = estimate and f"{metric.text(estimate.mean)} {interval_text(metric, estimate)}"
        texts.append(known or row.cells[metric.name].gap)
    return texts


def own_scales_csv(made: Sweep, rows: list[AtScale]) -> str:
    """Every method, scale and metric in seven digits; empty where a scale was not drawn or not scored."""
    headers = ["subset", "method", "trials", "guidance_scale", "own", "of_the_suite", "metric", "mean", "low", "high"]
    lines = []
    for row in rows:
        for metric in made.metrics:
            about = [row.subset, row.method, str(row.trials), repr(row.scale), str(int(row.own))]
            about += [str(int(row.scale == made.axis.own)), metric.name]
            lines.append([*about, *bounds(row.cells[metric.name].estimate if row.cells else None)])
    return Grid(headers, lines).csv()
