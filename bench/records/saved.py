"""States of a training on disk: written whole or not at all, and checked before they are read."""

from __future__ import annotations

import zipfile
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from bench import records
from bench.errors import BenchError


def save(state: Any, path: Path) -> None:
    """Write a state with ``torch.save``, whole or not at all."""
    records.write_with(path, lambda file: torch.save(state, file))


class Writer:
    """Writes states to one file, each in turn, on a thread: the caller goes on, and must not change what it gave."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def write(self, state: Any) -> None:
        """Begin to write a state; the one before it is there when this returns. Raises what its writing raised."""
        self.wait()
        self._writing = self._thread.submit(save, state, self._path)

    def wait(self) -> None:
        """Return when the last state is there. Raises what its writing raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def load(path: Path, remedy: str, *, checked: bool = False) -> Any:
    """Read a state that ``save`` wrote; nothing but tensors and plain values is unpickled.

    Args:
        remedy: what to do about a damaged one, for the line of the error.
        checked: ``is_damaged`` has been asked already.

    Raises:
        BenchError: one line, if the file is not what was written.
    """
    if checked or not is_damaged(path):
        try:
            return torch.load(path, weights_only=True, mmap=True)
        except Exception as error:  # whatever a stranger's file brings about
            raise BenchError(f"{path} is damaged; {remedy}") from error
    raise BenchError(f"{path} is damaged; {remedy}")


def is_damaged(path: Path) -> bool:
    """Whether a state is there that is not whole. torch writes a checksum with every tensor, and reads none.

    ``perf/README.md`` has the cost.
    """
    if not path.exists():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return True
