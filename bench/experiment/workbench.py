"""What every part of an experiment works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.machine.crew import Crew

if TYPE_CHECKING:
    from pathlib import Path

    from bench.backbone.loader import Backbone
    from bench.corpus import Subset
    from bench.experiment.config import ExperimentConfig
    from bench.machine.engine import Engine
    from bench.machine.progress import Progress
    from bench.metric import Metric
    from bench.suite import Suite


@dataclass(frozen=True)
class Workbench:
    """The objects that every part of an experiment uses: its settings, and the objects made from them.

    Attributes:
        cache: folder of corpora, scores and latents.
        metrics: the suite's and the rewards, by name.
    """

    config: ExperimentConfig
    cache: Path
    engine: Engine
    backbone: Backbone
    suite: Suite
    metrics: dict[str, Metric]
    progress: Progress

    def metric_of(self, subset: Subset) -> Metric | None:
        """What a subset is cut by; None where it is cut by no score. BenchError where the suite has no such role."""
        return self.metrics[self.suite.metric_of(subset.role)] if subset.role else None

    @contextmanager
    def crew(self, task: str, pairs: int) -> Iterator[Crew]:
        """All processes, for a task on so many pairs; their ``tick`` moves the bar of the task."""
        with self.progress.task(task, pairs) as bar:
            yield Crew.of(self.engine, tick=bar.advance, say=self.progress.say)
