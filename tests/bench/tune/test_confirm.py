"""Which trials run again, and which of them wins, worked out by hand."""

from __future__ import annotations

import pytest

from bench.tune.confirm import Confirmation, candidates, confirmations_markdown, fresh_seeds, winner
from bench.tune.guidance import Scales
from bench.tune.objective import Scored
from bench.tune.trials import Trial


def trials(*values: float | None) -> list[Trial]:
    return [Trial("a", n, {"lr": n + 1.0}, (), Scored(value, {})) for n, value in enumerate(values)]


def again(*values: tuple[float | None, ...]) -> list[Confirmation]:
    return [Confirmation("a", number, of_seeds) for number, of_seeds in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "best", "numbers"),
    [
        ((0.1, 0.5, 0.4, 0.6), 2, [0, 1, 3]),
        ((0.9, 0.5, 0.4, 0.6), 2, [0, 1, 3]),  # the first is no reason to run fewer of the others
        ((0.1, None, 0.4, None), 2, [0, 2]),
        ((None, 0.5, 0.4, 0.6), 1, [3]),
        ((0.1, 0.5, 0.5, 0.5), 2, [0, 1, 2]),  # of equal ones the earliest
        ((None, None), 2, []),
    ],
)
def test_the_first_trial_and_the_best_others_run_again(
    values: tuple[float | None, ...], best: int, numbers: list[int]
) -> None:
    assert [trial.number for trial in candidates(trials(*values), best)] == numbers


def test_fresh_seeds_are_three_that_neither_a_trial_nor_the_experiment_has() -> None:
    assert fresh_seeds(1000, (0, 1, 2)) == (1001, 1002, 1003)
    assert fresh_seeds(1, (0, 3)) == (2, 4, 5)


def test_the_best_median_wins_and_a_failure_is_worse_than_any_value() -> None:
    first, lucky, steady = again((0.1, 0.2, 0.3), (0.0, 9.0, 0.1), (0.25, 0.2, 0.3))
    assert [c.median for c in (first, lucky, steady)] == [0.2, 0.1, 0.25]
    assert winner([first, lucky, steady]) is steady
    half, lost = again((None, 0.5, 0.7), (None, None, 0.9))
    assert (half.median, lost.median) == (0.5, None)
    assert winner([lost]) is None
    assert winner(again((0.2, 0.2, 0.2), (0.2, 0.2, 0.2))).number == 0  # type: ignore[union-attr]


def test_the_table_says_which_median_won() -> None:
    text = confirmations_markdown(again((0.1, 0.2, 0.3), (None, None, 0.9), (0.2, 0.4, 0.3)), (7, 8, 9))
    assert "| a | 2 | +0.200 | +0.400 | +0.300 | **+0.300** |" in text
    assert "| a | 1 | failed | failed | +0.900 | failed |" in text and text.count("**") == 2
    assert "| Row | Trial | Seed 7 | Seed 8 | Seed 9 | Median |" in text


def test_of_equal_scales_the_nearest_to_the_suites_is_taken_and_what_is_not_whole_counts_for_nothing() -> None:
    assert Scales("a", 3.0, {1.0: 0.5, 2.0: 0.5, 3.0: 0.4, 7.0: None}).best == 2.0
    assert Scales("a", 3.0, {1.0: None}).best is None
