"""What the page's charts are drawn from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from bench.report import plots
from bench.report.page.payload import payload
from bench.report.pairs import pairs
from bench.report.study import read_study
from bench.report.tables import main_sections


def test_rows_beside_a_curve_are_as_uncertain_as_the_base_on_the_same_part(make_run: Callable[..., Any]) -> None:
    run = make_run()
    run.draw_a_part(2)
    run.job("alpha", 0.1)
    other = run.context("twin", "Twin", 0.0)
    of_base, of_twin = (run.folder / name / "evaluations/0/samples.jsonl" for name in ("base", other))
    shutil.copyfile(of_base, of_twin)
    study = read_study([run.folder])
    sections, lines = main_sections(study), plots.dynamics(study.of_every_evaluation())
    (subset,) = payload(study, sections, [pairs(section) for section in sections], lines, [], {})["subsets"]
    names = [row["name"] for row in subset["rows"]]
    starts = {name: [of[0] for of in of_row] for name, of_row in zip(names, subset["dynamics"]["values"], strict=True)}
    assert starts["Twin"] == starts["base"] and all(low < mean < high for mean, low, high in starts["base"])
