"""A folder of pictures with a metadata table, or with a caption beside each picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from bench.corpus import BadPair, Problem
from bench.errors import BenchError, some
from bench.records.pictures import FORMATS
from data_curation.file_corpus import FileCorpus
from data_curation.listing import ListedRow
from data_curation.paths import OTHER_LAYOUT, OTHER_LAYOUTS, Inside, as_on_disk, files_in, one_spelling
from data_curation.pictures import MAGIC, SUFFIXES, UNREAD
from data_curation.tables import FILE_NAME, read_table, tags_of, text_of

TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""The tables of Hugging Face's ImageFolder, with the columns ``file_name`` and ``text``."""

CAPTION_SUFFIXES = (".txt", ".TXT")


class ImageFolder(FileCorpus):
    """A folder of pictures with metadata.{jsonl,csv,parquet} (file_name, text), or a .txt caption beside each picture.

    Further columns of the table are tags. Without a table every picture in the folder and below needs a ``.txt`` of
    the same name. A file name that leaves the folder, a file that is not there, an empty caption, a picture of another
    format or without a row, and a caption without a picture are listed and left out. Hidden files, and what systems
    leave in folders, do not count.

    Args:
        caption: the table's column of captions; default: ``text``.
    """

    layout = "a folder of pictures with metadata.{jsonl,csv,parquet} (file_name, text) or .txt captions"

    def __init__(
        self, path: Path, cache: Path, resolution: int, *, aspect_buckets: bool = False, caption: str = ""
    ) -> None:
        self._files, self._caption, self._named = Inside(path), one_spelling(caption or "text"), bool(caption)
        super().__init__(path, cache, resolution, aspect_buckets=aspect_buckets)

    @classmethod
    def accepts(cls, path: Path) -> bool:
        if not path.is_dir():
            return False
        return any((path / table).is_file() for table in TABLES) or any(
            isinstance(item, Path) and item.suffix.lower() in SUFFIXES for item in files_in(path)
        )

    def _rows(self) -> Iterator[ListedRow | Problem]:
        tables = [self._files.root / name for name in TABLES if (self._files.root / name).is_file()]
        if len(tables) > 1:
            names = " and ".join(table.name for table in tables)
            raise BenchError(f"{self._files.root} holds {names}; keep one of them")
        if self._named and not tables:
            raise BenchError(f"{self._files.root} has no table ({some(TABLES)}), so no column; leave ?caption= out")
        return self._tabled(tables[0]) if tables else self._beside()

    def _tabled(self, table: Path) -> Iterator[ListedRow | Problem]:
        named = set()
        for where, row in read_table(table):
            if isinstance(row, str):
                yield Problem(where, row)
            elif row is None or not isinstance(row.get(FILE_NAME), str) or self._caption not in row:
                yield Problem(where, f"no row with {FILE_NAME} and {self._caption}{self._advice(row or {})}")
            else:
                tags = tags_of(row, without=(FILE_NAME, self._caption))
                named.add(self._plain(row[FILE_NAME]))
                yield self._row(row[FILE_NAME], row[self._caption], tags)
        for item in files_in(self._files.root) if named else ():  # else it is the table that is at fault
            if isinstance(item, Problem):
                yield item
                continue
            name, suffix = self._name(item), item.suffix.lower()
            if suffix in (*SUFFIXES, *UNREAD) and one_spelling(name) not in named and item.is_file():
                yield Problem(name, f"no row of {table.name} names it")
            elif suffix in OTHER_LAYOUTS and name not in TABLES:
                yield Problem(name, OTHER_LAYOUT)

    def _beside(self) -> Iterator[ListedRow | Problem]:
        """Pictures with the captions beside them, and what is half of such a pair."""
        captions, wanted = dict[str, str](), set[str]()
        for item in files_in(self._files.root):
            if isinstance(item, Problem):
                yield item
                continue
            name, suffix = self._name(item), item.suffix.lower()
            stem = one_spelling(str(PurePosixPath(name).with_suffix("")))
            if suffix in SUFFIXES:
                if not captions.pop(stem, None):
                    wanted.add(stem)
                try:
                    yield self._row(name, self._side_car(name), {})
                except BadPair as problem:
                    yield Problem(name, str(problem))
            elif suffix == ".txt":
                if stem in wanted:
                    wanted.remove(stem)
                else:
                    captions[stem] = name
            elif suffix in OTHER_LAYOUTS:
                yield Problem(name, OTHER_LAYOUT)
            elif suffix in UNREAD or MAGIC.match(_beginning(item)):
                yield Problem(name, f"its format ({item.suffix or 'no suffix'}) is none that is read: {some(FORMATS)}")
        yield from (Problem(name, "a caption without a picture") for name in captions.values())

    def _advice(self, row: Mapping[str, object]) -> str:
        """What a row has instead of what it lacks, and how to name that."""
        if not row:
            return ""
        name = "; name the column of captions with ?caption=COLUMN" if self._caption not in row else ""
        return f"; it has {some(row)}{name}"

    def _name(self, path: Path) -> str:
        return os.fspath(path)[len(os.fspath(self._files.root)) + 1 :]

    def _plain(self, name: str) -> str:
        """A path as seen from the folder, without detours and in one spelling."""
        path = Path(name)
        if path.is_absolute():  # the folder's own place has no links in it
            path = path.parent.resolve() / path.name
        return one_spelling(os.path.relpath(self._files.root / path, self._files.root))

    def _row(self, name: str, caption: object, tags: dict[str, str]) -> ListedRow | Problem:
        try:
            return ListedRow(name, caption, length=self._files.length(name), tags=tags)
        except BadPair as problem:
            return Problem(name, str(problem))

    def _side_car(self, picture: str) -> str:
        """Caption from the picture's ``.txt``. Raises BadPair where there is none that can be read."""
        names = [str(PurePosixPath(picture).with_suffix(suffix)) for suffix in CAPTION_SUFFIXES]
        name = next((name for name in names if os.path.lexists(as_on_disk(self._files.root, name))), names[0])
        try:
            data = self._files.read(name)
        except BadPair as problem:
            raise BadPair(f"it has no caption: {PurePosixPath(name).name}: {problem}") from problem
        return text_of(data, PurePosixPath(name).name)

    def _picture_file(self, row: ListedRow) -> Path:
        return as_on_disk(self._files.root, row.name)

    def _data(self, index: int) -> bytes:
        return self._files.read(self.label(index))


def _beginning(path: Path) -> bytes:
    """The first bytes of a file; none of what is no file, or cannot be opened."""
    if not path.is_file():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(16)
    except (FileNotFoundError, PermissionError):
        return b""
