"""A folder of pictures with a metadata table, or with a caption beside each picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.corpus import BadPair, Problem
from bench.errors import BenchError
from data_curation.file_corpus import FileCorpus
from data_curation.listing import Row
from data_curation.paths import Inside
from data_curation.pictures import SUFFIXES
from data_curation.tables import read_table, tags_of

TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""The tables of Hugging Face's ImageFolder, with the columns ``file_name`` and ``text``."""


class ImageFolder(FileCorpus):
    """A folder of pictures with metadata.{jsonl,csv,parquet} (file_name, text), or a .txt caption beside each picture.

    Further columns of the table are tags. Without a table every picture in the folder and below needs a ``.txt`` of
    the same name. A file name that leaves the folder, a file that is not there, or an empty caption is listed and left
    out.

    Args:
        caption: the table's column of captions.
    """

    layout = "a folder of pictures with metadata.{jsonl,csv,parquet} (file_name, text) or .txt captions"

    def __init__(
        self, path: Path, cache: Path, resolution: int, *, aspect_buckets: bool = False, caption: str = "text"
    ) -> None:
        self._files, self._caption = Inside(path), caption
        super().__init__(path, cache, resolution, aspect_buckets=aspect_buckets)

    @classmethod
    def accepts(cls, path: Path) -> bool:
        if not path.is_dir():
            return False
        return any((path / table).is_file() for table in TABLES) or any(_pictures(path))

    def _rows(self) -> Iterator[Row | Problem]:
        tables = [self._files.root / name for name in TABLES if (self._files.root / name).is_file()]
        if len(tables) > 1:
            names = " and ".join(table.name for table in tables)
            raise BenchError(f"{self._files.root} holds {names}; keep one of them")
        if tables:
            yield from self._tabled(tables[0])
        else:
            for picture in sorted(_pictures(self._files.root)):
                yield self._row(picture.relative_to(self._files.root).as_posix(), self._side_car(picture), {})

    def _tabled(self, table: Path) -> Iterator[Row | Problem]:
        for where, row in read_table(table):
            if row is None or not isinstance(row.get("file_name"), str) or self._caption not in row:
                yield Problem(where, f"no row with file_name and {self._caption}")
            else:
                tags = tags_of(row, without=("file_name", self._caption))
                yield self._row(row["file_name"], row[self._caption], tags)

    def _row(self, name: str, caption: object, tags: dict[str, str]) -> Row | Problem:
        try:
            return Row(name, caption, length=self._files.length(name), tags=tags)
        except BadPair as problem:
            return Problem(name, str(problem))

    def _side_car(self, picture: Path) -> str:
        """Caption from the picture's ``.txt``; empty, and so left out, where there is none that can be read."""
        name = picture.with_suffix(".txt").relative_to(self._files.root).as_posix()
        try:
            return self._files.read(name).decode()
        except (BadPair, UnicodeDecodeError):
            return ""

    def _data(self, index: int) -> bytes:
        return self._files.read(self.label(index))


def _pictures(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
