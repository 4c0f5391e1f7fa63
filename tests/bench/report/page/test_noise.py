"""The page's section on noise: what could be seen, where scores vary, and groups of seeds of one method."""

from __future__ import annotations

from typing import Any

from bench.report import differences
from bench.report.page.noise import noise
from bench.report.pairs import pairs
from bench.report.study import read_study
from bench.report.tables import main_sections


def test_noise_says_what_could_be_seen_and_where_scores_vary(ranked: Any) -> None:
    study = read_study([ranked.folder])
    sections = main_sections(study)
    made = noise(study, sections, None)
    assert made.notes[0].startswith("What this run could have seen")
    [(title, grid)] = made.grids  # two seeds make no two groups
    assert title.startswith("Where scores vary") and {row[0] for row in grid.rows} >= {"GenEval", "Aesthetic"}
    for seed in (2, 3):
        ranked.job("alpha", 0.05, seed=seed)
    study = read_study([ranked.folder])
    sections = main_sections(study)
    differing = differences.differences(study, sections, [*map(pairs, sections)])
    [(title, grid), _] = noise(study, sections, differing).grids
    assert title.startswith("A/A") and all(int(row[2]) == 3 for row in grid.rows)  # four seeds, in three pairs of pairs
