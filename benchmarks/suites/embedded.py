"""The embedded default: held-out scenes and signs of the shape world, four metrics, diversity and drift."""

from __future__ import annotations

from bench.suite import PromptSet, Sampler, Suite
from benchmarks import world_prompts

NOTICE = (
    "Numbers from the embedded shape world (tiny-sd3, 64 px): they compare methods there "
    "and say nothing about SD3.5-Medium's scores."
)
ROLES = {"geneval": "world_geneval", "ocr": "ocr_rapid", "clipscore": "world_clipscore", "aesthetic": "world_aesthetic"}

SCENES = ("world_geneval", "world_clipscore", "world_aesthetic", "world_vendi", "brightness", "saturation", "contrast")
"""The last four say how different a prompt's pictures are and how far a method drifts, where hacking shows first."""


def suite() -> Suite:
    """GenEval, ClipScore, Aesthetic, diversity and drift on 58 held-out scenes drawn twice; OCR on 36 held-out words.

    Version 2: diversity and drift. The images are those of version 1.
    """
    return Suite(
        name="embedded",
        version=2,
        prompt_sets=(
            PromptSet("signs", world_prompts.signs(36), 1, ("ocr_rapid",)),
            PromptSet("scenes", world_prompts.geneval(12), 2, SCENES),
        ),
        sampler=Sampler(steps=20, guidance_scale=4.5, resolution=64),
        seed=2604,
        roles=ROLES,
        notice=NOTICE,
    )
