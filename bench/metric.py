"""What a metric is. The same object scores evaluations, curates corpora and serves as a reward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from bench.suite import Prompt


class Metric(ABC):
    """A number per image. Changing how it is computed makes a new ``version``, never a silent change.

    Attributes:
        label: column heading.
        version: of the computation.
        low, high: the range of a score (None: unbounded).
        digits: decimals in tables.
        grouped: average within ``Prompt.group`` first, then over groups (GenEval).
        needs_facts: the prompt's ``facts`` that must be there, so that a corpus without them is refused early.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    version: ClassVar[int]
    low: ClassVar[float | None] = None
    high: ClassVar[float | None] = None
    digits: ClassVar[int] = 3
    higher_is_better: ClassVar[bool] = True
    grouped: ClassVar[bool] = False
    needs_facts: ClassVar[tuple[str, ...]] = ()
    flops_per_image: float = 0.0
    """Charged when the metric is a training reward; 0 for rule-based metrics, whose cost shows in seconds."""

    def prepare(self) -> None:
        """Load what scoring needs. Raises BenchError, with how to get what is missing, before a run spends anything."""
        return

    @abstractmethod
    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        """Score uint8 (H, W, 3) images against their prompts, in order. May raise; the harness then goes one by one."""

    def describe(self) -> dict[str, Any]:
        """The part of a record that makes a score comparable."""
        return {
            "name": self.name,
            "label": self.label,
            "version": self.version,
            "higher_is_better": self.higher_is_better,
            "low": self.low,
            "high": self.high,
            "format": f".{self.digits}f",
            "grouped": self.grouped,
        }
