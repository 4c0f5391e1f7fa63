"""The jobs of an experiment: which there are, and what each of them trains with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from bench import registry
from bench.errors import BenchError
from bench.experiment.recipe import Recipe, recipe

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.method import Needs
    from bench.suite import Suite


@dataclass(frozen=True)
class JobKey:
    """What tells a job from the others of its experiment."""

    method: str
    subset: str
    seed: int

    @property
    def name(self) -> str:
        """Of the job's folder."""
        return f"{self.method}--{self.subset}--s{self.seed}"


def job_keys(config: ExperimentConfig) -> list[JobKey]:
    """The jobs of an experiment: method x subset x seed, seeds outermost: every method has a first result early."""
    return [JobKey(m, sub, seed) for seed, sub, m in product(config.seeds, config.subsets, config.methods)]


@dataclass(frozen=True)
class JobSpec:
    """A job and what it trains with.

    Attributes:
        reward: the metric that it learns from; None for a method that asks for no reward.
    """

    key: JobKey
    recipe: Recipe
    reward: str | None

    @property
    def name(self) -> str:
        """Of the job's folder."""
        return self.key.name


def job_specs(config: ExperimentConfig, suite: Suite | None, scale: str) -> list[JobSpec]:
    """The jobs of an experiment on a backbone of this scale (``embedded`` or ``full``).

    Args:
        suite: None where it cannot be read, for a plan: then rewards are not known.

    Raises:
        BenchError: one line for a configuration that does not hold.
    """
    recipes = {row: recipe(config, row, scale) for row in config.methods}
    return [
        JobSpec(key, made, reward_metric(config, key.subset, made.needs, suite) if suite else None)
        for key in job_keys(config)
        for made in [recipes[key.method]]
    ]


def reward_metric(config: ExperimentConfig, subset: str, needs: Needs, suite: Suite) -> str | None:
    """The metric a method trains on: the experiment's, or the one that its subset was cut by, or else the aesthetic.

    Raises:
        BenchError: it looks at facts that captions do not hold, or one picture tells it nothing.
    """
    if not (needs.reward or needs.differentiable_reward):
        return None
    if config.reward:
        metric = registry.load("metrics", config.reward)
        if metric.needs_facts or metric.per_prompt:
            why = "checks facts that captions do not hold" if metric.needs_facts else "compares a prompt's pictures"
            raise BenchError(f"{config.reward} cannot be the reward: it {why}")
        return config.reward
    return suite.metric_of(registry.load("subsets", subset).role or "aesthetic")
