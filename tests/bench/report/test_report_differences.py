"""Paired differences between methods, redone from the samples."""

from __future__ import annotations

import csv
import io

import pytest
from page_text import page_text

from bench.report import differences, render_report
from bench.report.pairs import pairs as pairs_of
from bench.report.same_method import Rate, halves, parted, rates
from bench.report.stats import against, difference
from bench.report.study import read_study
from bench.report.tables import main_sections
from bench.report.text import digits


@pytest.fixture
def sections(run):
    study = read_study([run.folder])
    return study, main_sections(study)


def rates_of(study) -> dict[str, Rate]:
    return rates(study, parted(study))


def differences_of(study):
    found = main_sections(study)
    return differences.differences(study, found, [*map(pairs_of, found)], rates_of(study))


def cells(section, method):
    [row] = [row for row in section.rows if row.method == method]
    return {c.metric.name: c.cell.estimate for c in row.cells}


def test_every_pair_is_there_in_its_family_and_alone(sections):
    study, (section,) = sections
    rows = list(csv.DictReader(io.StringIO(differences.csv(study, [section], [pairs_of(section)]))))
    pairs = {(row["method"], row["minus"]) for row in rows}
    assert pairs == {("beta_long", "alpha"), ("gamma", "alpha"), ("gamma", "beta_long")}
    assert len(rows) == 3 * len(study.metrics)
    for row in rows:
        others = [name for name in ("alpha", "beta_long", "gamma") if name != row["minus"]]
        name = row["metric"]
        family = against(cells(section, row["minus"])[name], [cells(section, other)[name] for other in others])
        expected = family[others.index(row["method"])]
        alone = difference(cells(section, row["method"])[name], cells(section, row["minus"])[name])
        assert row["difference"] == digits(alone.mean)
        assert (row["low"], row["high"]) == (digits(expected.low), digits(expected.high))
        assert (row["pairwise_low"], row["pairwise_high"]) == (digits(alone.low), digits(alone.high))
        assert (row["like_low"], row["like_high"]) == (digits(expected.like.low), digits(expected.like.high))
        assert (row["excludes_zero"], row["family"]) == (str(int(expected.excludes_zero)), "2")


def test_the_table_holds_every_method_against_the_first_and_ranks_no_reward(ranked):
    study = read_study([ranked.folder])
    (section,) = main_sections(study)
    [(subset, grid)] = differences.differences(study, [section], [pairs_of(section)], rates_of(study)).grids
    assert subset == section.subset and grid.headers[0] == "Minus alpha"
    assert [row[0] for row in grid.rows] == ["beta_long", "gamma"]
    for row in grid.rows:
        for metric, text in zip(study.metrics, row[1:], strict=True):
            others = [cells(section, name)[metric.name] for name in ("beta_long", "gamma")]
            found = against(cells(section, "alpha")[metric.name], others)[row[0] == "gamma"]
            if row[0] == "gamma" and metric.name == "style":
                assert text.endswith("†") and not any(mark in text for mark in "▲▼")
            elif metric.ranked:
                better = (found.mean > 0) == metric.higher_is_better
                assert text.endswith("▲" if better else "▼") == found.excludes_zero


def test_a_difference_to_a_row_of_one_seed_is_not_called_better_or_worse(ranked):
    ranked.job("lone", 0.9)
    study = read_study([ranked.folder])
    found = differences_of(study)
    [(_, grid)] = found.grids
    texts = {row[0]: row[1:] for row in grid.rows}
    assert texts["lone"][0].startswith("+0.8") and not any(mark in str(texts["lone"]) for mark in "▲▼")
    assert all(text.endswith("▲") for text in texts["beta_long"])
    assert "Seed variance unknown for lone on pretty, of one seed" in found.notes[2]


def test_one_method_alone_differs_from_none(make_run, tmp_path):
    run = make_run("alone")
    run.job("alpha", 0.1)
    render_report([run.folder], tmp_path / "out")
    assert not (tmp_path / "out" / "differences.md").exists()
    assert 'id="differences"' not in page_text(tmp_path / "out")


def test_an_incomplete_cell_has_no_difference(run, tmp_path):
    run.job("delta", 0.1, status="failed", reason="NaN", fractions=[])
    study = read_study([run.folder])
    [(_, grid)] = differences_of(study).grids
    assert set(grid.rows[-1][1:]) == {"–"}
    render_report([run.folder], tmp_path / "out")
    assert "## Subset: " in (tmp_path / "out" / "differences.md").read_text()


def test_two_groups_of_seeds_of_one_method_say_how_often_luck_looks_like_a_result(make_run, tmp_path):
    """Of four seeds, three ways to part them in two; three seeds cannot be parted into groups that tell anything."""
    run = make_run("seeds")
    for seed, gain in enumerate([0.1, 0.1, 0.12, 0.1]):
        run.job("alpha", gain, seed=seed)
    for seed in range(3):
        run.job("beta", 0.1, seed=seed)
    study = read_study([run.folder])
    of_metrics = rates_of(study)
    assert {label: rate.comparisons for label, rate in of_metrics.items()} == dict.fromkeys(of_metrics, 3)
    render_report([run.folder], tmp_path / "out")
    said = f"GenEval {of_metrics['GenEval'].verdicts} of 3"
    assert said in (tmp_path / "out" / "differences.md").read_text()
    assert said in page_text(tmp_path / "out")


def test_twelve_seeds_of_one_method_alone_are_compared_six_against_six(make_run, tmp_path):
    """Nothing else is in the run, and the seeds differ by as much as the fake run's pictures do."""
    run = make_run("aa")
    for seed in range(12):
        run.job("alpha", 0.1 if seed < 6 else 0.4, seed=seed, fractions=[1.0])
    render_report([run.folder], tmp_path / "out")
    rows = [*csv.DictReader((tmp_path / "out" / "same_method.csv").open())]
    study = read_study([run.folder])
    assert [row["metric"] for row in rows] == [metric.name for metric in study.metrics]
    for row in rows:
        assert (row["method"], row["seeds_of_each"], row["comparisons"]) == ("alpha", "6", "39")
        # the first six seeds are 0.3 lower, which no other way to part them shows as well
        assert float(row["difference"]) == pytest.approx(-0.3, abs=0.03) and row["excludes_zero"] == "1"
        assert float(row["low"]) < float(row["difference"]) < float(row["high"]) and 1 <= int(row["verdicts"]) < 20
    text = (tmp_path / "out" / "same_method.md").read_text()
    assert "6 against 6" in text and f"All rows: GenEval {rows[0]['verdicts']} of 39" in text
    assert "(a verdict)" in text and "The nominal rate is 5" in text


def test_three_seeds_leave_no_such_table(make_run, tmp_path):
    run = make_run("three")
    for seed in range(3):
        run.job("alpha", 0.1, seed=seed)
    assert not {path.name for path in render_report([run.folder], tmp_path / "out")} & {"same_method.md"}


def test_one_seed_of_each_method_says_nothing_of_luck(sections):
    study, found = sections
    assert {rate.comparisons for rate in rates_of(study).values()} == {0}
    assert not any(
        "luck" in note for note in differences.differences(study, found, [*map(pairs_of, found)], rates_of(study)).notes
    )


def test_a_row_at_less_compute_is_marked_and_neither_better_nor_worse(make_run):
    run = make_run()
    for seed in (0, 1):
        run.job("alpha", 0.05, seed=seed)
        run.job("beta", 0.15, seed=seed, share=0.5)
        run.job("gamma", 0.15, seed=seed)
    ((_, grid),) = differences_of(read_study([run.folder])).grids
    (short, *of_short), (equal, *of_equal) = grid.rows
    assert (short, equal) == ("beta ‡", "gamma")
    assert not any("▲" in text for text in of_short) and all("▲" in text for text in of_equal)
    said = "A difference that † or ‡ marks is not called better or worse"
    assert any(said in note for note in differences_of(read_study([run.folder])).notes)


@pytest.mark.parametrize(("seeds", "ways"), [(4, 3), (5, 15), (12, 39), (13, 40), (30, 40), (31, 40)])
def test_ways_to_part_many_seeds_are_drawn_and_not_listed(seeds, ways):
    """Thirty seeds have 78 million ways, which took all memory."""
    found = halves(seeds)
    half = seeds // 2
    assert len(found) == len(set(found)) == ways == len({frozenset(pair) for pair in found})
    assert found[0] == (tuple(range(half)), tuple(range(half, 2 * half)))
    for one, other in found:
        assert len(set(one)) == len(set(other)) == half and set(one).isdisjoint(other) and one < other
    assert found == halves(seeds)
