"""Why cells have no mean, in a few lines: files that are missing, columns not scored yet, and scores that failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bench.report.stats import Cell
from bench.report.text import count, listed

MOST = 4
"""Lines on failures, and rows in one of them; what is beyond is counted."""

LONGEST = 240
"""Characters of a reason; an exception may hold pages."""


@dataclass
class _Failure:
    """The first reason of a metric's failed cells, with the rows where it comes first."""

    rows: dict[str, None] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)


def lines(cells: Iterable[tuple[str, str, Cell]]) -> list[str]:
    """Sentences on cells, each with the names of its row and its metric; each cause is told once."""
    remedies: dict[str, dict[str, None]] = {}
    unscored: dict[str, None] = {}
    failures: dict[tuple[str, str], _Failure] = {}
    for row, metric, cell in cells:
        if cell.remedy:
            remedies.setdefault(cell.remedy, {})[metric] = None
        if cell.unscored:
            unscored[metric] = None
        if cell.errors:
            reason, *others = cell.errors
            failure = failures.setdefault((metric, reason), _Failure())
            images = "image" if cell.total == 1 else "images"
            failure.rows[f"{count(sum(cell.errors.values()))} of {count(cell.total)} {images} of {row}"] = None
            failure.others |= set(others)
    sentences = [f"{listed([*metrics])} {_are(metrics)} missing: {remedy}" for remedy, metrics in remedies.items()]
    if unscored:
        it = "them" if len(unscored) > 1 else "it"
        sentences.append(
            f"{listed([*unscored])} {_are(unscored)} not scored yet, in whole or in part; `bench score RUN` fills {it}."
        )
    return sentences + _failed(failures)


def _failed(failures: Mapping[tuple[str, str], _Failure]) -> list[str]:
    """A line for each reason; metrics that failed on the same images of the same rows share one."""
    metrics: dict[str, list[str]] = {}
    for (metric, reason), failure in failures.items():
        metrics.setdefault(f"failed on {_bounded([*failure.rows])}: {_reason(reason, len(failure.others))}", []).append(
            metric
        )
    sentences = [f"{listed(names)} {what}" for what, names in metrics.items()]
    if len(sentences) > MOST:
        sentences[MOST:] = [f"Further failures, {len(sentences) - MOST} of them, stand in the runs' samples.jsonl."]
    return sentences


def _bounded(rows: list[str]) -> str:
    return listed(rows[:MOST] + ([f"{len(rows) - MOST} more rows"] if len(rows) > MOST else []))


def _reason(reason: str, others: int) -> str:
    short = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]}…"
    return f"{short} (and {others} other reason{'s' if others > 1 else ''})" if others else short


def _are(names: Mapping[str, None]) -> str:
    return "are" if len(names) > 1 else "is"
