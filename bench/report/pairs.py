"""Paired differences of every two rows, in the families of the report's tables.

A family is all rows of one kind minus one row, in one metric and subset: of the methods minus a method as in
``differences.csv``, of the methods minus the base as in the main table. The base minus a row is the latter, turned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.records import BASE
from bench.report.stats import Difference, Estimate, family
from bench.report.tables import Section

Pairs = Mapping[tuple[int, int], Sequence[Difference | None]]
"""``(i, j)``, places of rows in a section, to row i minus row j: one difference for each metric, None where an estimate
is missing."""


def pairs(section: Section) -> Pairs:
    """Of all rows of a section, at the end of their budgets."""
    columns = zip(*([c.cell.estimate for c in row.cells] for row in section.rows), strict=True)
    of_metrics = [_pairs([row.kind for row in section.rows], column) for column in columns]
    return {pair: [of[pair] for of in of_metrics] for pair in (of_metrics[0] if of_metrics else ())}


def turned(found: Difference) -> Difference:
    """The same difference from the other side."""
    return replace(found, mean=-found.mean, low=-found.high, high=-found.low)


def _pairs(kinds: Sequence[str], estimates: Sequence[Estimate | None]) -> dict[tuple[int, int], Difference | None]:
    made: dict[tuple[int, int], Difference | None] = {}
    for j, control in enumerate(estimates):
        for kind in dict.fromkeys(kinds):
            if kind == BASE:
                continue
            members = [i for i, other in enumerate(kinds) if other == kind and i != j]
            found = family(control, [estimates[i] for i in members])
            made |= {(i, j): difference for i, difference in zip(members, found, strict=True)}
    bases = [j for j, kind in enumerate(kinds) if kind == BASE]
    of_base = {(j, i): found and turned(found) for (i, j), found in made.items() if j in bases}
    return made | of_base
