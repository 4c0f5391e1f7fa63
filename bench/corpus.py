"""What a corpus of image-caption pairs is to the harness."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Problem:
    """A pair that is left out, and why."""

    item: str
    reason: str


class Corpus(ABC):
    """Pairs by index. Pairs that cannot be used are listed in ``problems`` and have no index.

    Attributes:
        name: as given on the command line.
        quantiles: subset name → share of the corpus to keep, where a corpus's scores live on their own scale and the
            paper's thresholds mean nothing. Empty: the subset's own threshold holds.
    """

    name: str
    quantiles: ClassVar[Mapping[str, float]] = {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def caption(self, index: int) -> str:
        """Caption of a pair; never empty."""

    @abstractmethod
    def image(self, index: int) -> np.ndarray:
        """Picture of a pair: uint8 (H, W, 3) at the resolution the corpus was opened with."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the corpus's content; caches and scores are keyed by it."""

    def problems(self) -> list[Problem]:
        """Pairs left out. Never replaced by anything."""
        return []

    def key(self, index: int) -> str:
        """Content hash of one pair (picture and caption)."""
        return hashlib.sha256(self.image(index).tobytes() + b"\0" + self.caption(index).encode()).hexdigest()


@dataclass(frozen=True)
class Subset:
    """A rule that cuts a corpus by a score.

    Attributes:
        role: which of the suite's metrics scores it ("aesthetic", …); None keeps everything.
        threshold: least score kept on a real corpus, from the paper.
    """

    name: str
    role: str | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Manifest:
    """A subset of one corpus, fixed: which pairs, by which score, with a hash of their content."""

    subset: str
    corpus: str
    corpus_fingerprint: str
    metric: str | None
    metric_version: int | None
    threshold: float | None
    count: int
    of: int
    content_hash: str
    indices: tuple[int, ...]
    path: Path
