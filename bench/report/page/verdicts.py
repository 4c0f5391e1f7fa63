"""Which questions a report answers, and how surely: a sentence for each pair of rows, and a leader for each metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.records.schema import MetricRecord
from bench.report.intervals import Interval, smallest
from bench.report.pairs import Pairs, turned
from bench.report.stats import Difference, Estimate, against
from bench.report.study import Study
from bench.report.tables import MainCell, MainRow, Section, competes, difference_text, interval_text
from bench.report.text import duration, listed, scientific

Badge = Literal["clear", "level", "unknown"]
"""``clear``: the interval excludes zero. ``level``: it does not. ``unknown``: nothing can be said or ranked."""

ORDER: tuple[Badge, ...] = ("clear", "level", "unknown")

AMOUNTS = {"flops": "FLOPs", "updates": "updates", "steps": "steps", "device-seconds": "seconds"}
"""What rows have equal, by the budget's currency."""

ONE_SEED = "with one seed it is unknown how much another training would differ"
"""Why a row is not ranked whose seed variance nothing tells."""


@dataclass(frozen=True)
class Verdict:
    """One metric of two rows. ``text`` is a clause that begins with the metric's label; ``sign`` +1 is better."""

    metric: MetricRecord
    badge: Badge
    word: str
    text: str
    sign: int = 0


@dataclass(frozen=True)
class Question:
    """Two rows, judged by the subset's target first. ``others`` sums up the other ranked metrics."""

    row: str
    against: str
    condition: str
    target: Verdict
    others: str
    cost: str

    @property
    def text(self) -> str:
        """The answer in one or two sentences."""
        return f"{self.row} against {self.against}{self.condition}: {self.target.text}.{self.others}"


@dataclass(frozen=True)
class Lead:
    """Which row leads a metric, and whether it is told from all others.

    ``rival`` is the next row, or the first one that the leader is not told apart from; empty where nobody leads.
    """

    metric: MetricRecord
    row: str
    badge: Badge
    word: str
    text: str
    rival: str = ""


def target(study: Study, section: Section) -> MetricRecord:
    """The metric that a subset's verdicts begin with.

    It is the reward that jobs on the subset had, because the subset was cut by it. Where no job had one, it is the
    ranked metric of several tasks, and else the first ranked one.
    """
    rewards = {job.record.reward for job in study.jobs if job.subset == section.subset and job.record}
    ranked = [metric for metric in study.metrics if metric.ranked] or study.metrics
    named = [metric for metric in ranked if metric.name in rewards]
    return next(iter([*named, *(metric for metric in ranked if metric.grouped), *ranked]))


def compared(study: Study, section: Section) -> list[MainRow]:
    """The rows that questions are about: those that compete, and the base."""
    return [row for row in section.rows if _compares(study, row)]


def _compares(study: Study, row: MainRow) -> bool:
    return row.kind in (("base", "method") if study.jobs else ("base", "evaluated"))


def reference(study: Study, section: Section) -> str:
    """The row that others are held against unless the reader chooses: the first method, else the base."""
    rows = compared(study, section)
    return next((row.method for row in rows if row.kind == "method"), rows[0].method if rows else "")


def questions(study: Study, section: Section, paired: Pairs) -> list[Question]:
    """Every row against every other one, what is clear first.

    Args:
        paired: the section's ``pairs``.
    """
    first = target(study, section)
    rows = [(i, row) for i, row in enumerate(section.rows) if _compares(study, row)]
    asked = [_question(study, first, one, other, paired[i, j]) for j, other in rows for i, one in rows if i != j]
    return sorted(asked, key=lambda question: ORDER.index(question.target.badge))


def leads(study: Study, section: Section) -> list[Lead]:
    """For each ranked metric, who leads among rows that compete; the target first."""
    first = target(study, section)
    metrics = [metric for metric in study.metrics if metric.ranked]
    return [_lead(study, section, metric) for metric in sorted(metrics, key=lambda metric: metric.name != first.name)]


def within(interval: Interval) -> float:
    """The largest difference that an interval still holds, in either direction."""
    return max(abs(interval.low), abs(interval.high))


def could_have_seen(found: Difference) -> float:
    """The smallest difference that intervals of this family tell from none, with the power of ``intervals.POWER``."""
    return smallest(found.variance, error=found.error)


def _question(
    study: Study, first: MetricRecord, one: MainRow, other: MainRow, found: Sequence[Difference | None]
) -> Question:
    verdicts = [_verdict(*of_metric) for of_metric in zip(one.cells, other.cells, found, strict=True)]
    led = next(verdict for verdict in verdicts if verdict.metric.name == first.name)
    rest = [verdict for verdict in verdicts if verdict.metric.ranked and verdict is not led]
    return Question(one.method, other.method, _condition(study, one, other), led, _others(rest), _cost(study, one))


def _verdict(one: MainCell, other: MainCell, interval: Difference | None) -> Verdict:
    metric = one.metric
    if interval is None:
        gap = one.cell.gap if one.cell.estimate is None else other.cell.gap
        return Verdict(metric, "unknown", "unknown", f"{metric.label} unknown, {gap}")
    told = difference_text(metric, interval)
    if not metric.ranked:
        return Verdict(metric, "unknown", "not ranked", f"{metric.label} {told}, neither direction is better")
    if one.trained_on or other.trained_on:
        return Verdict(metric, "unknown", "trained on it", f"{metric.label} {told}, but a row was trained on it †")
    if not (one.judged and other.judged):
        return Verdict(metric, "unknown", "one seed", f"{metric.label} {told}, but {ONE_SEED}")
    if not interval.excludes_zero:
        seen = metric.text(could_have_seen(interval))
        return Verdict(
            metric,
            "level",
            f"level within ±{metric.text(within(interval))}",
            f"{metric.label} not told apart, {told}; what this run could have seen is {seen}",
        )
    better = (interval.mean > 0) == metric.higher_is_better
    return Verdict(
        metric, "clear", "clear", f"{metric.label} {'better' if better else 'worse'}, {told}", 2 * better - 1
    )


def _others(verdicts: Sequence[Verdict]) -> str:
    parts = [
        ("Better on", [v for v in verdicts if v.sign > 0]),
        ("Worse on", [v for v in verdicts if v.sign < 0]),
        ("Not told apart on", [v for v in verdicts if v.badge == "level"]),
        ("Unknown on", [v for v in verdicts if v.badge == "unknown"]),
    ]
    return "".join(f" {text} {listed([v.metric.label for v in found])}." for text, found in parts if found)


def _condition(study: Study, one: MainRow, other: MainRow) -> str:
    if one.kind != "method" or other.kind != "method":
        return ""
    if one.short or other.short:
        return ", not at equal compute ‡"
    return f" at equal {AMOUNTS[study.budget.currency]}"


def _cost(study: Study, row: MainRow) -> str:
    spent = [job.spent for job in study.jobs if (job.method, job.subset) == (row.method, row.subset)]
    if row.kind != "method" or not spent:
        return "not trained here"
    flops, seconds = (sum(values) / len(spent) for values in ([m.flops for m in spent], [m.seconds for m in spent]))
    seeds = f"{row.seeds} seed{'s' if row.seeds > 1 else ''}"
    time = f" and {duration(seconds)}" if all(meter.seconds for meter in spent) else ""
    return f"{seeds}, {scientific(flops)} FLOPs{time} each"


def _lead(study: Study, section: Section, metric: MetricRecord) -> Lead:
    rows = compared(study, section)
    eligible = [*_eligible(rows, metric)]
    if lacking := [row.method for row, cell in _rivals(rows, metric) if cell.cell.estimate is None]:
        have = "has" if len(lacking) == 1 else "have"
        return Lead(metric, "–", "unknown", "unknown", f"{listed(lacking)} {have} no score in {metric.label}")
    if len(eligible) < 2:
        cells = [cell for row in rows for cell in row.cells if cell.metric.name == metric.name and cell.cell.estimate]
        reason = "fewer than two rows can be ranked" if all(cell.judged for cell in cells) else ONE_SEED
        return Lead(metric, "–", "unknown", "unknown", reason)
    sign = 1 if metric.higher_is_better else -1
    (row, best, first), *others = sorted(eligible, key=lambda found: -sign * found[2].mean)
    # The family of all others minus the leader, by which the main table says who is the best.
    differences = [turned(found) for found in against(first, [estimate for _, _, estimate in others])]
    apart = [found.excludes_zero for found in differences]
    at = 0 if best or all(apart) else apart.index(False)
    rival, interval = others[at][0].method, differences[at]
    value = f"{metric.text(first.mean)} {interval_text(metric, first)}"
    ahead = f"{value}, minus {rival}: {difference_text(metric, interval)}"
    if best:
        return Lead(metric, row.method, "clear", "clear", ahead, rival)
    return Lead(metric, row.method, "level", f"level within ±{metric.text(within(interval))}", ahead, rival)


def _eligible(rows: Sequence[MainRow], metric: MetricRecord) -> Iterator[tuple[MainRow, bool, Estimate]]:
    """Rows that the main table may mark as the best, whether it does, and their estimates."""
    for row, cell in _rivals(rows, metric):
        if cell.cell.estimate is not None:
            yield row, cell.best, cell.cell.estimate


def _rivals(rows: Sequence[MainRow], metric: MetricRecord) -> Iterator[tuple[MainRow, MainCell]]:
    """The same with their cells, those without an estimate too."""
    for row in rows:
        yield from ((row, c) for c in row.cells if c.metric.name == metric.name and competes(row, c))


def headline(found: Sequence[Lead]) -> str:
    """What a reader is to know first of a subset, of its ``leads``."""
    if not found:
        return "Nothing here is ranked."
    first, *others = found
    if all(lead.badge == "unknown" for lead in found):
        return f"No winner can be named: {first.text}."
    told = {
        "clear": f"{first.row} is the clear best on {first.metric.label}",
        "level": f"{first.row} leads {first.metric.label}, not told apart from {first.rival}",
        "unknown": f"No winner can be named on {first.metric.label}",
    }[first.badge]
    clear = [f"{lead.row} on {lead.metric.label}" for lead in others if lead.badge == "clear"]
    if not others:
        return f"{told}."
    return f"{told}. Clear best elsewhere: {listed(clear) or f'none, on {len(others)} other metrics'}."
