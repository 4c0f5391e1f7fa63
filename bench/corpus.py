"""What a corpus of image-caption pairs is to the harness."""

from __future__ import annotations

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from bench.errors import BenchError


@dataclass(frozen=True)
class Problem:
    """A pair that is left out, and why."""

    item: str
    reason: str


class BadPair(Exception):
    """A pair that is listed and cannot be used; the message is the reason, in one line."""


class Unreachable(BadPair):
    """A pair whose file is not there, or cannot be opened: trouble with the disk, and not with what it holds."""


class Corpus(ABC):
    """Pairs by index. Opening one lists it and decodes no picture, so an index may turn out to be no usable pair.

    What the listing alone rules out (an empty caption, a file that is not there) has no index and is in ``problems``;
    what only decoding shows raises BadPair. ``data_curation.scan`` tries every index once.

    Attributes:
        name: as given on the command line.
        quantiles: subset name → share of the corpus to keep, where a corpus's scores live on their own scale and the
            paper's thresholds mean nothing. Empty: the subset's own threshold or share holds.
        preferences: registered corpus of preference pairs that goes with this one, if there is one.
        encodes: of a corpus of preference pairs, the roles ("aesthetic") of metrics that were fitted to what its pairs
            prefer. A method that learns from them is not ranked in these metrics.
        holdout: registered corpus of fresh pairs of the same kind, which no method trains on. Empty: held-out pairs are
            a part of this one.
    """

    name: str
    preferences: ClassVar[str] = ""
    encodes: ClassVar[tuple[str, ...]] = ()
    holdout: ClassVar[str] = ""
    quantiles: ClassVar[Mapping[str, float]] = {}

    @abstractmethod
    def __len__(self) -> int:
        """Pairs listed, usable or not."""

    @abstractmethod
    def caption(self, index: int) -> str:
        """Caption of a pair; never empty."""

    @abstractmethod
    def image(self, index: int) -> np.ndarray:
        """Picture of a pair: uint8 (H, W, 3), brought to ``size(index)``. Raises BadPair."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of all that the corpus is: names, captions, tags, what each picture's file holds, resolution, buckets.

        Scans, scores and cuts are keyed by it, so it must be another one where any picture is another one.
        """

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels of ``image(index)``: its aspect-ratio bucket, or the resolution twice."""
        height, width = self.image(index).shape[:2]
        return width, height

    def key(self, index: int) -> str:
        """SHA-256 of one pair, from the picture as it is stored and the caption: the same at every resolution."""
        return hashlib.sha256(self.image(index).tobytes() + b"\0" + self.caption(index).encode()).hexdigest()

    def read(self, index: int) -> tuple[np.ndarray, str]:
        """``image`` and ``key`` at once, for a corpus that can have both from one reading. Raises BadPair."""
        return self.image(index), self.key(index)

    def label(self, index: int) -> str:
        """What a person finds a pair by, such as a file name."""
        return str(index)

    def tags(self, index: int) -> Mapping[str, str]:
        """What the corpus says of a pair besides its caption, for subsets that go by it."""
        return {}

    def problems(self) -> list[Problem]:
        """What the listing rules out. Never replaced by anything."""
        return []


@dataclass(frozen=True)
class Subset:
    """A rule that cuts a corpus by a score or by chance, by what the caption says, by tags, or by several of these.

    Attributes:
        role: which of the suite's metrics scores it ("aesthetic", …); None asks for no score.
        threshold: least score kept on a real corpus, from the paper.
        share: share of the pairs kept, in (0, 1], drawn by a hash of their contents; only without a role. None keeps
            all that meet the rest.
        caption: regular expression (``re.search``) that the caption must match.
        tags: tag → value that the pair must carry.
    """

    name: str
    role: str | None = None
    threshold: float | None = None
    share: float | None = None
    caption: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def check(self, threshold: float | None = None, quantile: float | None = None) -> None:
        """BenchError, in one line, for a rule that nothing can be cut by, or for a cut that the rule has no use for.

        Args:
            threshold: least score kept, instead of the subset's own.
            quantile: share kept, instead of a threshold or of the subset's own share.
        """
        if self.role is not None and self.share is not None:
            raise BenchError(f"the subset {self.name} has a score and a share; a share is drawn without a score")
        if self.share is not None and not 0 < self.share <= 1:
            raise BenchError(f"the subset {self.name} has a share of {self.share}; it is above 0 and at most 1")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise BenchError(f"the subset {self.name} has a threshold of {self.threshold}; it is a number")
        try:
            re.compile(self.caption or "")
        except re.error as error:
            raise BenchError(f"the caption rule of {self.name} is no regular expression: {error}") from error
        if texts := [tag for tag, value in self.tags.items() if not isinstance(value, str)]:
            raise BenchError(f"the subset {self.name} asks for a tag {texts[0]!r} that is no text; tags are texts")
        if threshold is not None and quantile is not None:
            raise BenchError("a subset is cut by its threshold or by its quantile, not by both")
        if threshold is not None and self.role is None:
            raise BenchError(f"the subset {self.name} asks for no score; it has no use for a threshold")
        if quantile is not None and self.role is None and self.share is None:
            raise BenchError(f"the subset {self.name} keeps all pairs that meet it; it has no use for a quantile")


@dataclass(frozen=True)
class Manifest:
    """A subset of one corpus, fixed: which pairs, by which score, with a hash of their content.

    Attributes:
        of: pairs listed in the corpus, usable or not.
        content_hash: over the sorted keys, so over pictures as stored and captions; not over the resolution.
        indices, keys, sizes: of the pairs kept, in the corpus's order; a size is (width, height) in pixels.
        held_out: the part that no method trains on, in the order of its keys; None where none was cut off.
    """

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
    keys: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    path: Path
    held_out: Manifest | None = None
