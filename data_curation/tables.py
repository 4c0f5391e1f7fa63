"""Tables that list pairs: JSON lines, CSV or Parquet, read row by row."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from bench.corpus import BadPair
from bench.errors import BenchError, some
from data_curation.paths import one_spelling
from data_curation.pictures import SUFFIXES

TAG_LENGTH = 200
"""Longest value, in characters, that is taken for a tag rather than for more text."""

PLAIN = (str, int, float, bool, Decimal, date, time, timedelta, UUID)
"""Values that can be tags."""

FILE_NAME = "file_name"
"""The column of Hugging Face's ImageFolder that names the picture."""

MOST_TEXT = 1 << 20
"""A record of several lines with more characters has a quote that does not close."""

TableRow = tuple[str, Mapping[str, Any] | str | None]

csv.field_size_limit(1 << 24)  # the default of 128 KiB ends at a long caption


def read_table(path: Path) -> Iterator[TableRow]:
    """Rows of a ``.jsonl``, ``.csv`` or ``.parquet`` file, each with its place.

    A line without a row gives None or a reason. Names of columns are in one spelling.
    """
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise BenchError(f"{path} is UTF-16; save it as UTF-8")
    readers = {".jsonl": read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    for where, row in readers[path.suffix](path):
        if isinstance(row, Mapping):
            row = {one_spelling(name): value for name, value in row.items()}
        yield where, row


def read_jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Objects of a JSON-lines file with ``file:line``; None where a line is no object. Empty lines are skipped."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)  # of bytes, so that a byte-order mark is none of its text
            except (ValueError, RecursionError):
                row = None
            yield f"{path.name}:{number}", row if isinstance(row, dict) else None


def _read_csv(path: Path) -> Iterator[TableRow]:
    """Rows of a CSV file. A row of another number of fields than the header has lost a quote somewhere.

    So has a text that takes in a line which is a row itself. Reading goes on after the first line of such a row.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _Lines(file)
        _, header = next(_records(lines), (1, []))
        if isinstance(header, str):
            raise BenchError(f"the header of {path} cannot be read: {header}")
        header = [name.strip() for name in header]
        if twice := next((name for name in header if name and header.count(name) > 1), None):
            raise BenchError(f"{path} has two columns {twice!r}; rename one of them")
        named = len(header) - next((i for i, name in enumerate(reversed(header)) if name), 0)
        names = header.index(FILE_NAME) if FILE_NAME in header else None
        for number, fields in _records(lines, None if names is None else (names, len(header))):
            where = f"{path.name}:{number}"
            if isinstance(fields, str):
                yield where, fields
            elif len(fields) != len(header) or any(fields[named:]):
                yield (
                    where,
                    (
                        f"it has {len(fields)} fields and the header has {named} ({some(header[:named])}); "
                        "a text with a comma in it needs quotes around it"
                    ),
                )
            else:
                yield where, dict(zip(header, fields, strict=True))


class _Lines:
    """Lines of a file that can be put back."""

    def __init__(self, file: Iterable[str]) -> None:
        self._file, self._back, self.number = iter(file), list[str](), 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._back.pop() if self._back else next(self._file)
        self.number += 1
        return line

    def put_back(self, lines: list[str]) -> None:
        self._back += reversed(lines)
        self.number -= len(lines)


def _records(lines: _Lines, row: tuple[int, int] | None = None) -> Iterator[tuple[int, list[str] | str]]:
    """Fields of each record with the number of its first line, or why it is none. Empty lines are skipped.

    Args:
        row: which field names a picture, and of how many; by these a line inside a text is known for a row.
    """
    while True:
        first, taken = lines.number + 1, list[str]()
        try:
            fields = next(csv.reader(_until_a_row(lines, taken, row), strict=True, skipinitialspace=True), None)
        except csv.Error as error:
            lines.put_back(taken[1:])
            yield first, f"a quote in it does not close ({error}); a quote inside a quoted text is written twice"
            continue
        if fields is None:
            return
        if fields:
            yield first, fields


def _until_a_row(lines: _Lines, taken: list[str], row: tuple[int, int] | None) -> Iterator[str]:
    """Lines of one record, which ends before a line that is a row itself; ``taken`` has them all."""
    length = 0
    for line in lines:
        taken.append(line)
        length += len(line)
        if len(taken) > 1 and (length > MOST_TEXT or (row and _is_row(line, *row))):
            return
        yield line


def _is_row(line: str, names: int, width: int) -> bool:
    fields = next(csv.reader([line], skipinitialspace=True), [])
    return len(fields) == width and fields[names].strip().lower().endswith(SUFFIXES)


def _read_parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    number = 0
    with open_parquet(path) as file:
        try:
            for batch in file.iter_batches(batch_size=1024):
                for row in rows_of(batch):
                    yield f"{path.name}:{number}", row
                    number += 1
        except (pa.ArrowException, OSError) as error:
            reraise_disk_trouble(error)
            raise BenchError(f"{path} is damaged after row {number}; write it again") from error


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch. A text that is no UTF-8 is one with half characters in it, and costs its own row.

    A value that Python has none for, such as a date after the year 9999, is None.
    """
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except _UNREADABLE:
        columns = zip(batch.schema.names, batch.columns, strict=True)
        cells = {name: [_value(cell) for cell in column] for name, column in columns}
        rows = [{name: cells[name][number] for name in cells} for number in range(batch.num_rows)]
    return rows


_UNREADABLE = (UnicodeDecodeError, OverflowError, ValueError, pa.ArrowInvalid)
"""What Arrow raises for a value that it has and Python has not: a later date, nanoseconds, an unknown time zone."""


def _value(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except _UNREADABLE:
        text = pa.types.is_string(cell.type) or pa.types.is_large_string(cell.type)
        return bytes(cell.as_buffer()).decode("utf-8", "surrogateescape") if text else None


def reraise_disk_trouble(error: Exception) -> None:
    """Let through what the system reported; Arrow raises OSError for damaged data too, without an errno."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def text_of(data: bytes, name: str) -> str:
    """The text of a file that a user wrote, without the byte-order mark that some editors put. Raises BadPair."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadPair(f"its caption {name} is no UTF-8 text (byte {error.start}); save it as UTF-8") from error


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file; one that is damaged or none at all ends in one line."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        reraise_disk_trouble(error)
        raise BenchError(f"{path} is no whole Parquet file; fetch it again or take it out of the folder") from error


def tags_of(row: Mapping[Any, Any], without: Iterable[str]) -> dict[str, str]:
    """The short plain values of a row, as text, except the columns that mean something else."""
    left_out = set(without)
    return {
        name: str(value)
        for name, value in row.items()
        if isinstance(name, str)
        and name not in left_out
        and isinstance(value, PLAIN)
        and value == value  # no NaN, which is a table's word for nothing
        and len(str(value)) <= TAG_LENGTH
    }
