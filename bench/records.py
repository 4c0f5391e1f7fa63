"""Files that a run leaves. Every line is typed and versioned, every write is atomic, and reports read nothing else."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, Any, Final

from bench import files
from bench.errors import BenchError

VERSION = 1
"""Version of the record layout, written into every file."""

BASE: Final = "base"
"""Folder, job and row name of the model before post-training."""

CONTEXT: Final = "context"
"""Method of a model that is evaluated beside the base and never trained; its folder is ``context--<slug>``."""


EVALUATED: Final = "evaluated"
"""Method of weights or images that are only evaluated; their folder is ``evaluated--<slug>``."""


def dumps(value: Any) -> str:
    """Canonical JSON: sorted keys, no NaN (a NaN in a record is a bug, not a value)."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(dumps(value).encode()).hexdigest()


def inside(path: str) -> bool:
    """Whether a relative path that a record names stays in the folder that it starts from."""
    return not PurePath(path).is_absolute() and ".." not in PurePath(path).parts


class DiskFull(BenchError):
    """Nothing can be recorded any more, so the whole experiment stops."""


def _disk_full(path: Path) -> DiskFull:
    return DiskFull(f"the disk is full: could not write {path}; free some space and run the same command")


def write_with(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file whole or not at all, through ``write(file)``. A full disk ends in one line, the old file stays."""
    try:
        with files.unfinished(path.parent, path.name) as file:
            write(file)
            files.keep(file, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(path) from error
        raise


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file's bytes as ``write_with`` does."""
    write_with(path, lambda file: file.write(data))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, indented for people."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read one JSON document; a damaged one ends in one line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BenchError(f"{path} is not there") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is damaged ({error}); delete it and run again") from error


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines at once."""
    write_bytes(path, "".join(dumps(row) + "\n" for row in rows).encode())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines; a damaged line ends in one line that names it."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                if not line.endswith(b"\n"):  # a kill cut the last line short; the job writes it again on resume
                    return
                raise BenchError(f"{path}:{number} is damaged; delete the file's folder and run again") from error


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
            if error.errno == errno.ENOSPC:
                raise _disk_full(self.path) from error
            raise

    def cut_after(self, step: int) -> None:
        """Drop rows of later steps, and a last line that a kill left half-written."""
        if not self._write or not self.path.exists():
            return
        kept = []
        for line in self.path.read_bytes().split(b"\n"):
            try:
                row = json.loads(line)
            except ValueError:
                break
            if row["step"] > step:
                break
            kept.append(line + b"\n")
        write_bytes(self.path, b"".join(kept))
