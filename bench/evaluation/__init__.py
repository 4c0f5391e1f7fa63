"""Evaluate a painter on a suite in two passes: draw and keep the images with their seeds, then score them.

Either pass goes on where it was cut off, and scoring can be repeated or extended without drawing again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from bench.backbone.loader import Backbone
from bench.backbone.policy import Policy
from bench.evaluation.drawing import draw_suite
from bench.evaluation.painters import Conditions, Painter, PolicyPainter
from bench.evaluation.scoring import score_each, score_suite
from bench.machine.engine import Compute, Engine
from bench.metric import Metric
from bench.records.schema import EvaluationRecord
from bench.suite import Suite

__all__ = ["Conditions", "Evaluator", "Painter", "PolicyPainter", "draw_suite", "score_each", "score_suite"]


class Evaluator:
    """Holds what every evaluation of an experiment shares: the suite's prompts, their conditions, its metrics.

    Args:
        keep: metrics that stay loaded after they have scored, since a reward needs them.
    """

    def __init__(
        self,
        suite: Suite,
        backbone: Backbone,
        metrics: dict[str, Metric],
        engine: Engine | None = None,
        compute: Compute | None = None,
        keep: Collection[str] = (),
    ) -> None:
        self.suite, self.backbone, self.metrics, self._keep = suite, backbone, metrics, keep
        self.engine, self._batch = engine or Engine(), (compute or Compute()).evaluation_batch
        self._conditions = Conditions(backbone, suite.texts())

    def painter(self, policy: Policy) -> Painter:
        """A painter for a policy, with this suite's sampler."""
        return PolicyPainter(policy, self.backbone, self.suite.sampler, self._conditions)

    def run(
        self,
        painter: Painter,
        folder: Path,
        *,
        header: EvaluationRecord,
        on_the_way: bool = False,
        tick: Callable[[int], None] = lambda images: None,
    ) -> None:
        """Evaluate into ``folder``. Every process must call it.

        Args:
            header: written to ``evaluation.json`` (step, fraction, what was spent).
            on_the_way: draw the suite's part for evaluations before a job's last; the header then says so.
            tick: called with the number of images just drawn.
        """
        suite = self.suite
        if on_the_way and suite.on_the_way > 1:
            header, suite = header.model_copy(update={"every": suite.on_the_way}), suite.part()
        with self.backbone.vae_loaded():
            draw_suite(suite, painter, folder, header=header, engine=self.engine, batch=self._batch, tick=tick)
        score_suite(suite, self.metrics, folder, engine=self.engine, keep=self._keep)
