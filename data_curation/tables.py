"""Tables that list pairs: JSON lines, CSV or Parquet, read row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import BenchError

TAG_LENGTH = 200
"""Longest value, in characters, that is taken for a tag rather than for more text."""

csv.field_size_limit(1 << 24)  # the default of 128 KiB ends at a long caption


def read_table(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Rows of a ``.jsonl``, ``.csv`` or ``.parquet`` file with where each stands; None for a line that is no row."""
    readers = {".jsonl": read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    return readers[path.suffix](path)


def read_jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Objects of a JSON-lines file with ``file:line``; None where a line is no object. Empty lines are skipped."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield f"{path.name}:{number}", row if isinstance(row, dict) else None


def _read_csv(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        while True:
            try:
                row = next(reader, None)
            except csv.Error:
                yield f"{path.name}:{reader.line_num}", None
                continue
            if row is None:
                return
            yield f"{path.name}:{reader.line_num}", row


def _read_parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    with open_parquet(path) as file:
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                yield f"{path.name}:{number}", row
                number += 1


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file; one that is damaged or none at all ends in one line."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BenchError(f"{path} is no whole Parquet file; fetch it again or take it out of the folder") from error


def tags_of(row: Mapping[Any, Any], without: Iterable[str]) -> dict[str, str]:
    """The short plain values of a row, as text, except the columns that mean something else."""
    return {
        name: str(value)
        for name, value in row.items()
        if isinstance(name, str)
        and name not in set(without)
        and isinstance(value, (str, int, float))
        and len(str(value)) <= TAG_LENGTH
    }
