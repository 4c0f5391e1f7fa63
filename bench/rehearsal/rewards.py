"""What rewards a rehearsed job: the experiment's metric, if it is a torch model whose files are here; or a stand-in.

No metric computes a number on the pretended device. So scores are stated ones in either case: equal scores would train
nothing. Of a metric that is here, operators, memory and mix-ups are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from torch import Tensor

from bench import registry
from bench.errors import Missing
from bench.metric import Metric, checked
from bench.prompt import Prompt
from bench.rehearsal.stand_ins import StatedReward
from bench.rehearsal.tape import ACTIVATIONS, WEIGHTS, Tape


class RehearsedReward(StatedReward):
    """A metric that computes on the tape, and whose scores are the stated ones."""

    def __init__(self, metric: Metric, tape: Tape) -> None:
        self._metric, self._tape = metric, tape
        self.name = metric.name  # type: ignore[misc]

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        with self._tape.of(ACTIVATIONS, "reward"):
            checked(self._metric.score(images, prompts), len(images))
        return super().score(images, prompts)

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        with self._tape.of(ACTIVATIONS, "reward"):
            return self._metric.differentiable_score(pixels, prompts)


@contextmanager
def loaded(names: Sequence[str], tape: Tape) -> Iterator[tuple[Metric, str]]:
    """What scores, and how it is called in the output. A metric's models are freed afterwards.

    Args:
        names: of the metrics that reward the row's jobs. The first that can be rehearsed is.
    """
    reasons = []
    for name in names:
        metric: Metric = registry.load("metrics", name)()
        if reason := _why_not(metric, tape):
            reasons.append(f"{name}: {reason}")
            continue
        try:
            yield RehearsedReward(metric, tape), name
        finally:
            metric.release()
        return
    yield StatedReward(), f"a stand-in without a model ({'; '.join(reasons) or 'the suite names none here'})"


def _why_not(metric: Metric, tape: Tape) -> str:
    """Why a metric cannot be rehearsed; empty: it can, and is loaded."""
    try:
        if not (metric.differentiable or metric.flops_per_image):  # of rules: the device has nothing to do with it
            return "no torch model"
        with tape.of(WEIGHTS):
            metric.prepare()
    except (Missing, ImportError) as error:
        return str(error)
    return ""
