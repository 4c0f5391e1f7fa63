"""What every corpus in files shares: a listing, and pictures that are decoded when they are asked for."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.corpus import Corpus, Problem
from bench.errors import BenchError
from data_curation import pictures
from data_curation.buckets import nearest
from data_curation.listing import Row, write_listing


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
        self.name = path.name
        self._resolution, self._aspect_buckets = resolution, aspect_buckets
        identity = {"layout": type(self).__name__, "resolution": resolution, "aspect_buckets": aspect_buckets}
        self._listing = write_listing(cache / "corpora" / "listings", identity | self._identity(), self._rows())
        if not len(self):
            left_out = self._listing.problems
            example = f"; {len(left_out)} left out, e.g. {left_out[0].item}: {left_out[0].reason}" if left_out else ""
            raise BenchError(f"{path} holds no usable image-caption pair{example}")

    @classmethod
    @abstractmethod
    def accepts(cls, path: Path) -> bool:
        """Whether a file or folder that exists looks like this layout."""

    @abstractmethod
    def _rows(self) -> Iterator[Row | Problem]:
        """Pairs and problems in the corpus's order."""

    @abstractmethod
    def _data(self, index: int) -> bytes:
        """The encoded picture of a pair. Raises BadPair; safe to call from several threads."""

    def _identity(self) -> dict[str, Any]:
        """What the fingerprint must cover besides the rows."""
        return {}

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
        data = self._data(index)
        return self._picture(index, data), self._key(index, data)

    @property
    def fingerprint(self) -> str:
        return self._listing.fingerprint

    def problems(self) -> list[Problem]:
        return self._listing.problems

    def _listed_size(self, index: int) -> tuple[int, int] | None:
        width, height = self._listing.get("width", index), self._listing.get("height", index)
        return (width, height) if width and height else None

    def _picture(self, index: int, data: bytes) -> np.ndarray:
        picture = pictures.decode(data)
        if not self._aspect_buckets:
            return pictures.cover(picture, (self._resolution, self._resolution))
        return pictures.cover(picture, nearest(*(self._listed_size(index) or picture.size), self._resolution))

    def _key(self, index: int, data: bytes) -> str:
        return hashlib.sha256(data + b"\0" + self.caption(index).encode()).hexdigest()
