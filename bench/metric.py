"""What a metric is. The same object scores evaluations, curates corpora and serves as a reward."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench import records
from bench.assets import STAND_IN, identity
from bench.errors import BenchError
from bench.prompt import Prompt

if TYPE_CHECKING:
    from torch import Tensor


class Metric(ABC):
    """A number per image. Changing how it is computed makes a new ``version``, never a silent change.

    Attributes:
        label: column heading.
        version: of the computation.
        low, high: the range of a score (None: unbounded). A score outside of it is an error.
        digits: decimals in tables.
        grouped: average within ``Prompt.group`` first, then over groups (GenEval).
        ranked: False for a quantity that is neither good nor bad (brightness): shown, never ranked.
        per_prompt: ``score`` is given all pictures of one prompt together and returns the same number for each
            (diversity). The other metrics must return the same number whatever stands beside a picture.
        needs_facts: the prompt's ``facts`` that must be there, so that a corpus without them is refused early.
        assets: of ``bench assets`` that it needs; they are what pins its weights in records.
        differentiable: has ``differentiable_score``.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    version: ClassVar[int]
    low: ClassVar[float | None] = None
    high: ClassVar[float | None] = None
    digits: ClassVar[int] = 3
    higher_is_better: ClassVar[bool] = True
    grouped: ClassVar[bool] = False
    ranked: ClassVar[bool] = True
    per_prompt: ClassVar[bool] = False
    needs_facts: ClassVar[tuple[str, ...]] = ()
    assets: ClassVar[tuple[str, ...]] = ()
    differentiable: ClassVar[bool] = False
    flops_per_image: float = 0.0
    """Charged when the metric is a training reward; 0 for rule-based metrics, whose cost shows in seconds."""

    def prepare(self) -> None:
        """Load what scoring needs. Raises BenchError, with how to get what is missing, before a run spends anything."""
        return

    @abstractmethod
    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        """Score uint8 (H, W, 3) images against their prompts, in order. May raise; the harness then goes one by one."""

    def observations(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[str] | None:
        """What it saw in each picture, in a few words for a reader of the report; None where it has no such words.

        It is called after ``score`` with the same pictures, and may use what that found. No score depends on it.
        """
        return None

    def differentiable_score(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Scores (N,) of pictures (N, 3, H, W) in [0, 1], on any device, with a gradient to them.

        Preparation stays in tensors and is not rounded to 8 bits, so that values differ a little from ``score``'s.
        """
        raise NotImplementedError(f"{self.name} has no gradient")

    def release(self) -> None:
        """Free what ``prepare`` loaded; the next use loads it again."""
        return

    def edition(self) -> str:
        """Name of its scores in a cache: with its version, and with what stands in for its pinned weights."""
        others = [known for name in self.assets if (known := identity(name)).startswith(STAND_IN)]
        return f"{self.name}-v{self.version}" + (f"-{records.digest(others)[:8]}" if others else "")

    def describe(self) -> dict[str, Any]:
        """The part of a record that makes a score comparable."""
        pinned = {"weights": ", ".join(identity(name) for name in self.assets)} if self.assets else {}
        return (
            {
                "name": self.name,
                "label": self.label,
                "version": self.version,
                "higher_is_better": self.higher_is_better,
                "low": self.low,
                "high": self.high,
                "format": f".{self.digits}f",
                "grouped": self.grouped,
                "ranked": self.ranked,
            }
            | ({"per_prompt": True} if self.per_prompt else {})
            | pinned
        )


def checked(scores: Any, count: int) -> np.ndarray:
    """What a metric's ``score`` returned, as (count,) float64. NaN and infinity are let through.

    Raises:
        BenchError: it is not one number for each image. The message begins with "returned".
    """
    try:
        numbers = np.asarray(scores, dtype=np.float64)
        known = all(value is not None for value in scores)  # which NumPy would take for NaN
    except Exception:  # whatever a stranger's object raises when it is read as numbers
        known = False
    if not known:
        raise BenchError(f"returned {reprlib.repr(scores)} for {count} images, not a list of numbers")
    if numbers.shape != (count,):
        raise BenchError(f"returned shape {numbers.shape} for {count} images")
    return numbers


WORDS = 200
"""Most characters that records keep of what a metric saw in a picture. Ours: sixteen objects with their colours."""


def checked_words(words: Any, count: int) -> list[str] | list[None]:
    """What a metric's ``observations`` returned: a line for each image, cut to ``WORDS``, or None for each.

    Raises:
        BenchError: it is neither None nor one text for each image.
    """
    if words is None:
        return [None] * count
    if not isinstance(words, list) or len(words) != count or not all(isinstance(word, str) for word in words):
        raise BenchError(f"saw {reprlib.repr(words)} in {count} images, not a list of texts")
    lines = (" ".join(word.split()) for word in words)
    return [line if len(line) <= WORDS else f"{line[: WORDS - 1]}…" for line in lines]
