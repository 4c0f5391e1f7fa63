"""The page's section on noise: what could be seen, where scores vary, and groups of seeds of one method."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from bench.report.page.noise import noise
from bench.report.page.power_curve import power_curves
from bench.report.same_method import parted, rates
from bench.report.study import read_study
from bench.report.tables import main_sections


def test_noise_says_what_could_be_seen_and_where_scores_vary(ranked: Any) -> None:
    study = read_study([ranked.folder])
    sections = main_sections(study)
    curves = power_curves(study)
    made = noise(study, sections, rates(study, parted(study)), curves)
    assert made.notes[0].startswith("What this run could have seen")
    [(_, powers), (title, grid)] = made.grids  # two seeds make no two groups
    assert [row[0] for row in powers.rows] == [curve.metric.label for curve in curves]
    assert title.startswith("Where scores vary") and {row[0] for row in grid.rows} >= {"GenEval", "Aesthetic"}
    for seed in (2, 3):
        ranked.job("alpha", 0.05, seed=seed)
    study = read_study([ranked.folder])
    sections = main_sections(study)
    [(title, grid), _] = noise(study, sections, rates(study, parted(study)), []).grids
    assert title.startswith("A/A") and all(int(row[2]) == 3 for row in grid.rows)  # four seeds, in three pairs of pairs


def test_power_rises_with_the_difference_and_with_seeds_and_is_eighty_per_cent_where_it_is_said(ranked: Any) -> None:
    curves = power_curves(read_study([ranked.folder]))
    assert {curve.metric.name for curve in curves} >= {"geneval", "style"}
    for curve in curves:
        assert curve.powers[3][0] < 0.03 and curve.powers[3][12] == pytest.approx(0.8)  # the middle of 25 points
        assert all(one <= other for of in curve.powers.values() for one, other in pairwise(of))
        assert curve.powers[1][12] <= curve.powers[3][12] <= curve.powers[12][12]
        assert curve.seen[1] >= curve.seen[3] >= curve.seen[12]


def test_without_two_seeds_no_power_is_known(run: Any) -> None:
    assert power_curves(read_study([run.folder])) == []
