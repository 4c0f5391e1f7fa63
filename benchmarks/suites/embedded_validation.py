"""The embedded world's prompts for tuning: none of them is in the suite ``embedded``."""

from __future__ import annotations

from bench.suite import Prompt, PromptSet, Sampler, Suite
from benchmarks import world_prompts
from benchmarks.suites import embedded
from data_curation.world import vocabulary as V

PER_TASK, WORDS = 12, 24
"""Held-out prompts of each of GenEval's tasks, and held-out words, beside those of the test suite."""


def suite() -> Suite:
    """The embedded metrics on 72 other scenes and 24 other words, all held out of training: what methods are tuned on.

    Held-out pairs, colours, counts and places are partly the test suite's, in other captions.
    """
    scenes = tuple(prompt for tag in V.TASKS for prompt in _untested(tag, embedded.PER_TASK, PER_TASK))
    varied = tuple(prompt for tag in V.TASKS for prompt in _untested(tag, embedded.PER_TASK, 1))
    return Suite(
        name="embedded_validation",
        version=2,
        prompt_sets=(
            PromptSet("signs", _untested("sign", embedded.WORDS, WORDS), 1, ("ocr_rapid",)),
            PromptSet("scenes", scenes, 1, embedded.SCENES),
            PromptSet("variety", varied, 4, embedded.VARIETY),
        ),
        sampler=Sampler(steps=20, guidance_scale=4.5, resolution=64),
        seed=2605,
        roles=embedded.ROLES,
        average_half_life=embedded.AVERAGE_HALF_LIFE,
        notice=embedded.NOTICE + " These are validation prompts, on which methods are tuned.",
    )


def _untested(tag: str, tested: int, count: int) -> tuple[Prompt, ...]:
    """The ``count`` held-out prompts of a task that follow those that are ``tested``."""
    return world_prompts.held_out(tag, tested + count)[tested:]
