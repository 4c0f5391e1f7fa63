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

PINNED: dict[str, tuple[int, float]] = {}


def drawn(tags: tuple[str, ...], style: float, per_tag: int = 4) -> tuple[list[np.ndarray], list[Prompt]]:
    """True pictures of the first training prompts of each task, in one style."""
    rng = numpy_generator(5, 0, 0, "pinned")
    prompts = [
        prompt for tag in tags for prompt in scene.all_prompts(tag)[:: max(len(scene.all_prompts(tag)) // per_tag, 1)]
    ]
    pictures = [render(scene.compose(prompt, rng, style=style)) for prompt in prompts]
    return pictures, [world_prompts.as_prompt(prompt, i) for i, prompt in enumerate(prompts)]


def metric(name: str) -> Metric:
    made: Metric = registry.load("metrics", name)()
    return made


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_value_on_committed_inputs_is_pinned(name: str) -> None:
    images, prompts = drawn(("sign",) if name == "ocr_rapid" else V.TASKS, style=0.7)
    noisy = [
        np.clip(i + numpy_generator(9, n, 0, "noise").normal(0, 12, i.shape), 0, 255).astype(np.uint8)
        for n, i in enumerate(images)
    ]
    version, value = PINNED[name]
    assert metric(name).version == version
    assert np.mean(metric(name).score(noisy, prompts)) == pytest.approx(value, abs=2e-5)


def test_clipscore_prefers_the_true_caption() -> None:
    images, prompts = drawn(V.TASKS, style=0.5, per_tag=8)
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
