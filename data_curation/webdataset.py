"""WebDataset tars as a corpus: members are read where they lie, and nothing is unpacked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.corpus import BadPair, Problem
from bench.errors import shown
from data_curation.file_corpus import FileCorpus
from data_curation.listing import ListedRow
from data_curation.paths import OTHER_LAYOUT, OTHER_LAYOUTS, files_of
from data_curation.pictures import limited
from data_curation.tar_index import Sample, tar_index

PACKED = (".tgz", ".gz", ".bz2", ".xz", ".zst")
"""How compressed tars end. No member of one can be read without unpacking all before it."""


class WebDataset(FileCorpus):
    """WebDataset tars: members NAME.jpg (.png, .webp, …) with NAME.txt, or NAME.json that holds caption or text.

    The members' offsets are found once per tar and cached. A tar that was cut short keeps the pairs before the cut;
    what is lost is listed. Further short values in NAME.json are tags. A NAME ends at its first dot, or at a later one
    where numbers follow or where one NAME would have two pictures or captions.

    Args:
        path: a ``.tar``, or a folder with some, in it or below.
    """

    layout = "WebDataset .tar files, one or a folder of them, with NAME.jpg and NAME.txt or NAME.json"

    def __init__(self, path: Path, cache: Path, resolution: int, *, aspect_buckets: bool = False) -> None:
        (self._tars, self._hidden), self._index = files_of(path, ".tar"), cache / "corpora" / "tars"
        self._packed = [packed for suffix in PACKED for packed in files_of(path, suffix)[0]]
        self._others = [other for suffix in OTHER_LAYOUTS[1:] for other in files_of(path, suffix)[0]]
        self._root = path if path.is_dir() else path.parent
        super().__init__(path, cache, resolution, aspect_buckets=aspect_buckets)

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return bool(files_of(path, ".tar")[0])

    def _whole_files(self) -> list[Path]:
        return self._tars

    def _identity(self) -> dict[str, Any]:
        return {"names": [shown(self._label(tar)) for tar in self._tars]}

    def _label(self, tar: Path) -> str:
        return tar.relative_to(self._root).as_posix()

    def _rows(self) -> Iterator[ListedRow | Problem]:
        for source, (tar, content) in enumerate(zip(self._tars, self._hashes, strict=True)):
            samples, problems = tar_index(tar, content, self._index)
            yield from (self._row(sample, source, self._label(tar)) for sample in samples)
            for problem in problems:
                yield Problem("/".join(filter(None, (self._label(tar), problem.item))), problem.reason)
        yield from (Problem(self._label(other), OTHER_LAYOUT) for other in self._others)
        yield from (Problem(self._label(packed), "a compressed tar; unpack it to a .tar") for packed in self._packed)
        yield from self._hidden

    def _row(self, sample: Sample, source: int, tar: str) -> ListedRow | Problem:
        name = f"{tar}/{sample.key}"
        if sample.problem:
            return Problem(name, sample.problem)
        try:
            limited(sample.length)
        except BadPair as problem:
            return Problem(name, str(problem))
        return ListedRow(name, sample.caption, sample.length, tags=sample.tags, source=source, offset=sample.offset)

    def _data(self, index: int) -> bytes:
        length, offset = self._listing.get("length", index), self._listing.get("offset", index)
        with self._tars[self._listing.get("source", index)].open("rb") as file:
            data = os.pread(file.fileno(), length, offset)
        if len(data) < length:
            raise BadPair("its tar has become shorter since it was indexed")
        return data
