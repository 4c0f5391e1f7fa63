"""What a run could have seen: the smallest difference of two rows that it would have told from none."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bench.report.intervals import POWER, smallest
from bench.report.stats import Estimate, against


def detectable(rows: Sequence[Estimate | None], power: float = POWER) -> float | None:
    """In the metric's unit, the median over the family of all rows minus the first.

    Rows whose seed variance is unknown do not count, and no difference in which nothing varies. Without any there is
    nothing to tell: None.
    """
    known = [row for row in rows if row is not None and row.judged]
    if len(known) < 2:
        return None
    found = [each for each in against(known[0], known[1:]) if each.variance.value > 0]
    return median(smallest(each.variance, power, each.error) for each in found) if found else None
