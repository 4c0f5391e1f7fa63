"""What files hold, as SHA-256: read once, then known again by path, size, times and inode."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from bench import records
from bench.errors import BenchError
from bench.machine.progress import PLAIN_SECONDS, Progress

THREADS = min(8, os.cpu_count() or 1)
"""Files read at once; hashing lets other threads run meanwhile."""

SETTLED = 2.0
"""Seconds after which a change of a file shows in its times on every file system (FAT counts in twos). The hash of a
younger file is not kept: it might change once more and look the same."""

PATIENCE = 60.0
"""Seconds to wait while another process writes what it has hashed."""


class Contents:
    """SHA-256 of files, kept in an SQLite file of the cache.

    A file whose path, size, inode, and times of last change (of content and of state) are as before is not read
    again. Only somebody who exchanges the content and also sets the system's clock back escapes this.

    A cache that cannot be written does for reading: what it lacks is hashed each time.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._said = path, time.monotonic() + 5.0
        self._bytes = 0
        try:
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._writes = os.access(path if path.exists() else path.parent, os.W_OK)
            where = f"file:{quote(os.fsencode(path.absolute()))}?mode={'rwc' if self._writes else 'ro'}"
            self._database = sqlite3.connect(where, uri=True, timeout=PATIENCE)
            if self._writes:
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS contents (path BLOB PRIMARY KEY, seen TEXT, sha256 TEXT, crc32 INTEGER)"
                    " WITHOUT ROWID"
                )
            self._database.execute("SELECT count(*) FROM (SELECT 1 FROM contents LIMIT 1)")
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # no such file, no table yet, or a disk without locks
                self._writes, self._database = False, sqlite3.connect(":memory:")
                self._database.execute("CREATE TABLE contents (path BLOB, seen TEXT, sha256 TEXT, crc32 INTEGER)")
            else:
                raise self._damaged(error) from error

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()

    def of(self, paths: Sequence[Path]) -> list[str | OSError]:
        """The hash of each file, or why it cannot be read. Trouble with the disk itself is raised."""
        hashes = [self._known(path) for path in paths]
        missing = [number for number, known in enumerate(hashes) if known is None]
        new: list[tuple[bytes, str, str, int]] = []
        with ThreadPoolExecutor(THREADS) as pool:
            for number, (known, seen) in zip(missing, pool.map(_hash, (paths[n] for n in missing)), strict=True):
                hashes[number] = known
                if isinstance(known, str):
                    self._say(paths[number])
                    if seen:
                        name = os.fsencode(paths[number].absolute())
                        new.append((name, seen, known, _sum(name, seen, known)))
        self._keep(new)
        return [known for known in hashes if known is not None]

    def _known(self, path: Path) -> str | OSError | None:
        try:
            seen = seen_of(path.stat())
        except (FileNotFoundError, PermissionError) as error:
            return error
        name = os.fsencode(path.absolute())
        try:
            row = self._database.execute("SELECT seen, sha256, crc32 FROM contents WHERE path = ?", (name,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
        if row is None or row[0] != seen or row[2] != _sum(name, str(row[0]), str(row[1])):
            return None
        return str(row[1])

    def _keep(self, rows: Sequence[tuple[bytes, str, str, int]]) -> None:
        if not self._writes or not rows:
            return
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?)", rows)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                message = f"the disk is full: could not write {self._path}; free some space and run the same command"
                raise records.DiskFull(message) from error
            self._writes = False  # read-only, or a disk without locks: then hashes serve this process alone
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: sqlite3.DatabaseError) -> BenchError:
        return BenchError(f"{self._path} is damaged ({error}); delete it and the files of the corpus are hashed again")

    def _say(self, path: Path) -> None:
        """Hashing takes minutes the first time: say so, now and then."""
        self._bytes += path.stat().st_size
        if time.monotonic() >= self._said:
            self._said = time.monotonic() + PLAIN_SECONDS
            Progress().say(f"the corpus is read once to know its contents: {self._bytes / 1e9:.1f} GB so far")


def _hash(path: Path) -> tuple[str | OSError, str]:
    """A file's hash, and what it is known by; empty where it is too young or was written meanwhile."""
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
    except (FileNotFoundError, PermissionError) as error:
        return error, ""
    settled = time.time() - max(before.st_mtime, before.st_ctime) >= SETTLED and seen_of(before) == seen_of(after)
    return digest, seen_of(before) if settled else ""


def seen_of(status: os.stat_result) -> str:
    """By what a file is known again."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _sum(name: bytes, seen: str, digest: str) -> int:
    """A checksum of a row, so that a damaged one is not believed."""
    return zlib.crc32(name + f"\0{seen}\0{digest}".encode())
