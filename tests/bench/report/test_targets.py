"""The budget at which a curve reaches a target, worked out by hand."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from bench.report import targets
from bench.report.plots import dynamics
from bench.report.published.compare import Comparison, Pair, Value
from bench.report.published.data import PublishedRow
from bench.report.study import read_study
from bench.report.tables import main_sections
from bench.report.text import digits

RISING = [(0.0, 0.2), (0.25, 0.4), (0.5, 0.3), (1.0, 0.8)]


@pytest.mark.parametrize(
    ("value", "met"),
    [
        (0.3, (0.125, 0.0, 0.25)),  # half way from 0.2 to 0.4
        (0.4, (0.25, 0.0, 0.25)),  # at an evaluation
        (0.55, (0.75, 0.5, 1.0)),  # half way from 0.3 to 0.8, after a fall
        (0.1, (0.0, 0.0, 0.0)),  # the base is as good
        (0.81, None),
    ],
)
def test_the_first_crossing_lies_on_the_line_between_two_evaluations(value: float, met: tuple[float, ...]) -> None:
    for sign in (1, -1):  # where lower is better, the curve stands on its head
        found = targets.crossing([(share, sign * mean) for share, mean in RISING], sign * value, sign > 0)
        assert (found and (found.share, found.after, found.before)) == (met and pytest.approx(met))


def test_rows_are_held_against_the_final_score_of_the_reference_row(ranked: Any) -> None:
    ranked.job("delta", 0.1, fractions=[0.333, 1.0])
    ranked.job("poor", -0.1)
    study = read_study([ranked.folder])
    lines = dynamics(study)
    found = targets.targets(study, lines, None)
    assert {r.target for r in found} == {"final score of alpha"} and len(found) == 5 * 4
    rows = {
        (row["method"], row["metric"]): row for row in csv.DictReader(io.StringIO(targets.targets_csv(study, found)))
    }
    own = rows["alpha", "clip"]
    assert own["value"] == digits(lines["pretty", "alpha", "clip"][-1].cell.estimate.mean)
    assert (own["reached"], float(own["share_of_budget"])) == ("1", pytest.approx(0.998))
    beta = rows["beta_long", "clip"]
    assert 0 == float(beta["after_share"]) < float(beta["share_of_budget"]) < float(beta["before_share"]) < 0.4
    assert float(beta["flops"]) == pytest.approx(float(beta["share_of_budget"]) * 1e12)
    assert (rows["poor", "clip"]["reached"], rows["poor", "clip"]["share_of_budget"]) == ("0", "")
    assert rows["delta", "clip"]["reached"] == ""  # an evaluation is missing
    text = targets.targets_markdown(study, found)
    assert "not reached" in text and "| delta | – | – | – | – |" in text


def test_a_published_score_is_a_target_of_the_rows_of_its_subset(run: Any) -> None:
    study = read_study([run.folder])
    [section] = main_sections(study)
    row = section.rows[1]
    [cell] = [c for c in row.cells if c.metric.name == "clip"]
    published = PublishedRow("Table 2", "SFT", row.method, "pretty", None, None, {"clip": "0.99"})
    comparison = Comparison("", [Pair(row, published, [Value(cell, "0.99")], ())], [])
    found = [r for r in targets.targets(study, dynamics(study), comparison) if r.target == "SFT, Table 2"]
    assert {(r.metric.name, r.value, r.subset) for r in found} == {("clip", 0.99, "pretty")}
    assert [r.method for r in found] == study.methods


def test_of_a_part_of_the_prompts_a_target_says_of_how_many_it_is(make_run: Any) -> None:
    """Curves of a tenth of the prompts were held against what looked like the score of the main table."""
    run = make_run()
    run.draw_a_part(2)
    for method, gain in (("alpha", 0.05), ("beta", 0.15)):
        run.job(method, gain)
    study = read_study([run.folder])
    curves = study.of_every_evaluation()
    [section] = main_sections(study)
    [cell] = [c for c in section.rows[1].cells if c.metric.name == "clip"]
    published = PublishedRow("Table 2", "SFT", "alpha", "pretty", None, None, {"clip": "0.99"})
    comparison = Comparison("", [Pair(section.rows[1], published, [Value(cell, "0.99")], ())], [])
    found = targets.targets(curves, dynamics(curves), comparison)
    assert {r.target for r in found} == {"final score of alpha on the 15 prompts of every evaluation"}
    assert {r.value for r in found if r.metric.name == "clip"} != {cell.cell.estimate.mean}
    assert targets.PART in targets.targets_markdown(curves, found)
    whole = targets.targets(study, dynamics(study), comparison)
    assert targets.PART not in targets.targets_markdown(study, whole)
