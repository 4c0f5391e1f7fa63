"""Budget to target: how much of its budget each row spends until it scores as well as a target.

Targets are data: the reference row's final score, and published scores where the suite has any. Curves are those of the
training dynamics, so every point of a curve and its target are of the same prompts: those that every evaluation drew. A
published score is of all prompts, so it is a target where curves are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from bench.records.schema import MetricRecord
from bench.report.plots import Curves
from bench.report.published.compare import Comparison
from bench.report.study import Study
from bench.report.tables import head
from bench.report.text import Grid, digits, markdown, percent


@dataclass(frozen=True)
class Crossing:
    """Where a curve first is as good as a target: at the ``share`` of the budget, between two evaluations' shares."""

    share: float
    after: float
    before: float


@dataclass(frozen=True)
class Reach:
    """How a row's curve meets a target: ``crossing`` is None where it does not.

    ``complete`` says that every evaluation of the curve is whole; without that there is no crossing.
    """

    subset: str
    target: str
    metric: MetricRecord
    value: float
    method: str
    seeds: int
    complete: bool
    crossing: Crossing | None


def targets(study: Study, curves: Curves, comparison: Comparison | None) -> list[Reach]:
    """Every row of each subset against every target of that subset, by ranked metric.

    Args:
        study: that the curves are of: narrowed to the prompts of every evaluation.
    """
    found = []
    part = f" on the {study.part} prompts of every evaluation" if study.part else ""
    for subset in study.subsets:
        rows = study.rows(subset)
        for metric in (metric for metric in study.metrics if metric.ranked):
            wanted = {} if study.part else _published(comparison, subset, metric)
            final = curves[subset, rows[0].method, metric.name][-1].cell.estimate
            if final is not None:
                wanted = {f"final score of {rows[0].method}{part}": final.mean} | wanted
            for name, value in wanted.items():
                for row in rows:
                    points = curves[subset, row.method, metric.name]
                    curve = [(p.share, p.cell.estimate.mean) for p in points if p.cell.estimate is not None]
                    complete = len(curve) == len(points)
                    met = crossing(curve, value, metric.higher_is_better) if complete else None
                    found.append(Reach(subset, name, metric, value, row.method, len(row.jobs), complete, met))
    return found


def _published(comparison: Comparison | None, subset: str, metric: MetricRecord) -> dict[str, float]:
    """Published scores of a metric, of the methods that ran on this subset."""
    return {
        f"{pair.published.name}, {pair.published.source}": float(value.published)
        for pair in (comparison.pairs if comparison else ())
        if pair.measured.kind == "method" and pair.measured.subset == subset
        for value in pair.values
        if value.published and value.measured.metric.name == metric.name
    }


def crossing(curve: Sequence[tuple[float, float]], value: float, higher_is_better: bool) -> Crossing | None:
    """The first crossing of a curve of (share, mean), on a straight line between two evaluations; None without one."""
    sign = 1 if higher_is_better else -1
    ahead = [(share, sign * (mean - value)) for share, mean in curve]
    if ahead and ahead[0][1] >= 0:
        return Crossing(ahead[0][0], ahead[0][0], ahead[0][0])
    for (earlier, below), (later, above) in pairwise(ahead):
        if above >= 0:
            return Crossing(earlier + (later - earlier) * below / (below - above), earlier, later)
    return None


NOTES = (
    "Each cell: the share of the budget at which the row's mean first is as good as the target, on a straight line "
    "between two evaluations. 0.0 % means that the base is as good already.",
    "These are point estimates. A curve that wavers can touch a target by chance; training_dynamics.csv has the "
    "intervals.",
    "– means that an evaluation of the row is not whole.",
)

PART = (
    "Curves and targets are of the prompts that every evaluation drew, a part of the suite. So a target is not the "
    "score of the main table, and means of so few prompts waver more."
)


def targets_markdown(study: Study, reaches: Sequence[Reach]) -> str:
    """A table for each subset and target: a row for each row, a column for each metric that has the target."""
    parts = []
    order = sorted(reaches, key=lambda r: (study.subsets.index(r.subset), r.target))
    for (subset, target), group in groupby(order, key=lambda r: (r.subset, r.target)):
        own = list(group)
        metrics = list({r.metric.name: r.metric for r in own}.values())
        cells = {(r.method, r.metric.name): r for r in own}
        values = {r.metric.name: r.value for r in own}
        headers = [f"{metric.label} {metric.text(values[metric.name])}" for metric in metrics]
        methods = dict.fromkeys(r.method for r in own)
        lines = [[method, *(_text(cells[method, metric.name]) for metric in metrics)] for method in methods]
        title = f"## Subset: {markdown(subset)}, target: {markdown(target)}\n\n"
        parts.append(f"{title}{Grid(['Method', *headers], lines).markdown()}\n")
    notes = [*NOTES, *([PART] if study.part else [])]
    return "".join([head(study, "Budget to target"), *parts, *(f"- {note}\n" for note in notes)])


def _text(reach: Reach) -> str:
    if not reach.complete:
        return "–"
    return percent(reach.crossing.share) if reach.crossing else "not reached"


def targets_csv(study: Study, reaches: Sequence[Reach]) -> str:
    """Every row, metric and target in seven digits. ``reached`` is empty where an evaluation is not whole."""
    headers = ["subset", "target", "metric", "value", "method", "seeds", "reached", "share_of_budget"]
    headers += [study.budget.currency, "after_share", "before_share"]
    lines = []
    for r in reaches:
        met = r.crossing
        reached = str(int(met is not None)) if r.complete else ""
        numbers = (met.share, met.share * study.budget.amount, met.after, met.before) if met else ()
        texts = [*map(digits, numbers)] or [""] * 4
        lines.append([r.subset, r.target, r.metric.name, digits(r.value), r.method, str(r.seeds), reached, *texts])
    return Grid(headers, lines).csv()
