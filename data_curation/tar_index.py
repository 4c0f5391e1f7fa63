"""Where the members of a tar lie: built once by reading its headers, then cached."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.corpus import BadPair, Problem
from bench.errors import BenchError, one_line, some
from data_curation import sealed
from data_curation.paths import left_over, one_spelling
from data_curation.pictures import SUFFIXES, UNREAD
from data_curation.tables import tags_of, text_of

VERSION = 2
"""Raise when other members belong together, or another caption is taken: indices in the cache are then built anew."""

CAPTION_KEYS = ("caption", "text", "caption_en")
"""Where a ``.json`` member may hold the caption; the first one found is taken."""

MAX_TEXT = 1 << 20
"""Bytes above which a ``.txt`` or ``.json`` member is no caption."""

MOST_DOTS = 16
"""Dots of a name at which a key may end."""

END = bytes(512)
"""The empty block that ends a whole tar."""

KINDS = {".txt": "caption", ".json": ".json"} | dict.fromkeys(SUFFIXES, "picture")
"""Kind of a member, by the ending of its name."""


@dataclass
class Sample:
    """A picture with its caption and tags; ``problem`` is the reason if it cannot be used."""

    key: str
    caption: Any = None
    tags: dict[str, str] = field(default_factory=dict)
    offset: int = -1
    length: int = 0
    problem: str = ""


@dataclass
class _Member:
    """A member that may be half of a pair.

    Attributes:
        stem: its name without the last suffix, in parts between dots; a folder belongs to the first part.
        cut: how many parts make its key.
    """

    name: str
    kind: str
    stem: tuple[str, ...]
    cut: int
    offset: int
    length: int
    text: bytes = b""

    @property
    def key(self) -> str:
        return ".".join(self.stem[: self.cut])


def tar_index(path: Path, content: str, folder: Path) -> tuple[list[Sample], list[Problem]]:
    """Samples and problems of a tar, from the cache in ``folder`` if a tar of this content was read before.

    A problem's item is the member, or empty for the tar itself. A tar that was cut short gives the samples before the
    cut and a problem for what is lost.

    Args:
        content: the SHA-256 of the tar.
    """
    cached = folder / f"{hashlib.sha256(f'{VERSION}|{content}'.encode()).hexdigest()[:24]}.parquet"
    if not cached.exists():
        problems: list[Problem] = []
        samples = list(_samples(path, path.stat().st_size, problems))
        rows = [(json.dumps(asdict(sample)), True) for sample in samples]
        rows += [(json.dumps(asdict(problem)), False) for problem in problems]
        table = pa.table([[row for row, _ in rows], [good for _, good in rows]], pa.schema(_COLUMNS))
        sealed.write(cached, table)
    try:
        read = sealed.read(cached, list(_COLUMNS)).to_pylist()
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise BenchError(f"{cached} is damaged; delete it and the tar is indexed again") from error
    lines = [(json.loads(row["row"]), row["good"]) for row in read]
    return [Sample(**row) for row, good in lines if good], [Problem(**row) for row, good in lines if not good]


_COLUMNS = {"row": pa.string(), "good": pa.bool_()}


def _samples(path: Path, size: int, problems: list[Problem]) -> Iterator[Sample]:
    """Walk a tar and put together what belongs together, wherever it lies, in the order in which keys come first."""
    with path.open("rb") as file:
        members = list(_halves(file, size, problems))
    for group in _groups(members):
        yield _sample(group, problems)


def _halves(file: Any, size: int, problems: list[Problem]) -> Iterator[_Member]:
    """Members that are pictures or say something of one. Other pictures are problems, other files are left alone."""
    for member in _members(file, size, problems):
        folder, _, base = member.name.removeprefix("./").rpartition("/")
        name, dot, extension = base.rpartition(".")
        stem, suffix = name.split(".", MOST_DOTS), f".{extension.lower()}"
        if not dot or left_over(member.name) or member.isdir():
            continue
        if suffix in UNREAD:
            problems.append(Problem(member.name, f"its format ({suffix}) is none that is read"))
        elif suffix in KINDS:
            if not member.isreg():
                problems.append(Problem(member.name, "it is a link, not a file"))
                continue
            if member.issparse():  # its bytes do not lie in a row
                problems.append(Problem(member.name, "it is stored with holes; write the tar without --sparse"))
                continue
            stem[0] = one_spelling(f"{folder}/{stem[0]}" if folder else stem[0])
            half = _Member(member.name, KINDS[suffix], tuple(map(one_spelling, stem)), _cut(stem), member.offset_data,
                           member.size)  # fmt: skip
            if half.kind != "picture" and half.length <= MAX_TEXT:
                file.seek(half.offset)
                half.text = file.read(half.length)
            yield half


def _cut(stem: list[str]) -> int:
    """Parts of a name that make its key: up to the first dot (WebDataset's rule), and numbers that follow it.

    ``1.img`` belongs to ``1``. ``22.05`` is a name of its own: what follows the dot says which one, not what of it.
    """
    cut = 1
    while cut < len(stem) and stem[cut].isdigit():
        cut += 1
    return cut


def _groups(members: Iterable[_Member]) -> list[list[_Member]]:
    """Members of one key each. Where a key has two of a kind, longer keys tell them apart, if they can."""
    done, waiting = [], [list(members)]
    while waiting:
        groups: dict[str, list[_Member]] = {}
        for member in waiting.pop():
            groups.setdefault(member.key, []).append(member)
        for group in groups.values():
            kinds = [member.kind for member in group]
            if len(set(kinds)) < len(kinds) and any(member.cut < len(member.stem) for member in group):
                for member in group:
                    member.cut += 1
                waiting.append(group)
            else:
                done.append(group)
    return sorted(done, key=lambda group: group[0].offset)


def _sample(group: list[_Member], problems: list[Problem]) -> Sample:
    """The pair of a group. A second picture or caption is a problem: nobody knows which one is meant."""
    first: dict[str, _Member] = {}
    for member in group:
        earliest = first.setdefault(member.kind, member)
        if earliest is not member:
            problems.append(Problem(member.name, f"a second {member.kind} of {member.key}, which has {earliest.name}"))
    sample = Sample(group[0].key)
    if (picture := first.get("picture")) is None:
        sample.problem = "it has no picture"
        return sample
    sample.offset, sample.length = picture.offset, picture.length
    row: dict[str, Any] = {}
    try:
        row = _json(first[".json"]) if ".json" in first else {}
    except BadPair as problem:
        if "caption" not in first:
            sample.problem = f"it has no caption: {problem}"
            return sample
        problems.append(Problem(first[".json"].name, f"{problem}; its pair has no tags"))
    try:
        sample.tags = tags_of(row, without=CAPTION_KEYS)
        sample.caption = _text(first["caption"]) if "caption" in first else _caption_in(row)
    except BadPair as problem:
        sample.problem = str(problem)
    return sample


def _caption_in(row: dict[str, Any]) -> str:
    for key in CAPTION_KEYS:
        if isinstance(row.get(key), str):
            return str(row[key])
    there = f"its .json has no text as {', '.join(CAPTION_KEYS)}, but has {some(row)}"
    raise BadPair(f"it has no caption: {there if row else 'there is no .txt of its name, and no .json that has one'}")


def _text(member: _Member) -> str:
    if member.length > MAX_TEXT:
        raise BadPair(f"{member.name} takes {member.length} bytes, more than the {MAX_TEXT} of a caption")
    return text_of(member.text, member.name)


def _json(member: _Member) -> dict[str, Any]:
    try:
        row = json.loads(_text(member))
    except (ValueError, RecursionError) as error:
        raise BadPair(f"its {member.name} is no JSON ({one_line(str(error))})") from error
    if not isinstance(row, dict):
        raise BadPair(f"its {member.name} is no JSON object")
    return row


def _members(file: Any, size: int, problems: list[Problem]) -> Iterator[tarfile.TarInfo]:
    """Members whose data is all there. What a cut lost is one problem, since nobody can tell how much it was."""
    last = "its beginning"
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps every header in memory
                if member.isreg() and not member.issparse() and member.offset_data + member.size > size:
                    problems.append(Problem(member.name, "lost: the tar was cut short inside it"))
                    return
                last = member.name
                yield member
            file.seek(tar.offset)
            whole = file.read(len(END)) == END  # tarfile takes a damaged header for the end
    except (tarfile.TarError, EOFError, ValueError):
        whole = False
    if not whole:
        problems.append(Problem("", f"cut short or damaged after {last}; members after that are lost"))
