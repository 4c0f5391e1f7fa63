"""The layout of SOAR's released corpus: JSON lines that name pictures by their MD5."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.corpus import BadPair, Problem
from bench.errors import BenchError, some, unknown
from data_curation.file_corpus import FileCorpus
from data_curation.listing import ListedRow
from data_curation.paths import Inside, as_on_disk, left_over
from data_curation.tables import read_jsonl, tags_of

CAPTIONS = {"long": "long_caption", "medium": "medium_caption", "short": "short_caption", "text": "text"}
"""Captions that ``caption_en`` may hold, as a JSON object, in the order in which the release looks for one that is not
empty (``soar/utils/data.py`` of HY-SOAR 59f0e02)."""

NOTHING = ("nan", "None")
"""Texts that stand for a missing caption in a table. Empty captions for the release, and so here."""

MD5 = re.compile(r"[0-9a-fA-F]{32}")


class HYSOAR(FileCorpus):
    """SOAR's JSONL: lines {"md5", "caption_en", "bw", "bh"}, pictures as {md5}.jpg in a folder.

    A line whose picture is not there, leaves the folder, or has another MD5 than its name says is listed and left out.
    Pictures that no line names are not counted: a folder of them serves several corpora. Keys other than these four
    are tags.

    Args:
        path: the ``.jsonl`` file, or a folder with one or several.
        images: folder of the pictures; default: ``images`` beside the lines if there is one, else the lines' folder.
        caption: which caption to take where ``caption_en`` is a JSON object, given as one or as its text: long,
            medium, short or text. Default: the first of them, in this order, that is not empty, as the release does.
            The release trains on the JSON itself where all are empty; here the pair is left out.
        aspect_buckets: ``bw`` and ``bh`` are the width and height of the release's own bucket; a pair goes to the
            bucket of that aspect ratio. A line without them goes by its picture.
    """

    layout = 'a .jsonl of lines {"md5", "caption_en", "bw", "bh"} with pictures {md5}.jpg beside it or in images/'

    def __init__(
        self,
        path: Path,
        cache: Path,
        resolution: int,
        *,
        aspect_buckets: bool = False,
        images: str = "",
        caption: str = "",
    ) -> None:
        if caption and caption not in CAPTIONS:
            raise unknown("caption length", caption, CAPTIONS)
        self._tables = _tables(path)
        beside = self._tables[0].parent
        folder = as_on_disk(beside, images) if images else beside / "images"
        if images and not folder.is_dir():
            raise BenchError(f"the folder of pictures {folder} is not there; images= takes one, e.g. {path}?images=DIR")
        self._files, self._caption = Inside(folder if folder.is_dir() else beside), caption
        super().__init__(path, cache, resolution, aspect_buckets=aspect_buckets)

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Whether one of the first lines has an md5 and a caption_en."""
        lines = itertools.chain.from_iterable(itertools.islice(read_jsonl(table), 10) for table in _tables(path))
        return any(row is not None and {"md5", "caption_en"} <= row.keys() for _, row in lines)

    def _rows(self) -> Iterator[ListedRow | Problem]:
        for table in self._tables:
            for where, row in read_jsonl(table):
                try:
                    yield self._row(row)
                except BadPair as problem:
                    yield Problem(where, str(problem))

    def _row(self, row: Mapping[str, Any] | None) -> ListedRow:
        if row is None or not isinstance(row.get("md5"), str) or "caption_en" not in row:
            raise BadPair("no JSON line with md5 and caption_en")
        if not MD5.fullmatch(row["md5"]):
            raise BadPair("its md5 is not 32 hexadecimal digits")
        name = self._name(row["md5"])
        sides = [row.get("bw") or 0, row.get("bh") or 0]
        if any(type(side) is not int or not 0 <= side < 1 << 16 for side in sides):
            raise BadPair("its bw and bh are not a width and a height in pixels")
        try:
            length = self._files.length(name)
        except BadPair as problem:
            raise BadPair(f"{name}: {problem}") from problem
        tags = tags_of(row, without=("md5", "caption_en", "bw", "bh"))
        return ListedRow(name, self._chosen(row["caption_en"]), length, sides[0], sides[1], tags)

    def _chosen(self, caption: Any) -> Any:
        if isinstance(caption, str) and caption.lstrip().startswith("{"):
            try:
                caption = json.loads(caption)
            except (ValueError, RecursionError):
                return caption  # a caption that happens to begin with a brace
        if isinstance(caption, str) and caption.strip() in NOTHING:
            raise BadPair("its caption is empty")
        if not isinstance(caption, dict):
            return caption
        keys = [CAPTIONS[self._caption]] if self._caption else list(CAPTIONS.values())
        chosen = next((caption[key] for key in keys if not _empty(caption.get(key))), None)
        if chosen is None:
            raise BadPair(f"its caption_en has no {' or '.join(keys)}, but {some(caption) or 'nothing'}")
        return chosen

    def _name(self, md5: str) -> str:
        """The picture's file name, whose digits may be written in capitals or not."""
        names = [f"{digits}.jpg" for digits in dict.fromkeys((md5, md5.lower(), md5.upper()))]
        return next((name for name in names if os.path.lexists(self._files.root / name)), names[0])

    def _picture_file(self, row: ListedRow) -> Path:
        return self._files.root / row.name

    def _data(self, index: int) -> bytes:
        name = self.label(index)
        data = self._files.read(name)
        if (digest := hashlib.md5(data, usedforsecurity=False).hexdigest()) != Path(name).stem.lower():
            raise BadPair(f"its picture is another one: its MD5 is {digest}, not what its name says")
        return data


def _empty(caption: Any) -> bool:
    return caption is None or (isinstance(caption, str) and not caption.strip())


def _tables(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".jsonl" and path.is_file() else []
    paths = (inner for inner in path.iterdir() if inner.suffix.lower() == ".jsonl" and not left_over(inner.name))
    return sorted(inner for inner in paths if inner.is_file())
