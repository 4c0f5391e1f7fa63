"""What every part of an evaluation without training works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from bench.evaluate.config import EvaluationConfig
    from bench.machine.engine import Engine
    from bench.machine.progress import Progress
    from bench.suite import Suite


@dataclass(frozen=True)
class EvaluationWorkbench:
    """The objects that every row of a command uses.

    Attributes:
        suite: with the columns that the run has.
        run: its folder.
        cache: folder of corpora, scores and latents.
    """

    config: EvaluationConfig
    suite: Suite
    run: Path
    cache: Path
    engine: Engine
    progress: Progress
