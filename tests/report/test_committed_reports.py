"""Every report in ``reports/`` that has its records beside it redraws from them, to the last character."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report import render_report

REPORTS = Path(__file__).parents[2] / "reports"
RECORDS = sorted(REPORTS.glob("*/records.tar.xz"))
TEXT = {".md", ".csv", ".tex"}  # pictures, and the page that holds them, differ with the version of matplotlib


def texts(folder):
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in TEXT}


def test_the_default_comparison_has_its_records():
    assert REPORTS / "high_aesthetic" / "records.tar.xz" in RECORDS


@pytest.mark.parametrize("archive", RECORDS, ids=lambda path: path.parent.name)
def test_a_committed_report_redraws_from_its_records(archive, tmp_path):
    render_report([archive], tmp_path)
    drawn = texts(tmp_path)
    assert {"main_results.md", "differences.csv", "training_dynamics.csv", "compute.md"} <= drawn.keys()
    assert texts(archive.parent) == drawn
