"""Parquet tables that show when they were changed: the hash of each column stands in the file."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench import records

SEAL = b"bench.sha256"
"""Key of the file's metadata that holds the columns' hashes, as JSON."""


def write(path: Path, table: pa.Table) -> None:
    """Write a table whole or not at all, with the hashes of its columns."""
    seal = json.dumps({name: _digest(table.column(name)) for name in table.column_names})
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({SEAL: seal}), buffer)
    records.write_bytes(path, buffer.getvalue())


def read(path: Path, columns: Sequence[str]) -> pa.Table:
    """These columns of a table that ``write`` wrote.

    Raises:
        FileNotFoundError: it is not there.
        ValueError, OSError: it cannot be read, or holds something else than was written.
    """
    with path.open("rb") as file:
        table = pq.read_table(file, columns=list(columns), partitioning=None)
    try:
        seal = json.loads((table.schema.metadata or {})[SEAL])
    except KeyError as error:
        raise ValueError("it has no hash: another version or another program wrote it") from error
    for name in columns:
        if _digest(table.column(name)) != seal.get(name):
            raise ValueError(f"its column {name} was changed after it was written")
    return table.replace_schema_metadata(None)


def _digest(column: pa.ChunkedArray) -> str:
    return hashlib.sha256(json.dumps(column.to_pylist()).encode()).hexdigest()
