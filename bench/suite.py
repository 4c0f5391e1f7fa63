"""What an evaluation is: prompt sets, metrics and sampling settings, under one version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.rng import derive_seed


@dataclass(frozen=True)
class Prompt:
    """A text to draw and the facts that a rule-based metric checks.

    Attributes:
        id: unique within its prompt set.
        group: task name; metrics with ``grouped`` average these first.
        facts: what must be true of the picture, in the metric's own form (GenEval metadata, a sign's word, …).
    """

    id: str
    text: str
    group: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptSet:
    """Prompts drawn ``repeats`` times each and scored by ``metrics`` (registry names)."""

    name: str
    prompts: tuple[Prompt, ...]
    repeats: int
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Sampler:
    """How images are made: Euler steps of the probability-flow ODE, guidance scale, side in pixels."""

    steps: int
    guidance_scale: float
    resolution: int


@dataclass(frozen=True)
class Suite:
    """A versioned evaluation. Anything that changes a score is a new version.

    Attributes:
        roles: what a subset or a reward asks for ("aesthetic", "clipscore") → the metric that plays it here.
        notice: first line of every report: which world the numbers come from.
    """

    name: str
    version: int
    prompt_sets: tuple[PromptSet, ...]
    sampler: Sampler
    seed: int
    roles: Mapping[str, str]
    notice: str

    def noise_seed(self, prompt_set: str, prompt: Prompt, repeat: int) -> int:
        """Seed of an image's starting noise: the same for every method, different for every prompt and repeat."""
        return derive_seed(self.seed, prompt_set, prompt.id, prompt.text, repeat, "evaluation-noise")

    def metrics(self) -> list[tuple[str, PromptSet]]:
        """(metric, prompt set) in the order of the columns of a report."""
        return [(metric, prompts) for prompts in self.prompt_sets for metric in prompts.metrics]
