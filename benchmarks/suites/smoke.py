"""A handful of images of the embedded suite, for tests and for trying out a plugin."""

from __future__ import annotations

from bench.suite import PromptSet, Sampler, Suite
from benchmarks import world_prompts
from benchmarks.suites.embedded import NOTICE, ROLES


def suite() -> Suite:
    """One prompt per task and two signs, four sampling steps: too few to compare anything."""
    return Suite(
        name="smoke",
        version=2,
        prompt_sets=(
            PromptSet("scenes", world_prompts.geneval(1), 1, ("world_geneval", "world_clipscore", "world_aesthetic")),
            PromptSet("signs", world_prompts.signs(2), 1, ("ocr_rapid",)),
        ),
        sampler=Sampler(steps=4, guidance_scale=4.5, resolution=64),
        seed=2604,
        roles=ROLES,
        notice=NOTICE + " This is the smoke suite: too few images to compare anything.",
    )
