"""The embedded world's prompts for tuning: none of them is in the suite ``embedded``."""

from __future__ import annotations

from bench.rng import numpy_generator
from bench.suite import Prompt, PromptSet, Sampler, Suite
from benchmarks import world_prompts
from benchmarks.suites import embedded
from data_curation.world import scene

COUNTS = {"single_object": 4, "two_object": 4, "counting": 4, "colors": 4, "position": 8, "color_attr": 8}
"""Scenes per task; the test suite leaves four held-out ones of ``two_object`` and of ``colors``."""


def suite() -> Suite:
    """The embedded metrics on 32 other scenes drawn twice and 24 other words: what methods are tuned on.

    All captions are held out of training but those of two tasks, of which the test suite takes every held-out one:
    one shape and counting use training captions. Held-out pairs, colours and counts are partly the test suite's, in
    other captions.
    """
    tested = frozenset(embedded.suite().texts())
    scenes = tuple(prompt for tag, count in COUNTS.items() for prompt in _untested(tag, count, tested))
    return Suite(
        name="embedded_validation",
        version=1,
        prompt_sets=(
            PromptSet("signs", _untested("sign", 24, tested), 1, ("ocr_rapid",)),
            PromptSet("scenes", scenes, 2, embedded.SCENES),
        ),
        sampler=Sampler(steps=20, guidance_scale=4.5, resolution=64),
        seed=2605,
        roles=embedded.ROLES,
        notice=embedded.NOTICE + " These are validation prompts, on which methods are tuned.",
    )


def _untested(tag: str, count: int, tested: frozenset[str]) -> tuple[Prompt, ...]:
    """``count`` prompts of a task that are not ``tested``: held-out ones, or training ones where none is left."""
    prompts = scene.all_prompts(tag)
    held_out = [p for p in world_prompts.held_out(tag, len(prompts)) if p.text not in tested]
    if held_out:
        return tuple(held_out[:count])
    trained = [prompt for prompt in prompts if not prompt.held_out]
    order = numpy_generator(0, 0, 0, f"validation-prompts-{tag}").permutation(len(trained))
    return tuple(world_prompts.as_prompt(trained[i], number) for number, i in enumerate(order[:count].tolist()))
