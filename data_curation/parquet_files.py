"""Parquet files with the pictures inside as a corpus, read a row group at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.corpus import BadPair, Problem
from bench.errors import shown
from data_curation import columns
from data_curation.file_corpus import FileCorpus
from data_curation.listing import ListedRow
from data_curation.paths import files_of
from data_curation.tables import open_parquet, reraise_disk_trouble

GROUPS = 2
"""Row groups kept in memory: the current one, and one more where a batch crosses a border."""


class ParquetFiles(FileCorpus):
    """Parquet files with a column of encoded pictures (bytes, or struct {bytes, path}) and one of captions.

    Columns of plain values are tags. A part of the corpus is cheap to read in its order, and dear in a random one,
    since a whole row group is read for a picture.

    Args:
        path: a ``.parquet``, or a folder with some, in it or below.
        image, caption: columns; default: the first of ``columns.IMAGES`` and of ``columns.CAPTIONS``.
    """

    layout = "Parquet files, one or a folder of them, with a column of encoded pictures and one of captions"

    def __init__(
        self,
        path: Path,
        cache: Path,
        resolution: int,
        *,
        aspect_buckets: bool = False,
        image: str = "",
        caption: str = "",
    ) -> None:
        self._paths, self._hidden = files_of(path, ".parquet")
        self._root = path if path.is_dir() else path.parent
        with open_parquet(self._paths[0]) as first:
            self._image, self._caption = columns.choose(first.schema_arrow, image, caption, str(self._paths[0]))
        self._groups = _Groups(self._image)
        super().__init__(path, cache, resolution, aspect_buckets=aspect_buckets)

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return bool(files_of(path, ".parquet")[0])

    def _whole_files(self) -> list[Path]:
        return self._paths

    def _identity(self) -> dict[str, Any]:
        return {"names": [shown(self._label(path)) for path in self._paths], "image": self._image}

    def _label(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _rows(self) -> Iterator[ListedRow | Problem]:
        for source, path in enumerate(self._paths):
            with open_parquet(path) as file:
                columns.choose(file.schema_arrow, self._image, self._caption, str(path))
                names, number = columns.light(file.schema_arrow, self._caption), 0
                try:
                    for batch in file.iter_batches(batch_size=1024, columns=names):
                        yield from columns.rows(batch, self._caption, self._label(path), source, number)
                        number += batch.num_rows
                except (pa.ArrowException, OSError) as error:
                    reraise_disk_trouble(error)
                    yield Problem(self._label(path), f"damaged after row {number}; the rest is lost")
        yield from self._hidden

    def _data(self, index: int) -> bytes:
        path = self._paths[self._listing.get("source", index)]
        return columns.encoded(self._groups.cell(path, self._listing.get("offset", index)))


class _Groups:
    """The pictures of the row groups read last."""

    def __init__(self, column: str) -> None:
        self._column, self._lock = column, threading.Lock()
        self._groups: OrderedDict[tuple[Path, int], pa.ChunkedArray] = OrderedDict()
        self._borders: dict[Path, list[int]] = {}

    def cell(self, path: Path, row: int) -> pa.Scalar:
        """The picture of a row of a file."""
        with self._lock:
            borders = self._borders.get(path) or self._read_borders(path)
            group = next(number for number, end in enumerate(borders) if row < end)
            if (path, group) not in self._groups:
                self._groups[path, group] = self._read(path, group)
                while len(self._groups) > GROUPS:
                    self._groups.popitem(last=False)
            self._groups.move_to_end((path, group))
            return self._groups[path, group][row - (borders[group - 1] if group else 0)]

    def _read_borders(self, path: Path) -> list[int]:
        """Where each row group ends, in rows of the file."""
        with open_parquet(path) as file:
            end, borders = 0, []
            for group in range(file.num_row_groups):
                end += file.metadata.row_group(group).num_rows
                borders.append(end)
        self._borders[path] = borders
        return borders

    def _read(self, path: Path, group: int) -> pa.ChunkedArray:
        try:
            with pq.ParquetFile(path) as file:
                return file.read_row_group(group, columns=[self._column]).column(self._column)
        except (pa.ArrowException, OSError) as error:
            reraise_disk_trouble(error)
            raise BadPair(f"row group {group} of {path.name} cannot be read ({type(error).__name__})") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _Groups, (self._column,)
