"""Columns of pictures and captions, as Parquet files and saved datasets have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from bench.corpus import BadPair
from bench.errors import BenchError, some
from data_curation.listing import ListedRow
from data_curation.paths import one_spelling
from data_curation.pictures import limited
from data_curation.tables import rows_of, tags_of

IMAGES = ("image", "jpg", "jpeg", "png", "webp", "img", "picture")
CAPTIONS = ("caption", "text", "caption_en", "prompt")
"""Names looked for, in this order, where the user names no column."""


def choose(schema: pa.Schema, image: str, caption: str, where: str) -> tuple[str, str]:
    """The columns of pictures and captions: those that were named, or the first known ones.

    Raises:
        BenchError: there is none, or the column of pictures holds no encoded pictures.
    """
    chosen = []
    for what, named, known in (("image", image, IMAGES), ("caption", caption, CAPTIONS)):
        wanted = (named,) if named else known
        spelled = {one_spelling(name): name for name in reversed(schema.names)}
        column = next((spelled[one_spelling(want)] for want in wanted if one_spelling(want) in spelled), None)
        if column is None:
            raise BenchError(
                f"{where} has no column of {what}s{f' named {named!r}' if named else ''}; "
                f"name one of its columns ({some(schema.names)}) with ?{what}=COLUMN after the path"
            )
        if schema.names.count(column) > 1:
            raise BenchError(f"{where} has two columns {column!r}; rename one of them")
        chosen.append(column)
    if not _holds_pictures(schema.field(chosen[0]).type):
        raise BenchError(
            f"the column {chosen[0]} of {where} holds {schema.field(chosen[0]).type}, not encoded pictures; "
            "it takes bytes, or a struct with bytes as `datasets` writes it"
        )
    return chosen[0], chosen[1]


def light(schema: pa.Schema, caption: str) -> list[str]:
    """The columns that a listing needs: the caption, and every column of plain values for tags."""
    return [
        field.name
        for field in schema
        if field.name == caption or (_is_plain(field.type) and schema.names.count(field.name) == 1)
    ]


def rows(batch: pa.RecordBatch, caption: str, label: str, source: int, first: int) -> Iterator[ListedRow]:
    """Rows of a batch without pictures. Its first row is row ``first`` of the file."""
    for number, row in enumerate(rows_of(batch), first):
        tags = {one_spelling(name): value for name, value in tags_of(row, (caption,)).items()}
        yield ListedRow(f"{label}:{number}", row[caption], tags=tags, source=source, offset=number)


def encoded(cell: pa.Scalar) -> bytes:
    """The encoded picture in a cell. Raises BadPair where there is none."""
    value: Any = cell
    if pa.types.is_struct(cell.type):
        if not cell.is_valid:
            raise BadPair("its picture is missing")
        value = cell["bytes"]
        if not value.is_valid and "path" in {field.name for field in cell.type} and cell["path"].is_valid:
            raise BadPair("its picture is given as a path outside the file, which is not followed")
    if not value.is_valid:
        raise BadPair("its picture is missing")
    limited(value.as_buffer().size)
    return bytes(value.as_py())


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values of a type can be tags."""
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return kind == pa.uuid() or any(test(kind) for test in _PLAIN)


_PLAIN = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_decimal,
    pa.types.is_temporal,
)


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return "bytes" in {field.name for field in kind} and _holds_pictures(kind.field("bytes").type)
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)
