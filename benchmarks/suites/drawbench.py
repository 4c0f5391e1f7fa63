"""DrawBench as the paper draws it: 200 prompts five times each at 512 px, scored by Aesthetic and ClipScore."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench import assets
from bench.errors import BenchError
from bench.suite import Prompt, PromptSet, Sampler, Suite

PROMPTS, REPEATS = 200, 5
NOTICE = (
    "Numbers of a real model on DrawBench (200 prompts x 5, 512 px, 40 steps, CFG 4.5); the table names the backbone "
    "they come from."
)


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The 200 prompts in the order of their first line; ids 000 to 199.

    The release's file (NVlabs/DiffusionNFT @ 24af555) holds each prompt on five of its 1,000 lines, in mixed order.
    Raises BenchError for a file of another layout.
    """
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    times = Counter(lines)
    if len(times) != PROMPTS or set(times.values()) != {REPEATS} or "" in times:
        raise BenchError(
            f"{path} holds {len(lines)} lines with {len(times)} different prompts instead of {PROMPTS} prompts on "
            f"{REPEATS} lines each; run `bench assets fetch drawbench_prompts`"
        )
    return tuple(Prompt(f"{number:03d}", text) for number, text in enumerate(times))


def suite() -> Suite:
    """Aesthetic and ClipScore of SD3.5-scale models on DrawBench: 1,000 images. Needs `bench assets fetch`."""
    prompts = read_prompts(assets.path("drawbench_prompts"))
    return Suite(
        name="drawbench",
        version=1,
        prompt_sets=(PromptSet("drawbench", prompts, REPEATS, ("aesthetic", "clipscore")),),
        sampler=Sampler(steps=40, guidance_scale=4.5, resolution=512),
        seed=2604,
        roles={"aesthetic": "aesthetic", "clipscore": "clipscore"},
        notice=NOTICE,
    )
