"""Files that exist whole or not at all, and the unfinished files of killed processes.

A file is written under another name first, ``.NAME.XXXXXXXX.partial``, and its writer holds a lock on it. The lock is
the system's and ends with the process, however that ends. So what is not locked belongs to nobody and is deleted: in
the folder of a run or a report when a command begins, elsewhere before a process writes there for the first time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

PARTIAL = ".*.partial"
"""Names of files that are being written."""
_SCRATCH, _HELD = "bench-", ".held"
"""How names of scratch folders start; and the file that a process locks in a folder that is its own."""
_LONG = 24 * 60 * 60
"""Seconds. No write takes so long. Older unfinished files are leftovers, on file systems without locks."""

_swept: set[tuple[int, Path]] = set()


@contextlib.contextmanager
def unfinished(folder: Path, name: str) -> Iterator[IO[bytes]]:
    """A new file in ``folder`` to write to. Within the context, ``keep`` gives it its place; else it is deleted.

    Args:
        name: what it will be called, or anything else that tells people what it is.
    """
    path = _partial(folder, name)
    try:
        with _own(path) as file:
            yield file
    finally:
        path.unlink(missing_ok=True)


def keep(file: IO[bytes], path: Path) -> None:
    """Move an ``unfinished`` file, whole and on the disk, to where it belongs in one step."""
    file.flush()
    os.fsync(file.fileno())
    Path(file.name).replace(path)


@contextlib.contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill. Within the context, the caller renames it to ``path``; else it is deleted."""

    def make() -> Path:
        own = _partial(path.parent, path.name)
        own.mkdir()
        return own

    with _own_folder(make) as own:
        (own / path.name).mkdir()
        yield own / path.name


def sweep(*folders: Path) -> None:
    """Delete what ended processes left unfinished in folders. What cannot be deleted stays, without an error."""
    for path in (path for folder in folders for path in folder.glob(PARTIAL) if not path.is_symlink()):
        if path.is_file():
            _if_left(path, path.unlink)
        else:  # one that nobody ever held is to be gone on with
            _if_left(path / _HELD, partial(shutil.rmtree, path))


def sweep_below(folder: Path, *, but: str = "images") -> None:
    """``sweep`` a folder and all below it, but for those called ``but``, which hold many files and are swept apart."""
    for here, below, _ in os.walk(folder):
        below[:] = [name for name in below if name != but]
        sweep(Path(here))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder that is gone afterwards. Those of killed processes are deleted first."""
    for held in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*/{_HELD}"):
        _if_left(held, partial(shutil.rmtree, held.parent))
    with _own_folder(lambda: Path(tempfile.mkdtemp(prefix=_SCRATCH))) as folder:
        yield folder


def _partial(folder: Path, name: str) -> Path:
    """A name for a new unfinished file in ``folder``. The folder is made and swept first."""
    folder.mkdir(parents=True, exist_ok=True)
    known = os.getpid(), folder.absolute()  # a forked child is another process
    if known not in _swept:
        _swept.add(known)
        sweep(folder)
    return folder / f".{name}.{secrets.token_hex(4)}.partial"


@contextlib.contextmanager
def _own(path: Path) -> Iterator[IO[bytes]]:
    """A new file that this process holds until the context ends."""
    while (file := _held(path)) is None:
        pass
    with file:
        yield file


@contextlib.contextmanager
def _own_folder(make: Callable[[], Path]) -> Iterator[Path]:
    """A new folder that this process holds until the context ends, when it is deleted."""
    file = None
    while file is None:
        folder = make()
        with contextlib.suppress(FileNotFoundError):  # swept with its folder
            file = _held(folder / _HELD)
    try:
        with file:
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _held(path: Path) -> IO[bytes] | None:
    """A new file that this process holds; None where another process swept it before it was held."""
    file = path.open("xb")
    with contextlib.suppress(OSError):  # a file system that knows no locks
        fcntl.flock(file, fcntl.LOCK_EX)
    if path.exists():
        return file
    file.close()
    return None


def _if_left(path: Path, delete: Callable[[], object]) -> None:
    """Call ``delete`` if nobody holds a file any more, and hold it meanwhile. What does not work is left undone."""
    with contextlib.suppress(OSError), path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            held = error.errno in (errno.EAGAIN, errno.EACCES)
            if held or time.time() - os.fstat(file.fileno()).st_mtime < _LONG:
                return
        delete()
