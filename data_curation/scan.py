"""Tries every pair once: what its content hash and size are, or why it cannot be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from bench import records
from bench.corpus import BadPair, Corpus
from bench.errors import BenchError
from bench.machine.crew import ALONE, Crew
from bench.report.text import cell
from data_curation.parts import Parts

SCHEMA = pa.schema(
    {
        "index": pa.int64(),
        "key": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "problem": pa.string(),
    }
)

PIXEL_BYTES = 1 << 26
"""Decoded pictures held at once, in bytes: 64 MiB, or 85 pictures of 512 px."""

THREADS = min(8, os.cpu_count() or 1)
"""Pictures decoded at once; Pillow lets other threads run meanwhile."""


@dataclass(frozen=True)
class Tried:
    """A pair that was read: its picture and key, or the problem."""

    index: int
    image: np.ndarray | None = None
    key: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Counts:
    """What became of the pairs of a corpus.

    Attributes:
        listed: pairs with an index.
        left_out: ruled out by the listing (these have no index) or by decoding.
        duplicates: same picture and same caption as an earlier pair, byte for byte.
        kept: usable, each content once.
    """

    listed: int
    left_out: int
    duplicates: int
    kept: int

    def __str__(self) -> str:
        return f"{self.kept} usable pairs ({self.left_out} left out, {self.duplicates} exact duplicates dropped)"


def scan(corpus: Corpus, cache: Path, crew: Crew = ALONE) -> None:
    """Decode every picture of this process's parts once; parts that are there are kept.

    Parts lie in ``cache/scans/<corpus>/`` with columns index, key (SHA-256 of the picture as stored and the caption),
    width, height (as the corpus hands the picture out) and problem (null for a usable pair).

    Args:
        crew: who shares the work; the parts are dealt out in turn. Its ``tick`` hears of each part.
    """
    parts = scan_parts(corpus, cache)
    for start in parts.starts(crew.rank, crew.world_size):
        indices = parts.indices(start)
        if not parts.path(start).exists():
            rows = [scan_row(pair) for group in read(corpus, indices) for pair in group]
            parts.write(start, pa.Table.from_pylist(rows, SCHEMA))
        crew.tick(len(indices))


def scan_parts(corpus: Corpus, cache: Path) -> Parts:
    """Where a corpus's scan lies."""
    return Parts(cache / "scans" / corpus.fingerprint[:16], len(corpus))


def scan_row(pair: Tried) -> dict[str, object]:
    """A row of a scan."""
    height, width = pair.image.shape[:2] if pair.image is not None else (None, None)
    return {"index": pair.index, "key": pair.key, "width": width, "height": height, "problem": pair.problem}


def read(corpus: Corpus, indices: range) -> Iterator[list[Tried]]:
    """Read pairs in order, in groups that take bounded memory."""
    count = _group(corpus, indices.start)
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(indices.start, indices.stop, count):
            group = range(start, min(start + count, indices.stop))
            yield list(pool.map(lambda index: _try(corpus, index), group))


def _group(corpus: Corpus, index: int) -> int:
    try:
        width, height = corpus.size(index)
    except BadPair:
        return THREADS
    return max(1, PIXEL_BYTES // (3 * width * height))


def _try(corpus: Corpus, index: int) -> Tried:
    try:
        image, key = corpus.read(index)
    except BadPair as problem:
        return Tried(index, problem=str(problem))
    return Tried(index, image, key)


def usable(corpus: Corpus, cache: Path) -> tuple[pd.DataFrame, Counts]:
    """The pairs that a whole scan found usable, each content once: index, key, width and height, in order.

    Raises:
        BenchError: a part of the scan is missing or damaged, or no pair is usable.
    """
    frame = scan_parts(corpus, cache).read(SCHEMA.names).to_pandas()
    bad = frame["problem"].notna()
    good = frame[~bad]
    duplicate = good["key"].duplicated()
    usable_pairs = good.loc[~duplicate, ["index", "key", "width", "height"]].astype({"width": int, "height": int})
    left_out = len(corpus.problems()) + int(bad.sum())
    if usable_pairs.empty:
        example = frame.loc[bad, "problem"].iloc[0] if bad.any() else "it is empty"
        raise BenchError(f"{corpus.name} has no usable pair: all {left_out} are left out, e.g. because {example}")
    return usable_pairs.reset_index(drop=True), Counts(len(corpus), left_out, int(duplicate.sum()), len(usable_pairs))


def write_problems(corpus: Corpus, cache: Path) -> tuple[list[tuple[str, str]], Path]:
    """Every pair that is left out as (item, reason), written to ``problems.csv`` beside the scan."""
    parts = scan_parts(corpus, cache)
    frame = parts.read(["index", "problem"]).to_pandas()
    bad = frame[frame["problem"].notna()]
    rows = [(problem.item, problem.reason) for problem in corpus.problems()]
    rows += [(corpus.label(index), reason) for index, reason in zip(bad["index"], bad["problem"], strict=True)]
    path = parts.folder / "problems.csv"
    table = pd.DataFrame([map(cell, row) for row in rows], columns=["item", "reason"]).to_csv(index=False).encode()
    records.write_if_new(path, table)
    return rows, path
