"""A corpus's listing: one row per pair, on disk and memory-mapped, so that millions of captions take no memory."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench import records
from bench.corpus import Problem
from bench.errors import BenchError, shown
from bench.machine.spelling import trimmed
from bench.records import atomic

BATCH = 4096
"""Rows written at once, and so the most that are held while a corpus is listed."""

SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "caption": pa.string(),
        "length": pa.int64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "tags": pa.string(),
        "source": pa.int32(),
        "offset": pa.int64(),
        "content": pa.string(),
    }
)


@dataclass(frozen=True)
class ListedRow:
    """One pair as listed.

    Attributes:
        name: what a person finds it by; a file name inside the corpus's folder where there is one.
        length: bytes of the encoded picture (0: not known before it is read).
        width, height: in pixels, where the listing says so (0: it does not).
        source, offset: which file of several holds the picture, and where in it (a byte or a row).
        content: SHA-256 of the picture's file, where it is one of its own.
    """

    name: str
    caption: Any
    length: int = 0
    width: int = 0
    height: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    source: int = 0
    offset: int = 0
    content: str = ""


class Listing:
    """Rows by index, read from a memory-mapped Arrow file that all processes share."""

    def __init__(self, path: Path, fingerprint: str, problems: list[Problem]) -> None:
        self.path, self.fingerprint, self.problems = path, fingerprint, problems
        self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def get(self, column: str, index: int) -> Any:
        """One value."""
        return self._table.column(column)[index].as_py()

    def __reduce__(self) -> tuple[Any, ...]:
        return Listing, (self.path, self.fingerprint, self.problems)


def write_listing(folder: Path, identity: Mapping[str, Any], rows: Iterable[ListedRow | Problem]) -> Listing:
    """Write a corpus's rows and open them.

    Args:
        folder: where listings lie; each is named by its fingerprint.
        identity: what else makes the corpus what it is (loader, resolution, …).
        rows: pairs and problems in the corpus's order; a pair without a caption becomes a problem here.
    """
    writable = _writable(folder)
    place = folder if writable else Path(tempfile.gettempdir())
    hashed = hashlib.sha256(records.dumps(identity).encode())
    problems: list[Problem] = []
    batch: list[dict[str, Any]] = []
    try:
        with atomic.unfinished(place, "listing") as file:
            with pa.ipc.new_file(file, SCHEMA) as writer:
                for row in rows:
                    if isinstance(row, ListedRow) and (reason := _caption_problem(row)):
                        row = Problem(row.name, reason)
                    if isinstance(row, Problem):
                        problems.append(Problem(shown(row.item), shown(row.reason)))
                        continue
                    tags = json.dumps(row.tags) if row.tags else ""
                    values = vars(row) | {"caption": trimmed(row.caption), "tags": tags}
                    hashed.update(records.dumps(values).encode())
                    batch.append(values)
                    if len(batch) == BATCH:
                        writer.write_batch(pa.RecordBatch.from_pylist(batch, SCHEMA))
                        batch.clear()
                writer.write_batch(pa.RecordBatch.from_pylist(batch, SCHEMA))
            file.flush()
            path = folder / f"{hashed.hexdigest()[:16]}.arrow"
            if writable:
                atomic.keep(file, path)  # also in place of one that is there: nobody has looked whether it is whole
            elif not (path.exists() and filecmp.cmp(file.name, path, shallow=False)):
                raise BenchError(f"{path} is not there and cannot be written; put the cache elsewhere with --cache")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            message = f"the disk is full: could not write the listing in {folder}; free some space and run again"
            raise records.DiskFull(message) from error
        raise
    return Listing(path, hashed.hexdigest(), problems)


def _writable(folder: Path) -> bool:
    """Whether files can be put into a folder, which is made. A filled cache that cannot be written does for reading."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return False
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _caption_problem(row: ListedRow) -> str | None:
    if not isinstance(row.caption, str):
        return "its caption is no text"
    if not trimmed(row.caption):
        return "its caption is empty"
    try:
        row.caption.encode()
    except UnicodeEncodeError:
        return "its caption is no valid Unicode; save it as UTF-8"
    try:
        f"{row.name}{dict(row.tags)}".encode()
    except UnicodeEncodeError:
        return "its name or its tags are no valid Unicode; rename it"
    return None
