"""The interval is what it says: checked against closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.records.schema import MetricRecord, ScoreRecord
from bench.report.seed_noise import MetricNoise
from bench.report.stats import Trainings, against, clear_best, difference, known_trainings, make_cell
from bench.report.study import Evaluation, Sample, StudiedJob
from bench.training.meter import Meter

Values = dict[tuple[str, str], list[float]]


def a_metric(images: int, grouped: bool = False, higher: bool = True, high: float | None = None) -> MetricRecord:
    return MetricRecord(
        name="m",
        label="M",
        version=1,
        higher_is_better=higher,
        low=None if high is None else 0.0,
        high=high,
        format=".3f",
        prompt_set="p",
        images=images,
        grouped=grouped,
    )


def a_job(values: Values, seed: int = 0, status: str = "finished") -> StudiedJob:
    """A job with one evaluation, from (group, prompt) to the scores of its repeats; NaN stands for an error."""
    samples = [
        Sample("p", prompt, "", group, i, Path(), {"m": ScoreRecord(version=1, error="broken")})
        if math.isnan(value)
        else Sample("p", prompt, "", group, i, Path(), {"m": ScoreRecord(version=1, score=value)})
        for (group, prompt), scores in values.items()
        for i, value in enumerate(scores)
    ]
    return StudiedJob("j", "x", "s", seed, None, status, None, Meter(), [Evaluation(1.0, Meter(), samples)])


def normal_values(prompts: int, repeats: int, shift: float = 0.0) -> Values:
    rng = np.random.default_rng(3)
    return {("g", f"p{i:04}"): list(rng.normal(size=repeats) + shift) for i in range(prompts)}


def test_interval_of_a_mean_matches_its_standard_error() -> None:
    values = normal_values(400, 1)
    estimate = make_cell([a_job(values)], 1.0, a_metric(400)).estimate
    assert estimate is not None
    flat = np.array(list(values.values())).ravel()
    half = 1.96 * flat.std() / math.sqrt(400)
    assert estimate.mean == pytest.approx(flat.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.06)


def test_repeats_of_a_prompt_move_together() -> None:
    once = {key: scores[:1] for key, scores in normal_values(100, 1).items()}
    copied = {key: scores * 4 for key, scores in once.items()}
    one = make_cell([a_job(once)], 1.0, a_metric(100)).estimate
    four = make_cell([a_job(copied)], 1.0, a_metric(400)).estimate
    assert one and four
    assert (four.low, four.high) == pytest.approx((one.low, one.high))  # copies add no information


def test_a_score_of_a_whole_prompt_counts_as_one_observation() -> None:
    """A per-prompt metric (diversity) writes one score on each of a prompt's images: five lines, one observation."""
    scores = np.random.default_rng(5).normal(size=400)
    copied: Values = {("g", f"p{i:04}"): [float(score)] * 5 for i, score in enumerate(scores)}
    cell = make_cell([a_job(copied)], 1.0, a_metric(2000))
    assert cell.estimate and cell.counts == "2000/2000"
    half = 1.96 * scores.std() / math.sqrt(400)  # by image it would be narrower by the root of five
    assert cell.estimate.mean == pytest.approx(scores.mean())
    assert (cell.estimate.high - cell.estimate.low) / 2 == pytest.approx(half, rel=0.06)


def test_grouped_metric_is_the_mean_of_the_groups_means() -> None:
    values: Values = {("a", "1"): [1.0], ("b", "2"): [0.0], ("b", "3"): [0.0], ("b", "4"): [0.0]}
    grouped = make_cell([a_job(values)], 1.0, a_metric(4, grouped=True)).estimate
    plain = make_cell([a_job(values)], 1.0, a_metric(4)).estimate
    assert grouped and plain
    assert (grouped.mean, plain.mean) == (0.5, 0.25)
    assert (grouped.low, grouped.high) == (0.5, 0.5)  # prompts stay in their group, and groups do not vary inside


def test_seeds_that_differ_widen_the_interval_as_t_does() -> None:
    """Prompts that score alike leave the seeds alone: the mean's t interval, with 2 degrees of freedom."""
    jobs = [a_job({("g", f"p{i}"): [value] for i in range(9)}, seed) for seed, value in enumerate((1.0, 2.0, 4.0))]
    estimate = make_cell(jobs, 1.0, a_metric(9)).estimate
    assert estimate
    half = 4.303 * np.std([1.0, 2.0, 4.0], ddof=1) / math.sqrt(3)
    assert estimate.mean == pytest.approx(7 / 3)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=1e-3)
    assert (estimate.high + estimate.low) / 2 == pytest.approx(7 / 3)


def test_seeds_count_beside_prompts() -> None:
    alike = [a_job(normal_values(50, 1), seed) for seed in range(3)]
    apart = [a_job(normal_values(50, 1, shift=seed), seed) for seed in range(3)]
    one, other = (make_cell(jobs, 1.0, a_metric(50)).estimate for jobs in (alike, apart))
    assert one and other
    assert other.high - other.low > 2 * (one.high - one.low)


def test_paired_difference_is_narrower_than_the_intervals() -> None:
    base = make_cell([a_job(normal_values(60, 1))], 1.0, a_metric(60)).estimate
    better = make_cell([a_job(normal_values(60, 1, shift=0.05))], 1.0, a_metric(60)).estimate
    assert base and better
    gain = difference(better, base)
    assert base.low < better.mean < base.high  # the intervals overlap, the paired difference is clear
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.05, 0.05, 0.05))
    assert gain.excludes_zero


def test_difference_needs_the_same_prompts() -> None:
    one = make_cell([a_job({("g", "a"): [1.0]})], 1.0, a_metric(1)).estimate
    other = make_cell([a_job({("g", "b"): [1.0]})], 1.0, a_metric(1)).estimate
    assert one and other
    with pytest.raises(BenchError, match="different prompts"):
        difference(one, other)


def test_incomplete_cell_has_no_mean() -> None:
    values = normal_values(5, 1)
    cell = make_cell([a_job(values)], 1.0, a_metric(6))
    assert (cell.estimate, cell.gap) == (None, "missing 5/6")
    assert make_cell([a_job(values, status="failed")], 1.0, a_metric(6)).gap == "failed 5/6"
    values["g", "p0000"] = [math.nan]
    assert make_cell([a_job(values)], 1.0, a_metric(5)).gap == "failed 4/5"
    assert make_cell([a_job(values)], 0.5, a_metric(5)).gap == "missing 0/5"


def test_one_incomplete_seed_makes_the_row_incomplete() -> None:
    jobs = [a_job(normal_values(5, 1)), a_job(normal_values(4, 1), seed=1)]
    assert make_cell(jobs, 1.0, a_metric(5)).gap == "missing 9/10"


def test_more_scores_than_the_suite_owes_is_an_error() -> None:
    with pytest.raises(BenchError, match="holds 5 scores of m, its suite expects 4"):
        make_cell([a_job(normal_values(5, 1))], 1.0, a_metric(4))


@pytest.mark.parametrize(("higher", "winner"), [(True, 2), (False, 0)])
def test_best_follows_the_metrics_direction(higher: bool, winner: int) -> None:
    shifts = (0.0, 0.1, 0.2)
    cells = [make_cell([a_job(normal_values(50, 1, s))], 1.0, a_metric(50, higher=higher)).estimate for s in shifts]
    assert clear_best(cells, higher) == winner
    assert clear_best([cells[0], cells[0]], higher) is None  # a tie has no best
    assert clear_best([cells[0]], higher) is None  # nobody to be better than
    assert clear_best([None, *cells], higher) is None  # who has no score might be the best


def test_the_same_records_give_the_same_interval() -> None:
    one, other = (make_cell([a_job(normal_values(30, 2))], 1.0, a_metric(60)).estimate for _ in range(2))
    assert one and other
    assert (one.low, one.high) == (other.low, other.high)


def test_new_noise_counts_and_new_prompts_count_more() -> None:
    """Repeats say what noise does on these prompts; how prompts differ counts for prompts like these alone."""
    rng = np.random.default_rng(6)
    values: Values = {("g", f"p{i:04}"): list(rng.normal() + 0.3 * rng.normal(size=4)) for i in range(200)}
    estimate = make_cell([a_job(values)], 1.0, a_metric(800)).estimate
    assert estimate
    this, like = (estimate.high - estimate.low) / 2, (estimate.like.high - estimate.like.low) / 2
    assert this == pytest.approx(1.96 * 0.3 / math.sqrt(800), rel=0.1)
    assert like == pytest.approx(1.96 * math.sqrt(1 + 0.09 / 4) / math.sqrt(200), rel=0.15)


def test_a_part_of_the_list_varies_as_far_as_it_leaves_prompts_out() -> None:
    rng = np.random.default_rng(7)
    values: Values = {("g", f"p{i:04}"): list(rng.normal() + 0.3 * rng.normal(size=2)) for i in range(100)}
    variances = []
    for listed in (1.0, 0.5, 0.0):
        estimate = make_cell([a_job(values)], 1.0, a_metric(200), listed=listed).estimate
        assert estimate
        variances.append((estimate.high - estimate.low) ** 2)
    assert variances[0] < variances[1] < variances[2]
    assert variances[1] == pytest.approx((variances[0] + variances[2]) / 2, rel=0.05)


def test_a_bounded_metric_stays_within_its_bounds() -> None:
    values: Values = {("g", f"p{i:02}"): [float(i > 0)] for i in range(30)}
    estimate = make_cell([a_job(values)], 1.0, a_metric(30, high=1.0)).estimate
    assert estimate and estimate.high < 1 and estimate.low < 29 / 30
    perfect = make_cell([a_job({key: [1.0] for key in values})], 1.0, a_metric(30, high=1.0)).estimate
    assert perfect and perfect.high == 1.0 and 0.8 < perfect.low < 0.95  # thirty pictures do not prove perfection


NOISE = MetricNoise(
    version=1, mean=0.0, low=None, high=None, binary=False, groups=[50], repeats=1, prompt=1.0, prompt_noise=0.0,
    residual=0.0, seed_prompt=0.0, seed_shift=0.04, method_prompt=0.5, method_noise=0.0, df=1e6,
)  # fmt: skip


def test_one_seed_has_its_seed_variance_from_the_noise_file_or_none() -> None:
    values = normal_values(50, 1)
    unknown = make_cell([a_job(values)], 1.0, a_metric(50)).estimate
    known = make_cell([a_job(values)], 1.0, a_metric(50), Trainings(shipped=NOISE)).estimate
    assert unknown and known
    assert (unknown.judged, known.judged) == (False, True)
    squares = [((e.high - e.low) / 2 / 1.96) ** 2 for e in (unknown, known)]
    assert squares[1] - squares[0] == pytest.approx(0.04, rel=0.1)
    untrained = make_cell([a_job(values)], 1.0, a_metric(50), trained=False).estimate
    assert untrained and untrained.judged  # a model by itself has no seeds


def test_a_row_whose_seeds_agree_by_luck_is_drawn_towards_the_others() -> None:
    rng = np.random.default_rng(8)

    def jobs(shifts: list[float]) -> list[StudiedJob]:
        noisy = [{("g", f"p{i:02}"): [float(rng.normal() + shift)] for i in range(40)} for shift in shifts]
        return [a_job(values, seed) for seed, values in enumerate(noisy)]

    lucky = jobs([0.0, 0.0, 0.0])
    rows = [lucky, *(jobs(list(rng.normal(0, 1, 3))) for _ in range(12))]
    alone = make_cell(lucky, 1.0, a_metric(40)).estimate
    among = make_cell(lucky, 1.0, a_metric(40), known_trainings(rows, 1.0, a_metric(40))).estimate
    assert alone and among
    assert among.high - among.low > 1.5 * (alone.high - alone.low)


def test_the_more_differences_hold_together_the_wider_each_is() -> None:
    cells = [make_cell([a_job(normal_values(50, 1, shift))], 1.0, a_metric(50)).estimate for shift in (0.0, 0.1)]
    rng = np.random.default_rng(9)
    noisy = [
        make_cell([a_job({("g", f"p{i:04}"): [float(rng.normal())] for i in range(50)})], 1.0, a_metric(50)).estimate
        for _ in range(6)
    ]
    base, one = cells
    assert base and one
    others = [e for e in noisy if e]
    family, alone = against(base, others)[0], difference(others[0], base)
    assert family.family == 6 and alone.family == 1
    assert (family.pairwise.low, family.pairwise.high) == pytest.approx((alone.low, alone.high))
    assert 1.15 < (family.high - family.low) / (alone.high - alone.low) < 1.45
