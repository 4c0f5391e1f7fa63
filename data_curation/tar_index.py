"""Where the members of a tar lie: built once by reading its headers, then cached."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench import records
from bench.corpus import Problem
from bench.errors import BenchError
from data_curation.pictures import SUFFIXES
from data_curation.tables import tags_of

CAPTION_KEYS = ("caption", "text", "caption_en")
"""Where a ``.json`` member may hold the caption; the first one found is taken."""

MAX_TEXT = 1 << 20
"""Bytes above which a ``.txt`` or ``.json`` member is no caption."""

END = bytes(512)
"""The empty block that ends a whole tar."""


@dataclass
class Sample:
    """Members of one name before the first dot, WebDataset's rule for what belongs together."""

    key: str
    caption: Any = None
    tags: dict[str, str] = field(default_factory=dict)
    offset: int = -1
    length: int = 0


def tar_index(path: Path, folder: Path) -> tuple[list[Sample], list[Problem]]:
    """Samples and problems of a tar, from the cache in ``folder`` if the tar has not changed since.

    A tar that was cut short gives the samples before the cut and a problem for what is lost.
    """
    found = path.stat()
    name = hashlib.sha256(f"{path.resolve()}|{found.st_size}|{found.st_mtime_ns}".encode()).hexdigest()[:24]
    cached = folder / f"{name}.parquet"
    if not cached.exists():
        problems: list[Problem] = []
        samples = list(_samples(path, found.st_size, problems))
        rows = [(json.dumps(asdict(sample)), True) for sample in samples]
        rows += [(json.dumps(asdict(problem)), False) for problem in problems]
        frame = pd.DataFrame(rows, columns=["row", "good"]).astype({"row": "string", "good": bool})
        records.write_bytes(cached, frame.to_parquet(index=False))
    try:
        frame = pd.read_parquet(cached)
    except Exception as error:
        raise BenchError(f"{cached} is damaged; delete it and the tar is indexed again") from error
    read = [(json.loads(row), good) for row, good in zip(frame["row"], frame["good"], strict=True)]
    return [Sample(**row) for row, good in read if good], [Problem(**row) for row, good in read if not good]


def _samples(path: Path, size: int, problems: list[Problem]) -> Iterator[Sample]:
    """Walk a tar; a sample ends where the next name begins."""
    sample = None
    with path.open("rb") as file:
        for member in _members(path.name, file, size, problems):
            folder, _, base = member.name.rpartition("/")
            stem, _, extension = base.partition(".")
            suffix = "." + extension.lower().rpartition(".")[2]
            if suffix not in (*SUFFIXES, ".txt", ".json"):
                continue
            if not member.isreg():
                problems.append(Problem(f"{path.name}/{member.name}", "it is a link, not a file"))
                continue
            key = f"{folder}/{stem}" if folder else stem
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = Sample(key)
            if suffix in SUFFIXES:
                sample.offset, sample.length = member.offset_data, member.size
            elif member.size <= MAX_TEXT:
                file.seek(member.offset_data)
                _describe(sample, suffix, file.read(member.size))
    if sample is not None:
        yield sample


def _members(name: str, file: Any, size: int, problems: list[Problem]) -> Iterator[tarfile.TarInfo]:
    """Members whose data is all there. What a cut lost is one problem, since nobody can tell how much it was."""
    last = "its beginning"
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps every header in memory
                if member.isreg() and member.offset_data + member.size > size:
                    problems.append(Problem(f"{name}/{member.name}", "lost: the tar was cut short inside it"))
                    return
                last = member.name
                yield member
            file.seek(tar.offset)
            whole = file.read(len(END)) == END  # tarfile takes a damaged header for the end
    except (tarfile.TarError, EOFError, ValueError):
        whole = False
    if not whole:
        problems.append(Problem(name, f"cut short or damaged after {last}; members after that are lost"))


def _describe(sample: Sample, suffix: str, data: bytes) -> None:
    """Take the caption and tags from a text member. What is no text leaves the caption empty, and so the pair out."""
    try:
        if suffix == ".txt":
            sample.caption = data.decode()
            return
        row = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(row, dict):
        sample.tags = tags_of(row, without=CAPTION_KEYS)
        if sample.caption is None:
            sample.caption = next((row[key] for key in CAPTION_KEYS if isinstance(row.get(key), str)), None)
