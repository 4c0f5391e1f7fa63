"""How methods differ from each other: paired, on the same prompts and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.report.pairs import Pairs
from bench.report.same_method import Rate
from bench.report.stats import Difference
from bench.report.study import Study
from bench.report.tables import MainCell, MainRow, Section, bounds, difference_text, head, verdict
from bench.report.text import Grid, listed


@dataclass(frozen=True)
class Differences:
    """What a report says of how methods differ.

    Attributes:
        grids: for each subset, every method minus the first one: a row for each, a column for each metric.
        notes: how to read them, how many there are, and what the seeds of one method say of luck.
    """

    grids: list[tuple[str, Grid]]
    notes: list[str]


def differences(
    study: Study, sections: Sequence[Section], paired: Sequence[Pairs], rates: Mapping[str, Rate]
) -> Differences | None:
    """None with fewer than two methods. ▲ better, ▼ worse where the interval excludes zero; † and ‡ as in the tables.

    A difference that one of these marks is neither better nor worse, nor is one to a row of one seed.

    Args:
        paired: the ``pairs`` of each section.
        rates: by metric's label, how often groups of seeds of one method are told apart.
    """
    grids = [
        (section.subset, _grid(study, section, found))
        for section, found in zip(sections, paired, strict=True)
        if len(_methods(section)) > 1
    ]
    if not grids:
        return None
    return Differences(grids, _notes(study, sections, rates))


def _grid(study: Study, section: Section, paired: Pairs) -> Grid:
    (j, first), *others = _placed(section)
    headers = [f"Minus {_name(first)}", *(metric.heading for metric in study.metrics)]
    rows = [
        [_name(row), *(_text(row, first, *of) for of in zip(row.cells, first.cells, paired[i, j], strict=True))]
        for i, row in others
    ]
    return Grid(headers, rows)


def _name(row: MainRow) -> str:
    return f"{row.method} ‡" if row.short else row.method


def _notes(study: Study, sections: Sequence[Section], rates: Mapping[str, Rate]) -> list[str]:
    methods = [row for section in sections for row in _methods(section)]
    pairs = sum(len(list(combinations(_methods(section), 2))) for section in sections)
    marked = any(row.short or any(c.trained_on for c in row.cells) for row in methods)
    unknown = dict.fromkeys(row.name for row in methods if row.unknown)
    judged = any(sum(c.judged for c in column) > 1 for section in sections for column in _columns(section))
    return [
        "The paired difference of two methods on the same prompts and noise, with its 95 % interval for this prompt "
        "list" + ("; ▲ better, ▼ worse, where that interval excludes zero." if judged else "."),
        "A family is all methods minus one method, in one metric and subset. Its intervals hold together in 95 % of "
        "cases.",
        *([f"Seed variance unknown for {listed([*unknown])}, of one seed: no difference to it is called better or "
           "worse."] if unknown else []),
        f"differences.csv has {'the one pair' if pairs == 1 else f'all {pairs} pairs'} of methods, each in the family "
        "of its `minus`, and alone.",
        *(["A difference that † or ‡ marks is not called better or worse: a method was trained on the metric, or used "
           "less of the budget."] if marked else []),
        *_luck(rates),
    ]  # fmt: skip


def _luck(rates: Mapping[str, Rate]) -> list[str]:
    shares = [f"{label} {rate.verdicts} of {rate.comparisons}" for label, rate in rates.items() if rate.comparisons]
    if not shares:
        return []
    return [
        "Seeds of one method differ by luck alone. Two groups of them were compared as two methods are; so many of "
        f"these differences exclude zero: {', '.join(shares)}. One in twenty would by chance."
    ]


def markdown(study: Study, made: Differences) -> str:
    """The tables of every subset, with their notes."""
    parts = [f"## Subset: {subset}\n\n{grid.markdown()}\n" for subset, grid in made.grids]
    return "".join([head(study, "Differences"), *parts, *(f"- {note}\n" for note in made.notes)])


def csv(study: Study, sections: Sequence[Section], paired: Sequence[Pairs]) -> str:
    """Every pair of methods and every metric, in seven digits; empty where a cell is incomplete.

    ``low`` and ``high`` hold together with the family of all methods minus ``minus``; ``pairwise`` is of the pair alone
    and ``like`` of the family for prompts like these.
    """
    headers = ["subset", "method", "minus", "metric", "difference", "low", "high", "excludes_zero", "family"]
    headers += ["pairwise_low", "pairwise_high", "like_low", "like_high"]
    rows = []
    for section, found in zip(sections, paired, strict=True):
        for (j, earlier), (i, later) in combinations(_placed(section), 2):  # so that it says what the later one adds
            for metric, difference in zip(study.metrics, found[i, j], strict=True):
                rows.append([section.subset, later.method, earlier.method, metric.name, *_numbers(difference)])
    return Grid(headers, rows).csv()


def _numbers(found: Difference | None) -> list[str]:
    if found is None:
        return [""] * 9
    alone, like = found.pairwise, found.like
    first = [*bounds(found), str(int(found.excludes_zero)), str(found.family)]
    return [*first, *bounds(alone)[1:], *bounds(like)[1:]]


def _placed(section: Section) -> list[tuple[int, MainRow]]:
    """The methods, each with its place among all rows."""
    return [(place, row) for place, row in enumerate(section.rows) if row.kind == "method"]


def _methods(section: Section) -> list[MainRow]:
    return [row for _, row in _placed(section)]


def _columns(section: Section) -> list[tuple[MainCell, ...]]:
    return list(zip(*(row.cells for row in _methods(section)), strict=True))


def _text(row: MainRow, first: MainRow, one: MainCell, other: MainCell, found: Difference | None) -> str:
    mark = " †" if one.trained_on or other.trained_on else ""
    if found is None:
        return "–" + mark
    judged = one.judged and other.judged and not (mark or row.short or first.short)
    return f"{difference_text(one.metric, found)}{mark}{verdict(one.metric, found) if judged else ''}"
