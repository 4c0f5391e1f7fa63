"""Files with methods that break one promise each, written where a test wants them."""

from __future__ import annotations

from pathlib import Path

HEAD = '''"""A plugin of a test."""

from __future__ import annotations

from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch

from bench import flow
from bench.method import AdamWConfig, Needs, PostTrainingMethod, Traits


class PlainConfig(AdamWConfig):
    """Settings."""

    batch_size: int = 4
    lr: float = 1e-3
    weight_decay: float = 0.0


'''
METHOD = '''class Plain(PostTrainingMethod):
    """Flow matching."""

    Config = PlainConfig
    needs = Needs(pairs=True)
    traits = Traits(*["-"] * 8)

    def setup(self, job):
        job.train_full(**self.config.adamw())

    def step(self, job):
        for pairs in job.pairs(self.config.batch_size):
            z1 = job.noise(pairs, "noise")
            sigma = job.uniform(pairs, "time")
            velocity = job.policy.velocity(flow.interpolate(pairs.latents, z1, sigma), sigma, pairs.text)
            loss = flow.velocity_error(velocity, z1 - pairs.latents).sum()
            job.accumulate(loss, len(pairs))
        job.update()
'''
SOUND = HEAD + METHOD


def changed(old: str, new: str, more: str = "") -> str:
    """The sound plugin with one place changed, and ``more`` of the class after it."""
    assert SOUND.count(old) == 1, old
    return SOUND.replace(old, new) + more


def line_of(source: str, text: str) -> int:
    """The one line that holds ``text``, from 1."""
    (found,) = (number for number, line in enumerate(source.splitlines(), start=1) if text in line)
    return found


def write(folder: Path, source: str, name: str = "mine") -> Path:
    """The plugin as a file."""
    path = folder / f"{name}.py"
    path.write_text(source)
    return path
