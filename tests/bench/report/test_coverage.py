"""How often intervals cover the truth, simulated with the shipped noise file on the suite's real groups.

A training adds a shift of its own to all prompts and something to each prompt; noise belongs to its prompt and is
shared by all rows; pictures have a rest of their own, and binary scores say whether the sum is above zero. Rows differ
in how much their trainings differ, as the file's degrees of freedom say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import owens_t
from scipy.stats import norm

from bench.records.archive import unpacked
from bench.report.components import Prior, Scores, components, fit_prior
from bench.report.intervals import smallest
from bench.report.power import Design, measure, variance
from bench.report.seed_noise import MetricNoise, read
from bench.report.stats import Difference, Trainings, difference, estimate
from bench.report.study import read_study

ROOT = Path(__file__).parents[3]
FILE = read(ROOT / "benchmarks" / "suites" / "embedded.noise.json")
RECORDS = ROOT / "reports" / "reference" / "embedded" / "records.tar.xz"
BINARY, CONTINUOUS = "world_geneval", ("world_clipscore", "world_aesthetic")
REPETITIONS = 400
ROWS = 6
"""Rows of a report, over which trainings are moderated."""

LOW, HIGH = 0.93, 0.97
ERROR = 2.5 * math.sqrt(0.95 * 0.05 / REPETITIONS)
"""Of a rate that REPETITIONS draws estimate; 2.5 standard errors."""


@dataclass(frozen=True)
class Parts:
    """Variances of what a score adds up from: of prompts, rows, noise, trainings, and the rest of a picture.

    Binary scores are one where a normal variable of variance 1 is above zero: the threshold model of Dempster & Lerner
    (1950). Its parts are found so that the scores have the covariances of the noise file.
    """

    mean: float
    prompt: float
    method: float
    noise: float
    method_noise: float
    seed_shift: float
    seed_prompt: float
    residual: float

    @classmethod
    def of(cls, noise: MetricNoise) -> Parts:
        """A row's own share of its prompts is half of what two rows differ by, and so it is with noise."""
        row, own = noise.prompt, (noise.method_prompt / 2, noise.method_noise / 2)
        shared = max(row - own[0], 0.0), max(noise.prompt_noise - own[1], 0.0)
        if not noise.binary:
            return cls(
                noise.mean, shared[0], own[0], shared[1], own[1], noise.seed_shift, noise.seed_prompt, noise.residual
            )
        # Scores of one group vary less than those of all. This is the mean of a group that varies so much.
        mean = 0.5 + math.sqrt(max(0.25 - row - noise.prompt_noise - noise.seed_prompt - noise.residual, 0.0))
        centre = float(norm.ppf(mean))
        rows, prompts, pictures, seeds, trainings = (
            _correlation(mean, covariance)
            for covariance in (
                shared[0], row, shared[0] + shared[1], row + noise.prompt_noise, row + noise.seed_prompt,
            )
        )  # fmt: skip
        parts = [rows, prompts - rows, pictures - rows, seeds - prompts - (pictures - rows)]
        parts += [noise.seed_shift / norm.pdf(centre) ** 2, trainings - prompts]
        parts = [max(part, 0.0) for part in parts]
        return cls(centre, *parts, max(1 - sum(parts), 0.0))


def _correlation(mean: float, covariance: float) -> float:
    """Of two normal variables, whose being above zero has this mean and covariance. Owen's (1956) T."""
    centre = norm.ppf(mean)

    def excess(correlation: float) -> float:
        both = mean - 2 * owens_t(centre, math.sqrt((1 - correlation) / (1 + correlation)))
        return float(both - mean**2 - covariance)

    return float(brentq(excess, 0.0, 1.0)) if excess(1.0) > 0 else 1.0


@dataclass
class World:
    """Prompts of the suite's groups, with what is fixed of them for every row."""

    noise: MetricNoise
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.parts = Parts.of(self.noise)
        self.strata = np.repeat(np.arange(len(self.noise.groups)), self.noise.groups)
        self.prompt = self.draw(self.parts.prompt, len(self.strata))
        self.method = self.draw(self.parts.method, ROWS, len(self.strata))
        self.given = self.draw(self.parts.seed_prompt, 1, len(self.strata), 1)  # of weights that are not trained anew

    def draw(self, variance: float, *shape: int) -> np.ndarray:
        return self.rng.normal(0, math.sqrt(variance), shape)

    def rows(self, seeds: int, repeats: int, gain: float = 0.0, given: bool = False) -> list[Scores]:
        """Scores of every row; ``gain`` is what the first has more. ``given``: the second row is not trained."""
        size, parts, df = len(self.strata), self.parts, self.noise.df
        shared, made = self.draw(parts.noise, size, repeats), []
        for number, method in enumerate(self.method):
            centre = df - 2 if df > 3 else df / 3  # as in reports
            spread = math.sqrt(centre / self.rng.chisquare(df))
            mean = parts.mean if made else self.shifted(gain)
            y = mean + (self.prompt + method)[:, None] + shared + self.draw(parts.method_noise, size, repeats)
            if given and number == 1:
                y = y + self.given
            else:
                y = y + spread * self.draw(parts.seed_shift, seeds, 1, 1) + self.draw(parts.seed_prompt, seeds, size, 1)
            y = y + self.draw(parts.residual, *y.shape)
            made.append(Scores((y > 0).astype(float) if self.noise.binary else y, self.strata))
        return made

    def shifted(self, gain: float) -> float:
        """Where a row lies whose mean is ``gain`` above the others'."""
        mean = self.parts.mean
        return float(norm.ppf(norm.cdf(mean) + gain)) if self.noise.binary else mean + gain

    def compared(self, seeds: int, repeats: int = 1, gain: float = 0.0, given: bool = False) -> Difference:
        """The difference of the first two rows of a report. The suite draws one picture a prompt."""
        rows = self.rows(seeds, repeats, gain, given)
        known = Trainings(fit_prior(rows), self.noise)
        keys = tuple((str(group), f"{at:04}") for at, group in enumerate(self.strata.tolist()))
        one = estimate(rows[0], keys, trainings=known)
        other = estimate(rows[1], keys, trainings=known, trained=not given)
        return difference(one, other)

    def truth(self, given: bool = False) -> float:
        """The difference of the first two rows on these prompts, over noise and trainings."""
        weights = Scores(np.zeros((1, len(self.strata), 1)), self.strata).weights
        one, other = self.parts.mean + self.prompt + self.method[:2]
        fixed = self.parts.prompt + self.parts.method
        of_other = fixed + self.parts.seed_prompt if given else fixed
        other = other + self.given[0, :, 0] if given else other
        if self.noise.binary:
            one, other = norm.cdf(one / math.sqrt(1 - fixed)), norm.cdf(other / math.sqrt(1 - of_other))
        return float((one - other) @ weights)


@pytest.mark.parametrize("metric", [BINARY, *CONTINUOUS])
def test_the_simulated_scores_have_the_components_of_the_file(metric: str) -> None:
    """Of many prompts, trainings and pictures. Trainings of rows differ alike here, as they do in the mean."""
    noise = FILE.metrics[metric].model_copy(update={"groups": [1500], "df": 1e9, "seed_shift": 0.0})
    rows = World(noise, np.random.default_rng(0)).rows(6, 8)
    found = components(rows, Prior(1.0, 4.0, 30.0), ["one"] * len(rows))
    whole = sum(getattr(found, part) for part in ("prompt", "prompt_noise", "seed_prompt", "residual"))
    for part in ("prompt", "prompt_noise", "seed_prompt", "residual", "method_prompt", "method_noise"):
        assert getattr(found, part) == pytest.approx(getattr(noise, part), rel=0.1, abs=0.02 * whole), part


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("seeds", [1, 3, 6])
@pytest.mark.parametrize("metric", [BINARY, *CONTINUOUS])
def test_this_prompt_list_is_covered_at_the_stated_rate(metric: str, seeds: int, repeats: int) -> None:
    rng = np.random.default_rng(seeds)
    world = World(FILE.metrics[metric], rng)
    truth = world.truth()
    found = [world.compared(seeds, repeats) for _ in range(REPETITIONS)]
    covered = np.mean([d.low <= truth <= d.high for d in found])
    assert LOW - ERROR < covered < HIGH + ERROR


@pytest.mark.parametrize("seeds", [1, 3, 6])
@pytest.mark.parametrize("metric", [BINARY, *CONTINUOUS])
def test_a_difference_to_the_base_is_covered_at_the_stated_rate(metric: str, seeds: int) -> None:
    """Nothing trains the base anew, and its pictures vary with the noise as a training's do."""
    world = World(FILE.metrics[metric], np.random.default_rng(seeds))
    truth = world.truth(given=True)
    found = [world.compared(seeds, given=True) for _ in range(REPETITIONS)]
    covered = np.mean([d.low <= truth <= d.high for d in found])
    assert LOW - ERROR < covered < HIGH + ERROR


@pytest.mark.parametrize("seeds", [1, 3, 6])
@pytest.mark.parametrize("metric", [BINARY, CONTINUOUS[1]])
def test_prompts_like_these_are_covered_at_the_stated_rate(metric: str, seeds: int) -> None:
    """Prompts are drawn anew each time, and all rows are alike over all prompts there could be."""
    rng = np.random.default_rng(seeds)
    found = [World(FILE.metrics[metric], rng).compared(seeds) for _ in range(REPETITIONS)]
    covered = np.mean([d.like.low <= 0 <= d.like.high for d in found])
    assert LOW - ERROR < covered < HIGH + ERROR


def alike(noise: MetricNoise) -> MetricNoise:
    """Of methods that do not differ by prompt."""
    return noise.model_copy(update={"method_prompt": 0.0})


def test_prompts_like_these_are_no_wider_where_methods_do_not_differ_by_prompt() -> None:
    """Both variances are then of one quantity, and so agree in the mean. The wider one was a seventh too large."""
    world = World(alike(FILE.metrics[BINARY]), np.random.default_rng(1))
    found = [world.compared(1, 2) for _ in range(REPETITIONS)]
    like, this = (np.mean([getattr(d, name).value for d in found]) for name in ("like_variance", "variance"))
    assert 0.92 < like / this < 1.06


@pytest.mark.parametrize("seeds", [3, 6])
def test_a_difference_that_power_promises_is_seen_about_as_often(seeds: int) -> None:
    """The promise is for two methods that do not differ by prompt; six rows moderate as many would."""
    noise = FILE.metrics[CONTINUOUS[1]]
    world = World(alike(noise), np.random.default_rng(5))
    design = Design(seeds, len(world.strata), 2)
    gain = smallest(variance(noise, design), 0.8)
    seen = np.mean([world.compared(seeds, 2, gain=gain).low > 0 for _ in range(REPETITIONS)])
    assert 0.7 < seen < 0.9


@pytest.mark.parametrize("seeds", [6, 12])
def test_a_difference_of_0_03_in_geneval_is_seen_within_two_cpu_hours(seeds: int) -> None:
    """Six trainings of SFT and SOAR see it in about 80 % of cases, and twelve, which take two CPU hours, in more."""
    with unpacked([RECORDS]) as folders:
        noise = measure([read_study(folders)], ["sft", "soar"]).metrics[BINARY]
    world = World(alike(noise), np.random.default_rng(seeds))
    seen = np.mean([world.compared(seeds, gain=0.03).low > 0 for _ in range(REPETITIONS)])
    assert seen > {6: 0.7, 12: 0.9}[seeds]
