"""Evaluate a policy on a suite: generate, keep images and seeds, score, and write one record per image."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench import records
from bench.backbone.loader import Backbone, TextCondition
from bench.backbone.policy import Policy
from bench.metric import Metric
from bench.rng import torch_generator
from bench.suite import Prompt, PromptSet, Suite

BATCH = 48
"""Images sampled together. Noise does not depend on it."""


class Evaluator:
    """Holds what every evaluation of an experiment shares: the suite's prompts, their conditions, its metrics."""

    def __init__(self, suite: Suite, backbone: Backbone, metrics: dict[str, Metric]) -> None:
        self.suite, self.backbone, self.metrics = suite, backbone, metrics
        self._text: dict[str, TextCondition] = {}
        for prompts in suite.prompt_sets:
            self._text[prompts.name] = backbone.encode_prompts([p.text for p in prompts.prompts])

    def images(self) -> int:
        """Images per evaluation."""
        return sum(len(s.prompts) * s.repeats for s in self.suite.prompt_sets)

    def run(
        self,
        policy: Policy,
        folder: Path,
        *,
        header: dict[str, Any],
        tick: Callable[[int], None] = lambda images: None,
    ) -> None:
        """Evaluate into ``folder``, which appears only when it is complete.

        Args:
            header: written to ``evaluation.json`` (step, fraction, what was spent).
            tick: called with the number of images just drawn.
        """
        if (folder / "evaluation.json").exists():
            return
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "images").mkdir(parents=True)
        rows: list[dict[str, Any]] = []
        for prompts in self.suite.prompt_sets:
            rows += self._prompt_set(policy, prompts, partial, tick)
        records.write_lines(partial / "samples.jsonl", rows)
        records.write_json(partial / "evaluation.json", {"v": records.VERSION, **header})
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def _prompt_set(
        self, policy: Policy, prompts: PromptSet, folder: Path, tick: Callable[[int], None]
    ) -> list[dict[str, Any]]:
        drawn = [(i, prompt, repeat) for i, prompt in enumerate(prompts.prompts) for repeat in range(prompts.repeats)]
        sampler, images = self.suite.sampler, []
        for start in range(0, len(drawn), BATCH):
            part = drawn[start : start + BATCH]
            noise = torch.stack([self._noise(prompts.name, prompt, repeat) for _, prompt, repeat in part])
            text = self._text[prompts.name][torch.tensor([i for i, _, _ in part])]
            latents = policy.sample(noise, text, steps=sampler.steps, guidance_scale=sampler.guidance_scale)
            images += list(self.backbone.decode(latents))
            tick(len(part))
        scores = {
            name: score_each(self.metrics[name], images, [prompt for _, prompt, _ in drawn]) for name in prompts.metrics
        }
        rows = []
        for number, (_, prompt, repeat) in enumerate(drawn):
            file = f"images/{prompts.name}-{prompt.id}-{repeat}.png"
            Image.fromarray(images[number]).save(folder / file)
            rows.append(
                {
                    "v": records.VERSION,
                    "prompt_set": prompts.name,
                    "prompt_id": prompt.id,
                    "prompt": prompt.text,
                    "group": prompt.group,
                    "repeat": repeat,
                    "seed": self.suite.noise_seed(prompts.name, prompt, repeat),
                    "image": file,
                    "scores": {name: scores[name][number] for name in prompts.metrics},
                }
            )
        return rows

    def _noise(self, prompt_set: str, prompt: Prompt, repeat: int) -> torch.Tensor:
        generator = torch_generator(self.suite.noise_seed(prompt_set, prompt, repeat))
        return torch.randn(self.backbone.latent_shape, generator=generator)


def score_each(metric: Metric, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Score images; one that fails gets an error instead of a score, and the others keep theirs."""
    try:
        values = metric.score(images, prompts)
    except Exception:
        values = []
    if len(values) != len(images):
        return [_score_one(metric, image, prompt) for image, prompt in zip(images, prompts, strict=True)]
    return [_cell(metric, value) for value in values]


def _score_one(metric: Metric, image: np.ndarray, prompt: Prompt) -> dict[str, Any]:
    try:
        (value,) = metric.score([image], [prompt])
    except Exception as error:
        return {"version": metric.version, "error": f"{type(error).__name__}: {error}"}
    return _cell(metric, value)


def _cell(metric: Metric, value: float) -> dict[str, Any]:
    if not math.isfinite(value):
        return {"version": metric.version, "error": "not a finite number"}
    return {"version": metric.version, "score": round(float(value), 6)}
