"""Components of variance: worked out by hand, and found again in scores that were drawn with them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.report.components import Prior, Scores, components, fit_prior, noise, prompts, summed
from bench.report.components import Variance as V

ONE = np.eye(1)


def scores(values: list, strata: list[int] | None = None) -> Scores:
    array = np.array(values, dtype=float)
    return Scores(array, np.array(strata or [0] * array.shape[1]))


def test_the_statistic_is_the_mean_of_the_groups_means() -> None:
    row = scores([[[1.0], [0.0], [0.0], [0.0]]], [0, 1, 1, 1])
    assert row.mean == 0.5
    assert row.weights == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    assert row.size == pytest.approx(1 / 4 + 3 / 36)


def test_prompts_with_more_repeats_weigh_more_as_in_a_mean_over_images() -> None:
    row = scores([[[1.0, 1.0, 1.0], [0.0, math.nan, math.nan]]])
    assert row.mean == pytest.approx(3 / 4)


def test_noise_and_prompts_by_hand() -> None:
    """Two prompts, two pictures each: within them variances 2 and 8, between their means (1 and 4) 4.5."""
    row = scores([[[0.0, 2.0], [2.0, 6.0]]])
    of_noise, _ = noise([row], ONE)
    assert of_noise[0, 0] == pytest.approx((2 + 8) / 2 / 4)  # mean variance, over four pictures
    between, df = prompts([row], ONE)
    assert between[0, 0] == pytest.approx(4.5 / 2) and df[0] == 1


def test_a_prompt_without_repeats_is_given_the_noise_of_the_others() -> None:
    row = scores([[[0.0, 2.0], [5.0, math.nan]]])
    w = row.weights
    assert noise([row], ONE)[0][0, 0] == pytest.approx(w[0] ** 2 * 2 / 2 + w[1] ** 2 * 2)


def test_one_picture_a_prompt_does_not_tell_noise_from_prompts() -> None:
    assert np.isnan(noise([scores([[[0.0], [2.0]]])], ONE)[0]).all()
    copied = scores([[[0.0, 0.0], [2.0, 2.0]]])  # a score of the whole prompt, written on both pictures
    assert list(copied.repeats) == [1, 1] and np.isnan(noise([copied], ONE)[0]).all()


def test_a_seed_shift_is_in_the_total_and_not_in_the_images() -> None:
    row = scores([[[0.0], [1.0], [2.0]], [[5.0], [6.0], [7.0]]])
    assert row.total == pytest.approx(12.5) and row.images == pytest.approx(0, abs=1e-12)


def test_the_difference_of_a_row_and_itself_varies_with_nothing_but_seeds() -> None:
    rng = np.random.default_rng(0)
    row = scores(rng.normal(size=(1, 9, 2)).tolist())
    contrast = np.array([[1.0, -1.0]])
    assert noise([row, row], contrast)[0][0, 0] == pytest.approx(0)
    assert prompts([row, row], contrast)[0][0, 0] == pytest.approx(0)


def test_components_are_found_again() -> None:
    """Unequal groups, six seeds of each of eight rows. Tolerances are about three standard errors."""
    rng = np.random.default_rng(1)
    strata = [0] * 40 + [1] * 90 + [2] * 170
    size, rows = len(strata), []
    prompt, prompt_noise = rng.normal(0, 1.0, size), rng.normal(0, 0.7, (size, 2))
    for _ in range(8):
        method, method_noise = rng.normal(0, 0.5, size), rng.normal(0, 0.4, (size, 2))
        y = (prompt + method)[:, None] + prompt_noise + method_noise + rng.normal(0, 0.2, (6, 1, 1))
        rows.append(Scores(y + rng.normal(0, 0.3, (6, size, 1)) + rng.normal(0, 0.6, (6, size, 2)), np.array(strata)))
    prior = fit_prior(rows)
    assert prior is not None
    found = components(rows, prior, ["pretty"] * len(rows))
    assert found.residual == pytest.approx(0.36, rel=0.1)
    assert found.seed_prompt == pytest.approx(0.09, rel=0.25)
    assert found.seed_shift == pytest.approx(0.04, rel=0.7)
    assert found.method_prompt == pytest.approx(2 * 0.25, rel=0.25)
    assert found.method_noise == pytest.approx(2 * 0.16, rel=0.25)
    assert found.prompt == pytest.approx(1.25, rel=0.3)
    assert found.prompt_noise == pytest.approx(0.49 + 0.16, rel=0.25)


def test_sums_have_satterthwaites_degrees_of_freedom() -> None:
    assert summed([V(1.0, 4), V(1.0, 4)]) == V(2.0, 8)
    assert summed([V(1.0, 4), V(1.0, math.inf)]).df == 16
    assert summed([V(0.0, 4)]).df == math.inf


def test_a_row_is_drawn_towards_the_others_as_smyth_does() -> None:
    """(4 x 2 + 2 x own) / (4 + 2) with three seeds; never below 1, and known no better than all rows together."""
    rng = np.random.default_rng(2)
    row = Scores(rng.normal(size=(3, 50, 1)) + np.array([0.0, 1.0, 3.0])[:, None, None], np.zeros(50, dtype=int))
    own = row.total / row.images
    assert Prior(2.0, 4.0, 20.0).moderated(row) == V(pytest.approx((4 * 2 + 2 * own) / 6), 6.0)
    assert Prior(2.0, 4.0, 5.0).moderated(row).df == 5
    assert Prior(0.0, 1e9, 20.0).moderated(row).value == 1.0


def test_rows_that_agree_share_more_than_rows_that_do_not() -> None:
    rng = np.random.default_rng(3)

    def rows(shifts: list[float]) -> list[Scores]:
        y = [rng.normal(0, 1, (4, 60, 1)) + rng.normal(0, shift, (4, 1, 1)) for shift in shifts]
        return [Scores(values, np.zeros(60, dtype=int)) for values in y]

    alike, apart = fit_prior(rows([0.5] * 20)), fit_prior(rows([0.01, 0.01, 0.01, 5.0] * 5))
    assert alike and apart and alike.df > 3 * apart.df
    assert fit_prior([]) is None
    alone = fit_prior(rows([0.5])[:1])
    assert alone and alone.df == 0


def test_methods_are_compared_on_one_subset() -> None:
    """What a subset teaches differs by prompt, and no method is to blame for it."""
    rng = np.random.default_rng(0)
    pair = [scores(rng.standard_normal((3, 40, 2)).tolist()) for _ in range(2)]
    offset = 9 * rng.standard_normal((1, 40, 1))
    elsewhere = [scores((row.values + offset).tolist()) for row in pair]
    rows = [*pair, *elsewhere]
    prior = fit_prior(rows)
    assert prior is not None
    alone = components(pair, prior, ["one", "one"])
    both = components(rows, prior, ["one", "one", "two", "two"])
    assert (both.method_prompt, both.method_noise) == pytest.approx((alone.method_prompt, alone.method_noise))
    mixed = components(rows, prior, ["one"] * 4)
    assert mixed.method_prompt > 10 * alone.method_noise
    assert components([pair[0], elsewhere[1]], prior, ["one", "two"]).method_prompt == 0.0  # no two methods
