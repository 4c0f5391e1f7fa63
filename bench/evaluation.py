"""Evaluate a painter on a suite: generate, keep images and seeds, score, and write one record per image."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from bench import records
from bench.backbone.loader import Backbone, TextCondition
from bench.backbone.policy import Policy
from bench.engine import Compute, Engine
from bench.metric import Metric
from bench.rng import torch_generator
from bench.suite import Prompt, PromptSet, Sampler, Suite


class Painter(Protocol):
    """What draws a suite's images: the policy of a job, the base model, or another pipeline for context."""

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[np.ndarray]:
        """uint8 (H, W, 3) pictures, one per prompt and seed of its starting noise."""
        ...


class PolicyPainter:
    """Draws with a policy, by the suite's sampler. Conditions of prompts are encoded once."""

    def __init__(self, policy: Policy, backbone: Backbone, sampler: Sampler, conditions: Conditions) -> None:
        self._policy, self._backbone, self._sampler, self._conditions = policy, backbone, sampler, conditions

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[np.ndarray]:
        shape = self._backbone.latent_shape_of(self._sampler.resolution, self._sampler.resolution)
        noise = torch.stack([torch.randn(shape, generator=torch_generator(seed)) for seed in seeds])
        device, text = self._policy.engine.device, self._conditions[[p.text for p in prompts]]
        latents = self._policy.sample(
            noise.to(device), text.to(device), steps=self._sampler.steps, guidance_scale=self._sampler.guidance_scale
        )
        return list(self._backbone.decode(latents))


class Conditions:
    """Conditions of a suite's prompts by text, encoded together."""

    def __init__(self, backbone: Backbone, texts: Sequence[str]) -> None:
        distinct = sorted(set(texts))
        self._row = {text: i for i, text in enumerate(distinct)}
        self._text = backbone.encode_prompts(distinct)

    def __getitem__(self, texts: Sequence[str]) -> TextCondition:
        return self._text[torch.tensor([self._row[text] for text in texts])]


class Evaluator:
    """Holds what every evaluation of an experiment shares: the suite's prompts, their conditions, its metrics."""

    def __init__(
        self,
        suite: Suite,
        backbone: Backbone,
        metrics: dict[str, Metric],
        engine: Engine | None = None,
        compute: Compute | None = None,
    ) -> None:
        self.suite, self.backbone, self.metrics = suite, backbone, metrics
        self.engine, self._batch = engine or Engine(), (compute or Compute()).evaluation_batch
        self._conditions = Conditions(backbone, [p.text for s in suite.prompt_sets for p in s.prompts])

    def images(self) -> int:
        """Images per evaluation."""
        return sum(len(s.prompts) * s.repeats for s in self.suite.prompt_sets)

    def painter(self, policy: Policy) -> Painter:
        """A painter for a policy, with this suite's sampler."""
        return PolicyPainter(policy, self.backbone, self.suite.sampler, self._conditions)

    def run(
        self,
        painter: Painter,
        folder: Path,
        *,
        header: dict[str, Any],
        tick: Callable[[int], None] = lambda images: None,
    ) -> None:
        """Evaluate into ``folder``, which appears only when it is complete. Every process must call it.

        Args:
            header: written to ``evaluation.json`` (step, fraction, what was spent).
            tick: called with the number of images just drawn.
        """
        main, partial = self.engine.is_main, folder.with_name(f".{folder.name}.partial")
        if self.engine.broadcast((folder / "evaluation.json").exists()):
            return
        if main:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "images").mkdir(parents=True)
        self.engine.barrier()
        rows: list[dict[str, Any]] = []
        with self.backbone.vae_loaded():
            for prompts in self.suite.prompt_sets:
                rows += self._prompt_set(painter, prompts, partial, tick)
        if main:
            records.write_lines(partial / "samples.jsonl", rows)
            records.write_json(partial / "evaluation.json", {"v": records.VERSION, **header})
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        self.engine.barrier()

    def _prompt_set(
        self, painter: Painter, prompts: PromptSet, folder: Path, tick: Callable[[int], None]
    ) -> list[dict[str, Any]]:
        """Records of one prompt set. Processes take turns at whole batches, so that batches never depend on them."""
        drawn = [(prompt, repeat) for prompt in prompts.prompts for repeat in range(prompts.repeats)]
        batches = [drawn[start : start + self._batch] for start in range(0, len(drawn), self._batch)]
        mine = []
        for first in range(0, len(batches), self.engine.world_size):
            number = first + self.engine.rank
            if number < len(batches):
                mine.append((number, self._draw_and_score(painter, prompts, batches[number], folder)))
            else:  # weights that are spread over processes draw with all of them or not at all
                self._draw(painter, prompts, batches[0])
            tick(sum(map(len, batches[first : first + self.engine.world_size])))
        return [row for _, rows in sorted(self.engine.gather_rows(mine), key=lambda part: part[0]) for row in rows]

    def _draw(
        self, painter: Painter, prompts: PromptSet, batch: Sequence[tuple[Prompt, int]]
    ) -> tuple[list[np.ndarray], list[int]]:
        """Pictures of a batch, and the seeds of their noise."""
        seeds = [self.suite.noise_seed(prompts.name, prompt, repeat) for prompt, repeat in batch]
        return painter.draw([prompt for prompt, _ in batch], seeds), seeds

    def _draw_and_score(
        self, painter: Painter, prompts: PromptSet, batch: Sequence[tuple[Prompt, int]], folder: Path
    ) -> list[dict[str, Any]]:
        drawn = [prompt for prompt, _ in batch]
        images, seeds = self._draw(painter, prompts, batch)
        scores = {name: score_each(self.metrics[name], images, drawn) for name in prompts.metrics}
        rows = []
        for number, (prompt, repeat) in enumerate(batch):
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
                    "seed": seeds[number],
                    "image": file,
                    "scores": {name: scores[name][number] for name in prompts.metrics},
                }
            )
        return rows


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
