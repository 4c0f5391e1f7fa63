"""A prompt: what a picture is drawn from and scored against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """A text to draw and the facts that a rule-based metric checks.

    Attributes:
        id: unique within its prompt set.
        group: task name; metrics with ``grouped`` average these first.
        facts: what must be true of the picture, in the metric's own form (GenEval metadata, a sign's word, …).
    """

    id: str
    text: str
    group: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
