"""Preference pairs of the shape world: two drawings of one caption, of which simulated annotators chose one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

from bench.rng import numpy_generator
from data_curation.world.corpus import Drawing, RenderedCorpus, render_corpus
from data_curation.world.scene import TrainingPrompts, compose

SHARPNESS = 10.0
"""Of the annotators: they choose the better drawn of two with probability ``sigmoid(SHARPNESS x difference in style)``
(Bradley & Terry 1952), which is the better one 88 % of the time for two styles drawn uniformly from [0, 1]. It is
this project's choice: people are not certain either."""


def preference_scene(seed: int, index: int, prompts: TrainingPrompts) -> Drawing:
    """Picture ``index``: one of pair ``index // 2``, with whether the annotators preferred it."""
    pair, place = divmod(index, 2)
    rng = numpy_generator(seed, pair, 0, "world-preference")
    prompt = prompts.draw(rng)
    scenes = [compose(prompt, rng) for _ in range(2)]
    first = rng.uniform() < 1 / (1 + math.exp(SHARPNESS * (scenes[1].style - scenes[0].style)))
    return scenes[place], {"pair": str(pair), "preferred": "1" if first == (place == 0) else "0"}


class WorldPreferences(RenderedCorpus):
    """Pairs of rendered scenes, one of each preferred by simulated annotators for its style.

    The world's aesthetic score was fitted to the same style.
    """

    name = "world_preferences"
    encodes: ClassVar = ("aesthetic",)
    tag_names: ClassVar = ("task", "pair", "preferred")

    def __init__(self, cache: Path, pairs: int = 1024, seed: int = 1) -> None:
        folder = render_corpus(cache / "corpora", 2 * pairs, seed, self.name, preference_scene)
        super().__init__(folder, {"pairs": pairs, "seed": seed, "sharpness": SHARPNESS})
