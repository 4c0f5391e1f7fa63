"""Wins, ties and losses of paired images, worked out by hand."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from bench.errors import BenchError
from bench.records.schema import MetricRecord, ScoreRecord
from bench.report import wins
from bench.report.stats import make_cell
from bench.report.study import Evaluation, Sample, StudiedJob, read_study
from bench.report.tables import main_sections
from bench.training.meter import Meter

Scores = dict[tuple[str, str], float | None]


def metric(images: int, *, grouped: bool = False, higher: bool = True) -> MetricRecord:
    about: dict[str, Any] = dict(name="m", label="M", version=1, low=None, high=None, format=".3f", prompt_set="p")
    return MetricRecord(**about, images=images, grouped=grouped, higher_is_better=higher)


def job(scores: Scores) -> StudiedJob:
    """A job with one evaluation, from (group, prompt) to the score of its one image; None stands for no score yet."""
    samples = [
        Sample("p", prompt, "", group, 0, None, {} if score is None else {"m": ScoreRecord(version=1, score=score)})
        for (group, prompt), score in scores.items()
    ]
    return StudiedJob("j", "x", "s", 0, None, "finished", None, Meter(), [Evaluation(1.0, Meter(), samples)])


def images(*scores: float | None) -> Scores:
    return {("g", f"p{number}"): score for number, score in enumerate(scores)}


def tally(ours: list[Scores], theirs: list[Scores], column: MetricRecord) -> wins.Tally | None:
    row, reference = (make_cell([job(s) for s in of], 1.0, column).estimate for of in (ours, theirs))
    return wins.tally(row, reference, column)


def test_each_image_is_won_tied_or_lost() -> None:
    ours, theirs = images(0.9, 0.5, 0.2, 0.7), images(0.1, 0.5, 0.3, 0.6)
    assert tally([ours], [theirs], metric(4)) == wins.Tally(0.5, 0.25, 0.25, 4)
    assert tally([ours], [theirs], metric(4, higher=False)) == wins.Tally(0.25, 0.25, 0.5, 4)


def test_every_seed_is_compared_with_every_seed_of_the_reference() -> None:
    """First image: 1 beats 0 and ties 1, 0 ties 0 and loses to 1. Second image: always won."""
    found = tally([images(1, 5), images(0, 4)], [images(0, 2), images(1, 3)], metric(2))
    assert found == wins.Tally((0.25 + 1) / 2, 0.5 / 2, 0.25 / 2, 8)


def test_groups_count_alike_and_wins_minus_losses_are_the_difference_of_a_metric_of_0_and_1() -> None:
    """Three images of one group, of which one is won and one lost, and one image of another, which is won."""
    ours = {("a", "1"): 1.0, ("a", "2"): 0.0, ("a", "3"): 1.0, ("b", "4"): 1.0}
    theirs = {("a", "1"): 0.0, ("a", "2"): 1.0, ("a", "3"): 1.0, ("b", "4"): 0.0}
    found = tally([ours], [theirs], metric(4, grouped=True))
    assert found is not None
    assert (found.win, found.tie, found.loss) == pytest.approx(((1 / 3 + 1) / 2, (1 / 3) / 2, (1 / 3) / 2))
    assert found.win - found.loss == pytest.approx((2 / 3 + 1) / 2 - (2 / 3 + 0) / 2)  # of the groups' means
    assert tally([ours], [theirs], metric(4)) == wins.Tally(0.5, 0.25, 0.25, 4)


def test_a_row_with_a_score_missing_is_not_compared() -> None:
    assert tally([images(0.9, None)], [images(0.1, 0.2)], metric(2)) is None
    assert tally([images(0.9, 0.8)], [images(0.1, 0.2), images(0.1, None)], metric(2)) is None


def test_other_images_are_refused() -> None:
    other: Scores = {("g", "p0"): 0.1, ("g", "elsewhere"): 0.2}
    for ours, theirs in (([images(1, 2)], [other]), ([images(1, 2), other], [images(1, 2)])):
        with pytest.raises(BenchError, match="different prompts"):
            tally(ours, theirs, metric(2))


def test_a_report_holds_every_row_against_the_first(ranked: Any) -> None:
    ranked.job("delta", 0.1, status="failed", reason="NaN", fractions=[])
    study = read_study([ranked.folder])
    found = wins.wins(study, main_sections(study))
    assert [(r.row, r.reference) for r in found] == [(n, "alpha") for n in ("base", "beta_long", "gamma", "delta")]
    rows = {(row["method"], row["metric"]): row for row in csv.DictReader(io.StringIO(wins.wins_csv(found)))}
    assert len(rows) == 4 * 4
    beta, delta = rows["beta_long", "clip"], rows["delta", "clip"]
    assert (float(beta["win"]) > 0.9, int(beta["pairs"])) == (True, 2 * 2 * 48)
    assert (delta["win"], delta["pairs"]) == ("", "")
    assert (rows["gamma", "style"]["trained_on"], rows["gamma", "clip"]["trained_on"]) == ("1", "0")
    text = wins.wins_markdown(study, found)
    assert "Against alpha" in text and "| delta | – | – | – | – |" in text and "† One of the two" in text
