"""A run as one file: everything that its report is drawn from, without weights, checkpoints and most images."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from bench import records
from bench.errors import FULL, BenchError, of_path
from bench.records import pictures
from bench.records.atomic import scratch
from bench.records.reading import check_run

SUFFIX = ".tar.xz"
RECORDS = (
    "*/job.json",
    "*/status.json",
    "*/meter.jsonl",
    "*/clock.jsonl",
    "*/train.jsonl",
    "*/evaluations/[!.]*/*.json*",
    "*/evaluations/[!.]*/probes/*/*.json*",
)
"""Records below a run's folder, beside its own ``*.json``."""


MOST_FILES = 100_000
MOST_BYTES = 4 * 2**30
"""What an archive may hold: a thousand times the largest of this repository, and less than a disk. Ours."""


class _TooMuch(Exception):
    """An archive unpacks to more than any run leaves."""


class _Bounded:
    """The unpacked bytes of an archive, up to ``MOST_BYTES``: a few kilobytes can unpack to terabytes."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content, self._left = content, MOST_BYTES

    def read(self, size: int) -> bytes:
        data = self._content.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise _TooMuch(f"it unpacks to more than {MOST_BYTES / 2**30:g} GiB")
        return data


def pack(run: Path, out: Path, images: Iterable[Path], copies: Mapping[Path, str | None] | None = None) -> int:
    """Write a run's records and its images into ``out``; returns how many files it holds.

    Equal records give equal bytes. No link is followed: what it points to may be anything of this machine.

    Args:
        images: those that are packed as they are; one that is not there is left out.
        copies: those that are packed as WebP, with the SHA-256 that was recorded: small ones without loss, large ones
            scaled down (``pictures.webp``). One that is not there, or not what was recorded, is left out.

    Raises:
        BenchError: ``run`` holds no run or a link among its records, or ``out`` has another ending.
    """
    if not out.name.endswith(SUFFIX):
        raise BenchError(f"an archive ends in {SUFFIX}; {out} does not")
    check_run(run)
    files = {*run.glob("*.json"), *(path for pattern in RECORDS for path in run.glob(pattern))}
    files |= {path for path in images if path.is_symlink() or path.is_file()}
    copied = {pictures.copy_of(path): (path, sha256) for path, sha256 in (copies or {}).items()}
    for path in sorted(files | {path for path, _ in copied.values()}):
        if link := next((part for part in _below(run, path) if part.is_symlink()), None):
            raise BenchError(f"{link} is a link, and an archive follows no link; put the file itself there")
    name = run.resolve().name  # of `.` too
    number = 0

    def write(file: IO[bytes]) -> None:
        nonlocal number
        with lzma.open(file, "wb", preset=9) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
            for path in sorted(files | copied.keys()):
                content = _copy(*copied[path]) if path in copied else path.read_bytes()
                if content is None:
                    continue
                entry = tarfile.TarInfo(f"{name}/{path.relative_to(run).as_posix()}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
                number += 1

    records.write_with(out, write)
    return number


def _copy(path: Path, sha256: str | None) -> bytes | None:
    try:
        picture = pictures.scaled(pictures.read_kept(path, sha256))
    except (FileNotFoundError, pictures.BadPicture):
        return None
    return pictures.webp(picture, max(picture.size))


def _below(run: Path, path: Path) -> list[Path]:
    """A file of a run and the folders that it lies in, below the run."""
    return [part for part in (path, *path.parents) if part != run and part.is_relative_to(run)]


def run_name(run: Path) -> str:
    """Name of the run in an archive, or of a folder; an archive that cannot be read has its own."""
    if not run.name.endswith(SUFFIX):
        return run.resolve().name  # of `.` too
    try:
        with (
            run.open("rb") as packed,
            lzma.open(packed) as content,
            tarfile.open(fileobj=cast(Any, content), mode="r|") as file,
        ):
            first = file.next()
    except (OSError, tarfile.TarError, lzma.LZMAError, EOFError):
        first = None
    parts = Path(first.name).parts if first else ()
    return parts[0] if parts and parts[0] not in ("..", "/") else run.name.removesuffix(SUFFIX)


@contextmanager
def unpacked(runs: Sequence[Path]) -> Iterator[list[Path]]:
    """The same runs as folders: an archive is unpacked for as long as the context lasts."""
    with ExitStack() as stack:
        yield [_folder(run, stack) if run.name.endswith(SUFFIX) else run for run in runs]


def _folder(archive: Path, stack: ExitStack) -> Path:
    target = stack.enter_context(scratch())
    try:
        with (
            archive.open("rb") as packed,
            lzma.open(packed) as content,
            tarfile.open(fileobj=cast(Any, _Bounded(content)), mode="r|") as file,
        ):
            for number, entry in enumerate(file):
                if number == MOST_FILES:
                    raise _TooMuch(f"it holds more than {MOST_FILES:,} files")
                if not entry.isdir() and (not entry.isreg() or entry.issparse()):
                    raise tarfile.TarError(f"{entry.name} is neither a file nor a folder")
                file.extract(entry, target, filter="data")  # nothing outside the folder
    except FileNotFoundError as error:
        raise of_path(error, archive) from error
    except (OSError, tarfile.TarError, lzma.LZMAError, EOFError, ValueError, MemoryError, _TooMuch) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise of_path(error, target) from error
        raise BenchError(f"{archive} is no archive of a run ({error})") from error
    runs = [path.parent for path in target.glob("*/experiment.json")]
    if len(runs) != 1:
        raise BenchError(f"{archive} is no archive of a run: it holds {len(runs)} experiment.json")
    return runs[0]
