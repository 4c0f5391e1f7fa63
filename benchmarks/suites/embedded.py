"""The embedded default: held-out scenes and signs of the shape world, four metrics, diversity and drift."""

from __future__ import annotations

from bench.suite import PromptSet, Sampler, Suite
from benchmarks import world_prompts

NOTICE = (
    "Numbers from the embedded shape world (tiny-sd3, 64 px): they compare methods there "
    "and say nothing about SD3.5-Medium's scores."
)
ROLES = {"geneval": "world_geneval", "ocr": "ocr_rapid", "clipscore": "world_clipscore", "aesthetic": "world_aesthetic"}

SCENES = ("world_geneval", "world_clipscore", "world_aesthetic", "brightness", "saturation", "contrast")
"""The last three say how far a method drifts, where hacking shows first."""
VARIETY = ("world_vendi",)
"""How different a prompt's pictures are."""

PER_TASK, WORDS = 80, 120
"""Held-out prompts of each of GenEval's tasks, and held-out words."""
ON_THE_WAY = 10
"""Evaluations before a job's last draw every tenth prompt: 8 of a task and 12 words."""
AVERAGE_HALF_LIFE = 0.1
"""Jobs are evaluated with an average of their weights; docs/evaluation.md says why."""


def suite() -> Suite:
    """GenEval, ClipScore, Aesthetic and drift on 480 held-out scenes, OCR on 120 held-out words.

    Diversity is on 24 of the scenes, drawn four times each. Version 3: all held-out prompts of the world's version 4.
    """
    return Suite(
        name="embedded",
        version=3,
        prompt_sets=(
            PromptSet("signs", world_prompts.signs(WORDS), 1, ("ocr_rapid",)),
            PromptSet("scenes", world_prompts.geneval(PER_TASK), 1, SCENES),
            PromptSet("variety", world_prompts.geneval(4), 4, VARIETY),
        ),
        sampler=Sampler(steps=20, guidance_scale=4.5, resolution=64),
        seed=2604,
        roles=ROLES,
        notice=NOTICE,
        on_the_way=ON_THE_WAY,
        average_half_life=AVERAGE_HALF_LIFE,
    )
