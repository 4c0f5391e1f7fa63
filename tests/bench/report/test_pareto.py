"""Pareto fronts of a few points, worked out by hand."""

from __future__ import annotations

import csv
import io
from typing import Any

from bench.report import pareto
from bench.report.stats import Interval
from bench.report.study import read_study
from bench.report.tables import main_sections


def place(row: str, x: float, y: float, half: float = 0.0, *, competes: bool = True) -> pareto.Place:
    return pareto.Place(row, "method", Interval(x, x - half, x + half), Interval(y, y - half, y + half), competes)


POINTS = (place("a", 1, 5), place("b", 3, 3), place("c", 2, 2), place("d", 5, 1), place("e", 3, 1))


def test_a_row_is_off_the_front_where_another_is_better_in_one_metric_and_no_worse_in_the_other() -> None:
    found = {p.row: p for p in pareto.front(POINTS, True, True)}
    assert {name: p.beaten_by for name, p in found.items()} == {
        "a": (), "b": (), "c": ("b",), "d": (), "e": ("b", "d"),
    }  # fmt: skip
    assert [name for name, p in found.items() if p.on_front] == ["a", "b", "d"]


def test_lower_may_be_better() -> None:
    assert [p.row for p in pareto.front(POINTS, True, False) if p.on_front] == ["d"]
    assert [p.row for p in pareto.front(POINTS, False, False) if p.on_front] == ["a", "c", "e"]


def test_equal_rows_beat_neither() -> None:
    assert all(p.on_front for p in pareto.front((place("a", 1, 1), place("b", 1, 1)), True, True))


def test_a_row_that_takes_no_part_beats_none_and_is_on_no_front() -> None:
    hacked, fair = pareto.front((place("hacked", 9, 9, 9, competes=False), place("fair", 1, 1, 9)), True, True)
    assert (hacked.on_front, fair.on_front, fair.overlaps) == (False, True, ())
    assert hacked.overlaps == ("fair",)


def test_rows_whose_intervals_overlap_in_both_metrics_are_named() -> None:
    a, b, c = pareto.front((place("a", 1, 1, 0.6), place("b", 2, 2, 0.6), place("c", 2, 9, 0.6)), True, True)
    assert (a.overlaps, b.overlaps, c.overlaps) == (("b",), ("a",), ())


def test_a_report_has_a_front_for_every_two_ranked_metrics(ranked: Any) -> None:
    ranked.experiment["suite"]["metrics"][1]["ranked"] = False
    ranked.job("short", 0.9, share=0.5)
    study = read_study([ranked.folder])
    found = pareto.fronts(study, main_sections(study))
    assert [(f.x.name, f.y.name) for f in found] == [("geneval", "clip"), ("geneval", "style"), ("clip", "style")]
    rows = list(csv.DictReader(io.StringIO(pareto.pareto_csv(found))))
    on = {(row["metric_x"], row["metric_y"], row["method"]) for row in rows if row["on_front"] == "1"}
    assert on == {("geneval", "clip", "gamma"), ("geneval", "style", "beta_long"), ("clip", "style", "beta_long")}
    competes = {(row["metric_y"], row["method"]): row["competes"] for row in rows}
    assert (competes["clip", "gamma"], competes["style", "gamma"]) == ("1", "0")  # trained on style
    assert {competes["clip", "short"], competes["style", "short"]} == {"0"}
    assert "| GenEval and ClipScore | gamma |" in pareto.pareto_markdown(study, found)
