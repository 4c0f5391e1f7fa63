"""A folder that ``datasets.save_to_disk`` wrote as a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, Field, ValidationError

from bench import records
from bench.corpus import Problem
from bench.errors import BenchError, shown, unknown
from data_curation import columns
from data_curation.file_corpus import FileCorpus
from data_curation.listing import ListedRow
from data_curation.paths import Inside, as_on_disk


class SavedDataset(FileCorpus):
    """A folder written by datasets.save_to_disk, with a column of encoded pictures and one of captions.

    Such a folder is Arrow streams with a list of them in ``state.json``, which is read here without the package
    `datasets`. Pictures are memory-mapped. Columns of plain values are tags.

    Args:
        image, caption: columns; default: the first of ``columns.IMAGES`` and of ``columns.CAPTIONS``.
        split: of a folder that holds several; default: the only one, or ``train``.
    """

    layout = "a folder written by datasets.save_to_disk"

    def __init__(
        self,
        path: Path,
        cache: Path,
        resolution: int,
        *,
        aspect_buckets: bool = False,
        image: str = "",
        caption: str = "",
        split: str = "",
    ) -> None:
        self._paths = _streams(path, split)
        schema = _stream(self._paths[0]).schema
        self._image, self._caption = columns.choose(schema, image, caption, str(path))
        super().__init__(path, cache, resolution, aspect_buckets=aspect_buckets)

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()

    def _whole_files(self) -> list[Path]:
        return self._paths

    def _identity(self) -> dict[str, Any]:
        return {"names": [shown(path.name) for path in self._paths], "image": self._image}

    def _rows(self) -> Iterator[ListedRow | Problem]:
        for source, path in enumerate(self._paths):
            table, number = _stream(path), 0
            columns.choose(table.schema, self._image, self._caption, str(path))
            for batch in table.select(columns.light(table.schema, self._caption)).to_batches(max_chunksize=1024):
                yield from columns.rows(batch, self._caption, path.name, source, number)
                number += batch.num_rows

    def _data(self, index: int) -> bytes:
        table = _stream(self._paths[self._listing.get("source", index)])
        return columns.encoded(table.column(self._image)[self._listing.get("offset", index)])


class _File(BaseModel):
    filename: str = Field(min_length=1)


class _State(BaseModel):
    """What ``state.json`` says that matters here."""

    files: list[_File] = Field(alias="_data_files")
    selections: list[Any] | None = Field(None, alias="_indices_files")
    old_selections: list[Any] | None = Field(None, alias="_indices_data_files")


class _Splits(BaseModel):
    """What ``dataset_dict.json`` says."""

    splits: list[str] = Field(min_length=1)


def _streams(folder: Path, split: str) -> list[Path]:
    """The folder's Arrow files, which ``state.json`` lists; names that leave the folder are refused."""
    again = "save the dataset again"
    if (folder / "dataset_dict.json").is_file():
        splits = _said(folder / "dataset_dict.json", _Splits, "splits").splits
        chosen = split or (splits[0] if len(splits) == 1 else "train")
        if chosen not in splits:
            raise unknown("split", chosen, splits)
        if chosen in ("", ".", "..") or "/" in chosen or "\0" in chosen:
            raise BenchError(
                f"{folder / 'dataset_dict.json'} has the split {chosen!r}, which no folder can be; {again}"
            )
        folder = as_on_disk(folder, chosen)
    elif split:
        raise BenchError(f"{folder} has no splits, and {split!r} was asked for; leave ?split= out")
    state = folder / "state.json"
    said = _said(state, _State, "data files")
    if said.selections or said.old_selections:
        raise BenchError(f"{folder} is a selection of rows ({state.name} lists indices); flatten_indices() and {again}")
    inside = Inside(folder)
    paths = []
    for file in said.files:
        name = file.filename
        if "\0" in name or not inside.holds(folder / name):
            raise BenchError(f"{state} names {Path(name).name!r}, which lies outside the folder")
        path = as_on_disk(folder, name)
        if not path.is_file():
            raise BenchError(f"{path} is not there, although {state} lists it; {again}")
        paths.append(path)
    if not paths:
        raise BenchError(f"{folder} holds no usable image-caption pair")
    return paths


def _said(path: Path, model: type[Any], what: str) -> Any:
    """What a JSON file of the dataset says; a file that is no such one ends in one line."""
    try:
        return model.model_validate(records.read_json(path, "save the dataset again"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BenchError(
            f"{path} lists no {what} ({f'{where}: ' if where else ''}{first['msg']}); save the dataset again"
        ) from error


def _stream(path: Path) -> pa.Table:
    status = path.stat()
    return _opened(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(256)
def _opened(path: Path, *version: int) -> pa.Table:
    """A stream, checked from end to end of what stands beside the pictures: Arrow itself follows any offset."""
    try:
        table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        for column in table.columns:
            raw = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(column.type)
            column = column.cast(raw) if raw else column  # a text that is no UTF-8 costs its own row only
            column.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BenchError(f"{path} is cut short or damaged ({type(error).__name__}); save the dataset again") from error
    return table
