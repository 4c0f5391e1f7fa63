"""DrawBench as the paper draws it: 200 prompts five times each at 512 px, scored by Aesthetic and ClipScore."""

from __future__ import annotations

from bench.suite import PromptSet, Sampler, Suite
from benchmarks import drawbench_prompts

NOTICE = (
    "Numbers of a real model on DrawBench (200 prompts x 5, 512 px, 40 steps, CFG 4.5); the table names the backbone "
    "they come from."
)


def suite() -> Suite:
    """Aesthetic and ClipScore of SD3.5-scale models on DrawBench: 1,000 images. Needs `bench assets fetch`."""
    prompts = drawbench_prompts.prompts()
    return Suite(
        name="drawbench",
        version=1,
        prompt_sets=(PromptSet("drawbench", prompts, drawbench_prompts.REPEATS, ("aesthetic", "clipscore")),),
        sampler=Sampler(steps=40, guidance_scale=4.5, resolution=512),
        seed=2604,
        roles={"aesthetic": "aesthetic", "clipscore": "clipscore"},
        notice=NOTICE,
    )
