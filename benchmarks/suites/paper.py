"""The paper's evaluation: GenEval, OCR and DrawBench at 512 px, its seven metrics and what it left open."""

from __future__ import annotations

from bench.suite import PromptSet, Sampler, Suite
from benchmarks import drawbench_prompts, geneval_prompts, ocr_prompts

NOTICE = (
    "Numbers of a real model on the paper's protocol (GenEval 553 x 4, OCR 1,018 x 1, DrawBench 200 x 5; 512 px, 40 "
    "steps, CFG 4.5); the table names the backbone they come from. OCR is read by RapidOCR, the paper's by PaddleOCR."
)
GENEVAL = ("geneval", "geneval_strict", "geneval_reward")
OCR = ("ocr_rapid",)
DRAWBENCH = ("pickscore", "clipscore", "hpsv2", "aesthetic", "imagereward")
"""What Table 2 of the SOAR paper (arXiv 2604.12617) heads "Model-Based (OOD DrawBench)", in its order. Tencent-Hunyuan/
HY-SOAR @ 59f0e02, ``soar/evaluation.py``, scores the same five there, and a sixth that the paper does not report."""
BEYOND = ("lpips_diversity", "vendi", "brightness", "saturation", "contrast")
"""Diversity, which the paper plans to measure, and drift, where reward hacking shows first."""


def suite() -> Suite:
    """The paper's seven metrics, diversity and drift: 4,230 images of SD3.5-scale models. Needs `bench assets fetch`.

    Size and guidance are section 3.1's, the 40 steps the default of the release's ``soar/evaluation.py``; T5 reads 256
    tokens, as every backbone does here by default. No reference sets a seed. DrawBench's pictures start from
    the same noise as those of the suite ``drawbench``.
    """
    return Suite(
        name="paper",
        version=1,
        prompt_sets=(
            PromptSet("geneval", geneval_prompts.prompts(), 4, GENEVAL),
            PromptSet("ocr", ocr_prompts.prompts(), 1, OCR),
            PromptSet("drawbench", drawbench_prompts.prompts(), drawbench_prompts.REPEATS, DRAWBENCH + BEYOND),
        ),
        sampler=Sampler(steps=40, guidance_scale=4.5, resolution=512),
        seed=2604,
        roles={"geneval": "geneval", "ocr": "ocr_rapid"} | {metric: metric for metric in DRAWBENCH},
        notice=NOTICE,
    )
