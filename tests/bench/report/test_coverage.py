"""How often intervals cover the truth, simulated with the shipped noise file on the suite's real groups.

A training adds a shift of its own to all prompts and something to each prompt; noise belongs to its prompt and is
shared by all rows; pictures have a rest of their own, and binary scores are drawn from what these make likely. Rows
differ in how much their trainings differ, as the file's degrees of freedom say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bench.records.archive import unpacked
from bench.report.components import Scores, fit_prior
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


@dataclass
class World:
    """Prompts of the suite's groups, with what is fixed of them for every row."""

    noise: MetricNoise
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.strata = np.repeat(np.arange(len(self.noise.groups)), self.noise.groups)
        self.prompt = self.draw(self.noise.prompt, len(self.strata))
        self.method = self.draw(self.noise.method_prompt / 2, ROWS, len(self.strata))

    def draw(self, variance: float, *shape: int) -> np.ndarray:
        return self.rng.normal(0, math.sqrt(variance), shape)

    def rows(self, seeds: int, repeats: int, gain: float = 0.0) -> list[Scores]:
        """Scores of every row; ``gain`` is what the first has more than the others."""
        size, noise = len(self.strata), self.noise
        shared, made = self.draw(noise.prompt_noise, size, repeats), []
        for method in self.method:
            centre = noise.df - 2 if noise.df > 3 else noise.df / 3  # as in reports
            spread = math.sqrt(centre / self.rng.chisquare(noise.df))
            own = noise.mean + self.prompt + method + (gain if not made else 0.0)
            y = own[:, None] + shared + self.draw(noise.method_noise / 2, size, repeats)
            y = y + spread * self.draw(noise.seed_shift, seeds, 1, 1)
            if noise.repeats > 1 or not noise.binary:  # or seed x prompt is what the draw below adds
                y = y + self.draw(noise.seed_prompt, seeds, size, 1)
            if noise.binary:
                y = (self.rng.uniform(size=y.shape) < y).astype(float)
            else:
                y = y + self.draw(noise.residual, *y.shape)
            made.append(Scores(y, self.strata))
        return made

    def compared(self, seeds: int, repeats: int = 1, gain: float = 0.0) -> Difference:
        """The difference of the first two rows of a report. The suite draws one picture a prompt."""
        rows = self.rows(seeds, repeats, gain)
        known = Trainings(fit_prior(rows), self.noise if seeds == 1 else None)
        keys = tuple((str(group), f"{at:04}") for at, group in enumerate(self.strata.tolist()))
        one, other = (estimate(row, keys, trainings=known) for row in rows[:2])
        return difference(one, other)

    def truth(self) -> float:
        """The difference of the first two rows on these prompts, over noise and trainings."""
        if not self.noise.binary:
            weights = Scores(np.zeros((1, len(self.strata), 1)), self.strata).weights
            return float((self.method[0] - self.method[1]) @ weights)
        one, other = self.rows(20, 800)[:2]
        return one.mean - other.mean


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
@pytest.mark.parametrize("metric", [BINARY, CONTINUOUS[1]])
def test_prompts_like_these_are_covered_at_the_stated_rate(metric: str, seeds: int) -> None:
    """Prompts are drawn anew each time, and all rows are alike over all prompts there could be."""
    rng = np.random.default_rng(seeds)
    found = [World(FILE.metrics[metric], rng).compared(seeds) for _ in range(REPETITIONS)]
    covered = np.mean([d.like.low <= 0 <= d.like.high for d in found])
    assert LOW - ERROR < covered < HIGH + ERROR


def test_prompts_like_these_are_no_wider_where_methods_do_not_differ_by_prompt() -> None:
    """Both variances are then of one quantity, and so agree in the mean. The wider one was a seventh too large."""
    world = World(FILE.metrics[BINARY], np.random.default_rng(1))
    world.method[:] = 0.0
    found = [world.compared(1, 2) for _ in range(REPETITIONS)]
    like, this = (np.mean([getattr(d, name).value for d in found]) for name in ("like_variance", "variance"))
    assert 0.92 < like / this < 1.06


@pytest.mark.parametrize("seeds", [3, 6])
def test_a_difference_that_power_promises_is_seen_about_as_often(seeds: int) -> None:
    """The promise is for two methods that do not differ by prompt; six rows moderate as many would."""
    noise = FILE.metrics[CONTINUOUS[1]]
    world = World(noise, np.random.default_rng(5))
    world.method[:] = 0.0
    design = Design(seeds, len(world.strata), 2)
    gain = smallest(variance(noise, design), 0.8)
    seen = np.mean([world.compared(seeds, 2, gain=gain).low > 0 for _ in range(REPETITIONS)])
    assert 0.7 < seen < 0.9


@pytest.mark.parametrize("seeds", [6, 12])
def test_a_difference_of_0_03_in_geneval_is_seen_within_two_cpu_hours(seeds: int) -> None:
    """Six trainings of SFT and SOAR see it in about 80 % of cases, and twelve, which take two CPU hours, in more."""
    with unpacked([RECORDS]) as folders:
        noise = measure([read_study(folders)], ["sft", "soar"]).metrics[BINARY]
    world = World(noise, np.random.default_rng(seeds))
    world.method[:] = 0.0
    gain, weights = 0.03, Scores(np.zeros((1, len(world.strata), 1)), world.strata).weights
    for _ in range(30):  # where a prompt is passed always or never, nothing is gained: others have to gain more
        made = np.clip(noise.mean + world.prompt + gain, 0, 1) - np.clip(noise.mean + world.prompt, 0, 1)
        gain *= 0.03 / float(made @ weights)
    seen = np.mean([world.compared(seeds, gain=gain).low > 0 for _ in range(REPETITIONS)])
    assert seen > {6: 0.7, 12: 0.9}[seeds]
