"""What curating a corpus will cost, said before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bench.corpus import Corpus
from bench.metric import Metric
from data_curation import scan, scoring

SAMPLE = 32
"""Pictures that are read and scored to measure the time."""

SCAN_BYTES, SCORE_BYTES = 80, 25
"""Disk that a pair takes in the scan and in the scores of one metric: measured on the parts of the shape world."""


@dataclass(frozen=True)
class Cost:
    """An estimate for one process's share of the work that is not done yet.

    Attributes:
        pictures: pictures to read.
        seconds: at the rate measured on the first of them.
        disk: bytes to write.
    """

    work: str
    pictures: int
    seconds: float
    disk: int

    def __str__(self) -> str:
        hours, minutes = divmod(round(self.seconds / 60), 60)
        took = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{self.seconds:.0f} s"
        return f"{self.work}: {self.pictures:,} pictures, about {took}, {self.disk / 1e6:.1f} MB on disk"


def estimate(corpus: Corpus, metric: Metric | None, cache: Path, *, rank: int = 0, world_size: int = 1) -> Cost | None:
    """The cost of scoring (None: of just scanning) what is missing of this process's parts; None if nothing is.

    The first pictures are read and scored to find the rate, once more before that so that loading a model is not in it.
    """
    parts = scan.scan_parts(corpus, cache)
    missing = set(parts.missing(rank, world_size))
    disk_per_pair = SCAN_BYTES
    if metric is not None:
        scored = scoring.metric_parts(corpus, metric, cache)
        missing |= set(scored.missing(rank, world_size))
        disk_per_pair += SCORE_BYTES
    if not missing:
        return None
    pictures = sum(len(parts.indices(start)) for start in missing)
    first = parts.indices(min(missing))[:SAMPLE]
    _try(corpus, metric, first[:1])
    start = time.monotonic()
    _try(corpus, metric, first)
    rate = (time.monotonic() - start) / len(first)
    work = f"score {corpus.name} with {metric.name}" if metric else f"scan {corpus.name}"
    return Cost(work, pictures, pictures * rate, pictures * disk_per_pair)


def _try(corpus: Corpus, metric: Metric | None, indices: range) -> None:
    for group in scan.read(corpus, indices):
        if metric is not None:
            scoring.score_group(corpus, metric, group)
