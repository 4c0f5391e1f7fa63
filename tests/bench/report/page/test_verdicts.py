"""The sentences that a page begins with say what the intervals say, and no more."""

from __future__ import annotations

from typing import Any

from bench.report.page import verdicts
from bench.report.pairs import pairs
from bench.report.study import read_study
from bench.report.tables import main_sections


def asked(run: Any, row: str, against: str) -> verdicts.Question:
    study = read_study([run.folder])
    (section,) = main_sections(study)
    (found,) = [q for q in verdicts.questions(study, section, pairs(section)) if (q.row, q.against) == (row, against)]
    return found


def test_the_target_is_the_reward_of_the_subset_else_the_metric_of_tasks(run: Any, make_run: Any) -> None:
    study = read_study([run.folder])
    (section,) = main_sections(study)
    assert verdicts.target(study, section).name == "style"
    other = make_run("plain")
    other.job("alpha", 0.1)
    study = read_study([other.folder])
    assert verdicts.target(study, main_sections(study)[0]).name == "geneval"


def test_a_difference_beyond_its_interval_is_clear_in_both_directions(ranked: Any) -> None:
    there, back = asked(ranked, "beta_long", "alpha"), asked(ranked, "alpha", "beta_long")
    assert there.target.badge == back.target.badge == "clear"
    assert (there.target.sign, back.target.sign) == (1, -1)
    assert there.text.startswith("beta_long against alpha at equal FLOPs: Aesthetic better, +0.1")
    assert " Better on GenEval, OCR and ClipScore." in there.text and there.cost.startswith("2 seeds, 9.98e11 FLOPs")


def test_equal_rows_are_level_and_the_run_says_what_it_could_have_seen(ranked: Any) -> None:
    for seed in (0, 1):
        ranked.job("twin", 0.05, seed=seed)
    found = asked(ranked, "twin", "alpha").target
    assert found.badge == "level" and found.word.startswith("level within ±0.0")
    assert "not told apart" in found.text and "what this run could have seen is 0.0" in found.text


def test_a_row_that_was_trained_on_the_target_is_not_judged_by_it(ranked: Any) -> None:
    found = asked(ranked, "gamma", "alpha")
    assert (found.target.badge, found.target.word) == ("unknown", "trained on it")
    assert "Better on GenEval" in found.others


def test_one_seed_tells_nothing_and_less_compute_is_said(run: Any) -> None:
    found = asked(run, "gamma", "alpha")
    assert found.target.badge == "unknown" and ", not at equal compute ‡" in found.text
    assert asked(run, "beta_long", "alpha").target.word == "one seed"
    study = read_study([run.folder])
    found = verdicts.leads(study, main_sections(study)[0])
    assert verdicts.headline(found) == f"No winner can be named: {verdicts.ONE_SEED}."


def test_a_lead_is_clear_only_where_the_table_says_best(ranked: Any) -> None:
    study = read_study([ranked.folder])
    (section,) = main_sections(study)
    leads = verdicts.leads(study, section)
    best = {c.metric.name: row.method for row in section.rows for c in row.cells if c.best}
    assert leads[0].metric.name == "style" and best
    assert {lead.metric.name: lead.row for lead in leads if lead.badge == "clear"} == best
    assert verdicts.headline(leads).startswith("beta_long is the clear best on Aesthetic.")


def test_what_is_missing_is_unknown(make_run: Any) -> None:
    run = make_run("begun")
    run.job("alpha", 0.1)
    run.job("beta", 0.1, fractions=[])
    assert asked(run, "beta", "alpha").target.text == "GenEval unknown, missing 0/48"


def test_nobody_leads_while_a_row_that_could_has_no_score(ranked: Any) -> None:
    study = read_study([ranked.folder])
    before = {lead.metric.name: lead for lead in verdicts.leads(study, main_sections(study)[0])}
    assert before["style"].badge == "clear"
    for seed in (0, 1):
        ranked.job("late", 0.05, seed=seed, fractions=[0.333], status="interrupted")
    study = read_study([ranked.folder])
    (section,) = main_sections(study)
    after = {lead.metric.name: lead for lead in verdicts.leads(study, section)}
    assert (after["style"].badge, after["style"].row) == ("unknown", "–")
    assert after["style"].text == "late has no score in Aesthetic"
    assert not any(c.best for row in section.rows for c in row.cells)
