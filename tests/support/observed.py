"""What a method did in a step, seen from outside: the calls it made, and its numbers in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fakes import World, small

from bench.job import Job
from bench.method import PostTrainingMethod


def prepare(world: World, name: str, **overrides: Any) -> tuple[Job, PostTrainingMethod]:
    """A fresh job and a method of the registry, set up."""
    job, method = world.job(), small(name, **overrides)
    method.setup(job)
    return job, method


def record(target: object, name: str, patch: pytest.MonkeyPatch) -> list[tuple]:
    """Record (arguments, result) of every call of a method from here on."""
    calls, original = [], getattr(target, name)

    def spy(*arguments, **options):
        result = original(*arguments, **options)
        calls.append((arguments, result))
        return result

    patch.setattr(target, name, spy)
    return calls


def wide(value: torch.Tensor) -> np.ndarray:
    return value.detach().double().numpy()


def column(value: np.ndarray) -> np.ndarray:
    return value.reshape(-1, 1, 1, 1)
