"""A run as one file: everything that its report is drawn from, without weights, checkpoints and most images."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import records
from bench.errors import BenchError
from bench.files import scratch

SUFFIX = ".tar.xz"
KEPT = ("*/job.json", "*/status.json", "*/meter.jsonl", "*/clock.jsonl", "*/train.jsonl", "*/evaluations/[!.]*/*.json*")
"""Records below a run's folder, beside its own ``*.json``."""


def pack(run: Path, out: Path) -> int:
    """Write a run's records, and the images that its report shows, into ``out``; returns how many files it holds.

    Equal records give equal bytes. BenchError where ``run`` holds no run or ``out`` has another ending.
    """
    from bench.report import shown_images
    from bench.report.read import read_study

    if not out.name.endswith(SUFFIX):
        raise BenchError(f"an archive ends in {SUFFIX}; {out} does not")
    study = read_study([run])
    files = {*run.glob("*.json"), *(path for pattern in KEPT for path in run.glob(pattern))}
    files |= {path for path in shown_images(study) if path.is_file()}
    packed = io.BytesIO()
    with lzma.open(packed, "wb", preset=9) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(files):
            entry = tarfile.TarInfo(f"{run.name}/{path.relative_to(run).as_posix()}")
            content = path.read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    records.write_bytes(out, packed.getvalue())
    return len(files)


@contextmanager
def unpacked(runs: Sequence[Path]) -> Iterator[list[Path]]:
    """The same runs as folders: an archive is unpacked for as long as the context lasts."""
    with ExitStack() as stack:
        yield [_folder(run, stack) if run.name.endswith(SUFFIX) else run for run in runs]


def _folder(archive: Path, stack: ExitStack) -> Path:
    target = stack.enter_context(scratch())
    try:
        with tarfile.open(archive, "r:xz") as file:
            file.extractall(target, filter="data")  # nothing outside the folder, no links out of it
    except (OSError, tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise BenchError(f"{archive} is no archive of a run ({error})") from error
    found = [path.parent for path in target.glob("*/experiment.json")]
    if len(found) != 1:
        raise BenchError(f"{archive} is no archive of a run: it holds {len(found)} experiment.json")
    return found[0]
