"""Every metric's value on pictures that this project draws. A change here is a new version of the metric."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench import registry
from bench.metric import Metric
from bench.rng import numpy_generator
from bench.suite import Prompt
from benchmarks import world_prompts
from data_curation.world import scene
from data_curation.world import vocabulary as V
from data_curation.world.render import render

PINNED = {
    "ocr_rapid": (1, 90, 0.75),
    "world_aesthetic": (2, 20, 7.067605),
    "world_clipscore": (2, 20, 0.788145),
    "world_geneval": (2, 30, 0.52),
}
"""Metric → version, noise on the pictures (standard deviation, of 255) against saturation, mean score."""


def drawn(tags: tuple[str, ...], style: float, per_tag: int = 8) -> tuple[list[np.ndarray], list[Prompt]]:
    """True pictures of prompts spread over each task, in one style."""
    rng = numpy_generator(5, 0, 0, "pinned")
    prompts = []
    for tag in tags:
        of_task = scene.all_prompts(tag)
        prompts += of_task[:: len(of_task) // per_tag]
    pictures = [render(scene.compose(prompt, rng, style=style)) for prompt in prompts]
    return pictures, [world_prompts.as_prompt(prompt, i) for i, prompt in enumerate(prompts)]


def noisy(picture: np.ndarray, number: int, spread: float) -> np.ndarray:
    noise = numpy_generator(9, number, 0, "noise").normal(0, spread, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def metric(name: str) -> Metric:
    made: Metric = registry.load("metrics", name)()
    return made


def pinned_score(name: str) -> float:
    images, prompts = drawn(("sign",) if name == "ocr_rapid" else V.TASKS, style=0.7)
    spread = PINNED[name][1]
    return float(np.mean(metric(name).score([noisy(im, n, spread) for n, im in enumerate(images)], prompts)))


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_value_on_committed_inputs_is_pinned(name: str) -> None:
    version, _, value = PINNED[name]
    assert metric(name).version == version
    assert pinned_score(name) == pytest.approx(value, abs=2e-5)


def test_clipscore_prefers_the_true_caption() -> None:
    images, prompts = drawn(V.TASKS, style=0.5)
    judge = metric("world_clipscore")
    true = np.array(judge.score(images, prompts))
    wrong = np.array(judge.score(images, prompts[1:] + prompts[:1]))
    assert np.mean(true > wrong) >= 0.95


def test_aesthetic_follows_style() -> None:
    judge = metric("world_aesthetic")
    means = [np.mean(judge.score(*drawn(V.TASKS, style))) for style in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert np.all(np.diff(means) > 0.5), means


def test_aesthetic_ignores_the_prompt() -> None:
    images, prompts = drawn(("colors",), style=0.5)
    judge = metric("world_aesthetic")
    assert judge.score(images, prompts) == judge.score(images, [replace(p, text="four rings") for p in prompts])
