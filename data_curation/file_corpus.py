"""What every corpus in files shares: a listing, and pictures that are decoded when they are asked for."""

from __future__ import annotations

import hashlib
import itertools
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.corpus import BadPair, Corpus, Problem, Unreachable
from bench.errors import BenchError, shown
from data_curation import pictures
from data_curation.buckets import nearest
from data_curation.contents import Contents, seen_of
from data_curation.listing import BATCH, ListedRow, write_listing


class FileCorpus(Corpus):
    """Base of the loaders. A loader says what it accepts, lists its rows, and hands out encoded pictures.

    Args:
        path: file or folder.
        cache: where the listing goes.
        resolution: side of a square picture in pixels.
        aspect_buckets: bring each picture to the bucket (``data_curation.buckets``) nearest to its shape; without,
            every picture is resized to cover the square and cropped to its centre.

    Raises:
        BenchError: the listing holds no pair at all.
    """

    layout: ClassVar[str]
    """One line for the error that lists what is accepted."""

    def __init__(self, path: Path, cache: Path, resolution: int, *, aspect_buckets: bool = False) -> None:
        self.name = shown(path.name if path.name not in ("", "..") else path.resolve().name or str(path))
        self._resolution, self._aspect_buckets = resolution, aspect_buckets
        identity = {"layout": type(self).__name__, "resolution": resolution, "aspect_buckets": aspect_buckets}
        with Contents(cache / "corpora" / "contents.sqlite") as contents:
            self._hashes = self._hashed(contents, self._whole_files())
            self._seen = [seen_of(path.stat()) for path in self._whole_files()]
            identity |= {"files": self._hashes} | self._identity()
            rows = self._with_contents(self._rows(), contents)
            self._listing = write_listing(cache / "corpora" / "listings", identity, rows)
        if not len(self):
            left_out = self._listing.problems
            example = f"; {len(left_out)} left out, e.g. {left_out[0].item}: {left_out[0].reason}" if left_out else ""
            raise BenchError(f"{path} holds no usable image-caption pair{example}")

    @classmethod
    @abstractmethod
    def accepts(cls, path: Path) -> bool:
        """Whether a file or folder that exists looks like this layout."""

    @abstractmethod
    def _rows(self) -> Iterator[ListedRow | Problem]:
        """Pairs and problems in the corpus's order."""

    @abstractmethod
    def _data(self, index: int) -> bytes:
        """The encoded picture of a pair. Raises BadPair; safe to call from several threads."""

    def _identity(self) -> dict[str, Any]:
        """What the fingerprint must cover besides the rows and the contents of files."""
        return {}

    def _whole_files(self) -> list[Path]:
        """Files that hold many pictures; ``_hashes`` has the hash of each."""
        return []

    def _picture_file(self, row: ListedRow) -> Path | None:
        """The file that is a row's picture and nothing else, if there is one. Raises BadPair."""
        return None

    def __len__(self) -> int:
        return len(self._listing)

    def caption(self, index: int) -> str:
        return str(self._listing.get("caption", index))

    def label(self, index: int) -> str:
        return str(self._listing.get("name", index))

    def tags(self, index: int) -> Mapping[str, str]:
        tags: dict[str, str] = json.loads(self._listing.get("tags", index) or "{}")
        return tags

    def size(self, index: int) -> tuple[int, int]:
        if not self._aspect_buckets:
            return self._resolution, self._resolution
        return nearest(*(self._listed_size(index) or pictures.dimensions(self._data(index))), self._resolution)

    def image(self, index: int) -> np.ndarray:
        return self._picture(index, self._data(index))

    def key(self, index: int) -> str:
        return self._key(index, self._data(index))

    def read(self, index: int) -> tuple[np.ndarray, str]:
        if files := self._whole_files():
            source = self._listing.get("source", index)
            if seen_of(files[source].stat()) != self._seen[source]:
                raise BenchError(f"{files[source]} was changed meanwhile; run the same command again")
        try:
            data = self._data(index)
        except Unreachable as problem:
            if self._listing.get("content", index):  # it was read when it was listed, so the disk has changed
                raise BenchError(
                    f"{self.label(index)} of {self.name} was read before and now is not ({problem}); once it is there "
                    "again, run the same command"
                ) from problem
            raise
        return self._picture(index, data), self._key(index, data)

    @property
    def fingerprint(self) -> str:
        return self._listing.fingerprint

    def problems(self) -> list[Problem]:
        return self._listing.problems

    def _hashed(self, contents: Contents, paths: list[Path]) -> list[str]:
        hashes = []
        for path, content in zip(paths, contents.of(paths), strict=True):
            if isinstance(content, OSError):
                raise BenchError(f"{path} cannot be read ({content.strerror}); make it readable, or remove it")
            hashes.append(content)
        return hashes

    def _with_contents(self, rows: Iterator[ListedRow | Problem], contents: Contents) -> Iterator[ListedRow | Problem]:
        """The rows with what their pictures hold, as far as a picture is a file of its own."""
        while batch := list(itertools.islice(rows, BATCH)):
            files: dict[int, tuple[ListedRow, Path]] = {}
            for number, row in enumerate(batch):
                try:
                    if isinstance(row, ListedRow) and (path := self._picture_file(row)):
                        files[number] = row, path
                except BadPair as problem:
                    batch[number] = Problem(row.name if isinstance(row, ListedRow) else row.item, str(problem))
            hashes = contents.of([path for _, path in files.values()])
            for (number, (row, _)), content in zip(files.items(), hashes, strict=True):
                if isinstance(content, OSError):
                    batch[number] = Problem(row.name, f"its file cannot be opened ({type(content).__name__})")
                else:
                    batch[number] = replace(row, content=content)
            yield from batch

    def _listed_size(self, index: int) -> tuple[int, int] | None:
        width, height = self._listing.get("width", index), self._listing.get("height", index)
        return (width, height) if width and height else None

    def _picture(self, index: int, data: bytes) -> np.ndarray:
        picture = pictures.decode(data)
        if not self._aspect_buckets:
            return pictures.cover(picture, (self._resolution, self._resolution))
        return pictures.cover(picture, nearest(*(self._listed_size(index) or picture.size), self._resolution))

    def _key(self, index: int, data: bytes) -> str:
        hashed = hashlib.sha256(data)
        if (listed := self._listing.get("content", index)) and listed != hashed.hexdigest():
            raise BenchError(f"{self.label(index)} of {self.name} was changed meanwhile; run the same command again")
        hashed.update(b"\0" + self.caption(index).encode())
        return hashed.hexdigest()
