"""A folder that ``datasets.save_to_disk`` wrote as a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench import records
from bench.corpus import Problem
from bench.errors import BenchError, unknown
from data_curation import columns
from data_curation.file_corpus import FileCorpus
from data_curation.listing import Row


class SavedDataset(FileCorpus):
    """A folder written by datasets.save_to_disk, with a column of encoded pictures and one of captions.

    Such a folder is Arrow streams with a list of them in ``state.json``, which is read here without the package
    `datasets`. Pictures are memory-mapped. Columns of plain values are tags.

    Args:
        image, caption: columns; default: the first of ``columns.IMAGES`` and of ``columns.CAPTIONS``.
        split: of a folder that holds several.
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
        split: str = "train",
    ) -> None:
        self._paths = _streams(path, split)
        schema = _stream(self._paths[0]).schema
        self._image, self._caption = columns.choose(schema, image, caption, str(path))
        super().__init__(path, cache, resolution, aspect_buckets=aspect_buckets)

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()

    def _identity(self) -> dict[str, Any]:
        return {"files": [[path.name, path.stat().st_size] for path in self._paths], "image": self._image}

    def _rows(self) -> Iterator[Row | Problem]:
        for source, path in enumerate(self._paths):
            table, number = _stream(path), 0
            columns.choose(table.schema, self._image, self._caption, str(path))
            for batch in table.select(columns.light(table.schema, self._caption)).to_batches(max_chunksize=1024):
                yield from columns.rows(batch, self._caption, path.name, source, number)
                number += batch.num_rows

    def _data(self, index: int) -> bytes:
        table = _stream(self._paths[self._listing.get("source", index)])
        return columns.encoded(table.column(self._image)[self._listing.get("offset", index)])


def _streams(folder: Path, split: str) -> list[Path]:
    """The folder's Arrow files, which ``state.json`` lists; names that leave the folder are refused."""
    if (folder / "dataset_dict.json").is_file():
        splits = records.read_json(folder / "dataset_dict.json")["splits"]
        chosen = splits[0] if len(splits) == 1 else split
        if chosen not in splits:
            raise unknown("split", chosen, splits)
        folder = folder / Path(chosen).name
    try:
        names = [file["filename"] for file in records.read_json(folder / "state.json")["_data_files"]]
    except (KeyError, TypeError) as error:
        raise BenchError(f"{folder / 'state.json'} lists no data files; save the dataset again") from error
    paths = [folder / name for name in names]
    for path in paths:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BenchError(f"{folder / 'state.json'} names {path.name}, which lies outside the folder")
        if not path.is_file():
            raise BenchError(f"{path} is not there, although {folder / 'state.json'} lists it; save the dataset again")
    if not paths:
        raise BenchError(f"{folder} holds no usable image-caption pair")
    return paths


@lru_cache(256)
def _stream(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise BenchError(f"{path} is cut short or damaged ({type(error).__name__}); save the dataset again") from error
