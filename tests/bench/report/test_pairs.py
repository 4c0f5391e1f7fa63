"""A report's differences are those of the main table and of differences.csv."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from bench.report import differences
from bench.report.pairs import pairs
from bench.report.study import read_study
from bench.report.tables import main_sections


def test_a_pair_is_what_the_tables_say(ranked: Any) -> None:
    study = read_study([ranked.folder])
    (section,) = main_sections(study)
    found, place = pairs(section), {row.method: i for i, row in enumerate(section.rows)}
    for row in section.rows[1:]:
        there, back = found[place[row.method], 0], found[0, place[row.method]]
        assert there == [c.to_base for c in row.cells]
        assert [(d.mean, d.low, d.high) for d in back if d] == [(-d.mean, -d.high, -d.low) for d in there if d]
    metrics = [metric.name for metric in study.metrics]
    for line in csv.DictReader(io.StringIO(differences.csv(study, [section], [found]))):
        of_metrics = found[place[line["method"]], place[line["minus"]]]
        difference = of_metrics[metrics.index(line["metric"])]
        numbers = [float(line[name]) for name in ("difference", "low", "high")]
        assert difference is not None
        assert [difference.mean, difference.low, difference.high] == pytest.approx(numbers)


def test_a_missing_estimate_has_no_pair(make_run: Any) -> None:
    run = make_run("begun")
    run.job("alpha", 0.1)
    run.job("beta", 0.1, fractions=[])
    (section,) = main_sections(read_study([run.folder]))
    found, (base, alpha, beta) = pairs(section), range(3)
    for pair in ((beta, alpha), (alpha, beta), (beta, base), (base, beta)):
        assert set(found[pair]) == {None}
    assert None not in found[alpha, base]
