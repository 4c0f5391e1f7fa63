"""GenEval: does the picture show what its prompt asks for, by Mask2Former's objects and CLIP's colours?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from bench.metric import Metric
from bench.suite import Prompt
from benchmarks import clip_vit, geneval_colours, geneval_detector
from benchmarks.geneval_rule import Detection, in_words, is_correct

COUNTING = "counting"
"""The task whose objects must be surer."""


class GenEval(Metric):
    """1 for a picture that shows what its prompt says, else 0; overall the mean of the six tasks' means.

    Source: djghosh13/geneval @ af4902f, ``evaluation/evaluate_images.py`` and ``summary_scores.py``. An object too many
    is right unless the prompt's ``exclude`` forbids it. Facts: ``include`` and ``exclude`` clauses; a prompt's group is
    its task. Version 1 detects and names colours in float32 as ``geneval_detector`` and ``geneval_colours`` say.
    """

    name = "geneval"
    label = "GenEval"
    version = 1
    low, high = 0.0, 1.0
    grouped = True
    needs_facts: ClassVar = ("include",)
    assets: ClassVar = (geneval_detector.ASSET, geneval_detector.CLASSES_ASSET, clip_vit.ASSET)

    @property
    def flops_per_image(self) -> float:  # type: ignore[override]
        """The detector's on a square picture, and CLIP's on one crop; half the prompts name no colour, some two."""
        return geneval_detector.flops() + clip_vit.vision_flops()

    def prepare(self) -> None:
        """Load both models. Raises BenchError with how to get what is missing."""
        geneval_detector.class_names()
        geneval_detector.load()
        clip_vit.load()

    def release(self) -> None:
        """Free both models. What they found in the last pictures is kept for the other GenEval metrics."""
        geneval_detector.release()
        clip_vit.forget()

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [
            self.judge(detections(image, prompt), prompt.facts) for image, prompt in zip(images, prompts, strict=True)
        ]

    def observations(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[str]:
        return [
            in_words(detections(image, prompt), prompt.facts["include"])
            for image, prompt in zip(images, prompts, strict=True)
        ]

    def judge(self, objects: Sequence[Detection], facts: Any) -> float:
        """The score of what was found, given a prompt's facts."""
        return float(is_correct(objects, facts["include"], facts.get("exclude", ())))


def detections(image: np.ndarray, prompt: Prompt) -> list[Detection]:
    """What the picture shows. Colours are looked at only where a clause asks, in the objects it is about."""
    instances = geneval_detector.detect(image, counting=prompt.group == COUNTING)
    left: dict[str, int] = {}
    for clause in prompt.facts["include"]:
        if "color" in clause:
            left[clause["class"]] = max(left.get(clause["class"], 0), clause["count"])
    result = []
    for instance in instances:
        needs_colour = left.get(instance.name, 0) > 0
        if needs_colour:
            left[instance.name] -= 1
        result.append(
            Detection(
                instance.name,
                geneval_colours.colour(image, instance) if needs_colour else None,
                instance.box,
                instance.confidence,
            )
        )
    return result
