"""Tables made in parts: shared out over processes, resumed at the first missing part, read a few columns at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from bench.errors import BenchError, one_line
from data_curation import sealed

PART = 512
"""Pairs in a part; a killed run loses at most one part per process."""

PATIENCE = 30.0
"""Seconds to wait for a file that another machine has written: network disks show it late."""


@dataclass(frozen=True)
class Parts:
    """A table of ``total`` rows in a folder, as ``part-<first row>.parquet``."""

    folder: Path
    total: int

    def starts(self, rank: int = 0, world_size: int = 1) -> list[int]:
        """First rows of the parts of one process of several."""
        return list(range(0, self.total, PART)[rank::world_size])

    def indices(self, start: int) -> range:
        """Rows of the part."""
        return range(start, min(start + PART, self.total))

    def path(self, start: int) -> Path:
        return self.folder / f"part-{start:09d}.parquet"

    def missing(self, rank: int = 0, world_size: int = 1) -> list[int]:
        """The parts of ``starts`` that are missing."""
        return [start for start in self.starts(rank, world_size) if not self.path(start).exists()]

    def write(self, start: int, table: pa.Table) -> None:
        """Write a part whole or not at all."""
        sealed.write(self.path(start), table)

    def read(self, columns: list[str]) -> pa.Table:
        """These columns of all parts. A part that is missing, damaged or changed ends in one line that names it."""
        tables = []
        for start in self.starts():
            path, rows = self.path(start), len(self.indices(start))
            again = "delete it and its pairs are done again"
            try:
                table = sealed.read(path, columns)
            except FileNotFoundError as error:
                raise BenchError(f"{path} is not there; let every shard finish, then run this again") from error
            except (pa.ArrowException, OSError, ValueError, LookupError) as error:
                raise BenchError(f"{path} is damaged ({one_line(str(error))}); {again}") from error
            if table.num_rows != rows:
                raise BenchError(f"{path} has {table.num_rows} rows instead of {rows}; {again}")
            tables.append(table)
        return pa.concat_tables(tables)


def wait_for(path: Path, patience: float | None = None) -> bool:
    """Whether a file that another process has written is there, or comes into sight within ``patience`` seconds."""
    until = time.monotonic() + (PATIENCE if patience is None else patience)
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True
