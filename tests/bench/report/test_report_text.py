"""What a stranger's names may do in a spreadsheet or a terminal: nothing."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from fake_run import FakeRun

from bench.records.schema import MetricRecord
from bench.report import render_report
from bench.report.text import Grid, cell, digits, percent, whole_percent
from bench.tune.objective import Scored
from bench.tune.trials import Trial, trials_csv


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\\t=1"),
        ("\r=1", "'\\r=1"),
        ("-0.25", "-0.25"),
        ("+1e-3", "+1e-3"),
        (-0.25, "-0.25"),
        ("", ""),
        ("sft", "sft"),
        ("–", "–"),
        ("\x1b[31m", "\\x1b[31m"),
    ],
)
def test_no_cell_is_a_formula_and_numbers_stay_numbers(value, written):
    assert cell(value) == written
    assert next(csv.reader(io.StringIO(Grid([str(value)], []).csv()))) == [cell(str(value))] or value == ""


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (2 / 3, "0.6666667"), (0.1 + 0.2, "0.3"), (-1234.56789, "-1234.568"), (4.03e12, "4030000000000.0"),
        (5.6e-17, "0.0"), (-5.6e-17, "0.0"), (0.0, "0.0"), (-0.0, "0.0"), (3e-9, "3e-09"), (float("nan"), "nan"),
    ],
)  # fmt: skip
def test_numbers_end_before_the_places_that_depend_on_the_cpu(value, written):
    assert digits(value) == written == digits(value * (1 + 3e-16))


def test_trials_hold_no_formula():
    text = trials_csv([Trial("=1+1", 0, {"lr": -0.5}, (), Scored(None, {}, {}, "@SUM(A1)"))])
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[2] == ["'=1+1", "0", "-0.5", "", "'@SUM(A1)"]


def test_a_report_shows_escape_sequences_and_obeys_none(tmp_path):
    run = FakeRun(tmp_path / "run", per_group=1, repeats=1, signs=1)
    run.base()
    run.evaluated("mine", "=\x1b[31mMine\x07\u202e", 0.1, kind="images", source="x")
    written = render_report([run.folder], tmp_path / "out")
    texts = {path.name: path.read_text() for path in written if path.suffix != ".png"}
    assert not [name for name, text in texts.items() if any(mark in text for mark in ("\x1b", "\x07", "\u202e"))]
    assert r"\x1b[31mMine\x07\u202e" in texts["main_results.md"]
    assert r"'=\x1b[31mMine" in texts["main_results.csv"]


def test_a_half_is_rounded_alike_on_every_cpu() -> None:
    """A library of matrix products leaves a share of 10 in 80 a hair beside 0.125, above it here and below it there."""
    about: dict[str, Any] = dict(name="m", label="M", version=1, low=0, high=1, format=".2f", prompt_set="p")
    column = MetricRecord(**about, images=1, grouped=False, higher_is_better=True)
    for beside in (0.125 - 3e-17, 0.125, 0.125 + 3e-17):
        assert (whole_percent(beside), percent(beside / 100), column.text(beside)) == ("12", "0.1 %", "0.12")
