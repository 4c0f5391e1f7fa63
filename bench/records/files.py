"""Files that a run leaves. Every line is typed and versioned, every write is atomic, and reports read nothing else."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Any, Final, NoReturn, TypeVar, cast

from pydantic import BaseModel, ValidationError

from bench.errors import FULL, BenchError, of_path
from bench.errors import DiskFull as DiskFull  # a public name of this module
from bench.records import atomic

VERSION: Final = 1
"""Version of the record layout, written into every file."""

BASE: Final = "base"
"""Folder, job and row name of the model before post-training."""

CONTEXT: Final = "context"
"""Method of a model that is evaluated beside the base and never trained; its folder is ``context--<slug>``."""


EVALUATED: Final = "evaluated"
"""Method of weights or images that are only evaluated; their folder is ``evaluated--<slug>``."""
PROBES = Path("probes")
"""In the evaluation of a base: a folder for each subset on whose held-out pairs its probes were read."""


def dumps(value: Any) -> str:
    """Canonical JSON: sorted keys, no NaN (a NaN in a record is a bug, not a value)."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(dumps(value).encode()).hexdigest()


def is_name(text: str) -> bool:
    """Whether a text of a record can be the name of one file or folder, which leads nowhere else."""
    return 0 < len(text) <= 255 and text not in (".", "..") and not set(text) & set("/\\\0")


CONFIGURED = ("job", "config", "subset_hash", "reward", "origin", "stages")
"""Keys of ``job.json`` that say what a job is: none of them may change while its folder is kept."""

FURTHER = ("reward_metric", "adam_8bit")
"""The same, but of those jobs alone that have them."""

PREFERENCES = ("hash", "preferred_hash")
"""The same of its ``preferences``: whether they are there now, and where they lie, is no configuration."""


def configuration(job: Mapping[str, Any]) -> str:
    """SHA-256 of what a ``job.json`` says that the job is, which its evaluations name."""
    pairs = job.get("preferences") or {}
    held = {key: job.get(key) for key in CONFIGURED} | {key: job[key] for key in FURTHER if job.get(key)}
    return digest([held, {key: pairs.get(key) for key in PREFERENCES}])


def inside(path: str) -> bool:
    """Whether a relative path that a record names stays in the folder that it starts from."""
    if "\0" in path:
        return False
    if ".." not in path and ":" not in path and path[:1] not in ("/", "\\"):
        return True  # at once: a report asks for each of 100,000 pictures
    return not PurePath(path).is_absolute() and ".." not in PurePath(path).parts


DEEPEST = 64
"""How deep a record nests at most. Ours nest eight deep; thousands of levels end Python's own stack."""


def _disk_full(path: Path) -> DiskFull:
    return DiskFull(f"the disk is full: could not write {path}; free some space and run the same command")


class WatchedFile:
    """A file that remembers why a write failed: libraries that write through it report something else."""

    def __init__(self, file: IO[bytes]) -> None:
        self.failed: OSError | None = None
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failed = error
            raise


def write_with(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file whole or not at all, through ``write(file)``. A full disk ends in one line, the old file stays.

    Raises:
        DiskFull: the disk, or the user's share of it, is full.
        OSError: the file cannot be written for another reason; it names ``path``.
    """
    failed: OSError | None = None
    try:
        with atomic.unfinished(path.parent, path.name) as file:
            watched = WatchedFile(file)
            try:
                write(cast(IO[bytes], watched))
            finally:
                failed = watched.failed
            atomic.keep(file, path)
    except BaseException as error:
        cause = error if isinstance(error, OSError) else failed
        if cause is None:
            raise
        if cause.errno in FULL:
            raise _disk_full(path) from error
        cause.filename = str(path)
        raise cause from (error if cause is not error else None)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file's bytes as ``write_with`` does."""
    write_with(path, lambda file: file.write(data))


def write_if_new(path: Path, data: bytes) -> None:
    """Write a file's bytes unless they are there already, so that a filled cache may be read-only."""
    if not path.is_file() or path.read_bytes() != data:
        write_bytes(path, data)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, indented for people."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path, advice: str = "delete it and run again") -> Any:
    """Read one JSON document. BenchError: one line for one that cannot be read or is damaged.

    Args:
        advice: for a damaged one; a file that the user brought is not to be deleted.
    """
    try:
        return loads(path.read_bytes())
    except OSError as error:
        raise of_path(error, path) from error
    except ValueError as error:
        raise BenchError(f"{path} is damaged ({error}); {advice}") from error


def loads(text: str | bytes) -> Any:
    """The value of a JSON text. ValueError: it is none, holds NaN or infinity, or nests beyond ``DEEPEST``."""
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError(f"it nests more than {DEEPEST} deep") from error
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}, which is no JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"it holds {text}, which is no finite number")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            part
            for held in level
            if isinstance(held, dict | list)
            for part in (held.values() if isinstance(held, dict) else held)
        ]
        if not level:
            return
    raise ValueError(f"it nests more than {DEEPEST} deep")


Parsed = TypeVar("Parsed", bound=BaseModel)


def parsed(kind: type[Parsed], value: Any, path: Path) -> Parsed:
    """A value as a record. BenchError: one line that says which key of it is not what this version reads."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise BenchError(f"{path} is not a record this version reads ({_problem(error)})") from error


@contextmanager
def recording(what: str) -> Iterator[None]:
    """Context in which a record is built of what strangers' code says of itself. BenchError: no record can hold it."""
    try:
        yield
    except ValidationError as error:
        raise BenchError(f"{what} cannot be recorded ({_problem(error)})") from error


def _problem(error: ValidationError) -> str:
    """The first thing that is wrong with a value, and the key where it stands."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    return f"{where}: {first['msg'].lower()}"


def read_record(kind: type[Parsed], path: Path) -> Parsed:
    """Read one JSON document as a record. BenchError: one line for one that is not there or is no such record."""
    return parsed(kind, read_json(path), path)


def document(record: BaseModel) -> dict[str, Any]:
    """A record as it is written: the keys that its writer set, in values of JSON."""
    return record.model_dump(mode="json", exclude_unset=True)


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record as one JSON document."""
    write_json(path, document(record))


def read_raw(kind: type[BaseModel], path: Path) -> dict[str, Any]:
    """The document as it stands, with keys that ``kind`` does not know, once it has passed as a record of that kind.

    For a command that writes the record again: what this version does not read it must not rewrite.
    """
    value = read_json(path)
    parsed(kind, value, path)
    return dict(value)


def read_rows(kind: type[BaseModel], path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file as they stand, each once it has passed as a record of that kind."""
    for row in read_lines(path):
        parsed(kind, row, path)
        yield row


CHECK = "check"
"""Key of a line's checksum: the first 16 digits of the ``digest`` of the line without it."""


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines at once, each with the checksum that ``read_lines`` verifies."""
    write_bytes(path, "".join(dumps({**row, CHECK: _check(row)}) + "\n" for row in rows).encode())


_WITHOUT = {
    "samples.jsonl": f'empty the "scores" of this line, take its "{CHECK}" out, and run `bench score`',
    "probes.jsonl": "delete it and the probes.json beside it: reports then do without these readings",
}
"""What to do about a line that was changed and that nobody can restore."""


def _check(row: Mapping[str, Any]) -> str:
    return digest(row)[:16]


_MARK = f'"{CHECK}": "'.encode()


def _check_as_written(line: bytes) -> str:
    """The checksum of a line that stands as ``write_lines`` wrote it, without the work of writing it again."""
    at = line.find(_MARK)
    after = at + len(_MARK) + 16 + len('", ')
    return hashlib.sha256(line[:at] + line[after:].rstrip(b"\n")).hexdigest()[:16]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines; one that is damaged, or was changed since ``write_lines``, ends in one line that names it.

    A line without a checksum is taken as it stands: older releases, and logs, write none.
    """
    try:
        if not path.exists():
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = loads(line)
                    check = row.pop(CHECK, None) if isinstance(row, dict) else None
                    changed = check is not None and check != _check_as_written(line) and check != _check(row)
                except ValueError as error:
                    if not line.endswith(b"\n"):  # a kill cut the last line short; the job writes it again on resume
                        return
                    raise BenchError(f"{path}:{number} is damaged; delete the file's folder and run again") from error
                if changed:
                    raise BenchError(
                        f"{path}:{number} was changed after it was written: its checksum does not fit; restore the "
                        f"file, or {_WITHOUT.get(path.name, 'delete its folder and run again')}"
                    )
                yield row
    except OSError as error:
        raise of_path(error, path) from error


class Log:
    """An append-only JSON-lines file that can be cut back to a step on resume.

    Args:
        write: False in the processes whose main process keeps the log.
    """

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self.path, self._write = path, write
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        if not self._write:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(dumps({"v": VERSION, **row}) + "\n")
        except OSError as error:
            if error.errno in FULL:
                raise _disk_full(self.path) from error
            raise

    def cut_after(self, step: int) -> None:
        """Drop rows of later steps, and a last line that a kill left half-written."""
        if not self._write or not self.path.exists():
            return
        lines = []
        for line in self.path.read_bytes().split(b"\n"):
            try:
                row = loads(line)
            except ValueError:
                break
            if not isinstance(row, dict) or type(row.get("step")) is not int:
                raise BenchError(f"{self.path} holds a line without its step; delete the job's folder and run again")
            if row["step"] > step:
                break
            lines.append(line + b"\n")
        write_bytes(self.path, b"".join(lines))
