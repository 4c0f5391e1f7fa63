"""How a worker ends, and how its launcher records that."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.records import BASE, CONTEXT

if TYPE_CHECKING:
    from bench.experiment.run import Outcome

FINE = 0
BROKEN = 1
"""An error ended the worker. Its line is in the file that TORCHELASTIC_ERROR_FILE names, or on stderr."""
SOME_FAILED = 3
"""Every job came to its end, some of them by failing; the reasons are in their records."""
DISK_FULL = 74
"""Nothing could be recorded any more (EX_IOERR of sysexits.h)."""
INTERRUPTED = 75
"""Stopped between two steps with a checkpoint; the same command resumes (EX_TEMPFAIL of sysexits.h)."""


def death(rank: int, code: int, message: str | None) -> str:
    """Why a job failed whose rank ended with ``code`` (a signal's negative number, as subprocess has it)."""
    if message:
        return message
    if code < 0:
        try:
            how = signal.Signals(-code).name
        except ValueError:
            how = f"signal {-code}"
        if -code == signal.SIGKILL:
            how += ", as when memory runs out: a smaller --micro-batch needs less"
    else:
        how = f"exit code {code}"
    return f"rank {rank} died ({how})"


def blame(
    folder: Path, names: Iterable[str], reason: str, *, since: float | None = None, alone: bool = False
) -> list[str]:
    """Mark those of an experiment's jobs that were running as failed; returns them.

    Args:
        since: Unix time at which the workers started. What was left as running before is not theirs. Where none of
            theirs is left as running, the one that failed or was interrupted last since then gets the reason: a rank
            that lost its connection to a dead one, or was told to stop for its sake, knows no better.
        alone: no other workers have these jobs, so what is left as running is theirs, whenever it began.
    """
    from bench.records.status import read_status, write_status

    names = list(names)
    statuses = {name: read_status(folder / name)["status"] for name in names}
    written = {name: _written(folder / name) for name in names if statuses[name] != "new"}
    theirs = [name for name in written if since is None or written[name] >= since]
    blamed = [name for name in (written if alone else theirs) if statuses[name] == "started"]
    if not blamed and since is not None:
        stopped = [name for name in theirs if statuses[name] in ("failed", "interrupted")]
        blamed = sorted(stopped, key=lambda name: written[name])[-1:]
    for name in blamed:
        write_status(folder / name, "failed", reason)
    return blamed


def _written(folder: Path) -> float:
    """When a job's status was written, in Unix time."""
    return (folder / "status.json").stat().st_mtime


def preparations(folder: Path) -> list[str]:
    """Recorded models that are evaluated and not trained."""
    names = [path.parent.name for path in folder.glob("*/status.json")]
    return sorted(name for name in names if name == BASE or name.startswith(f"{CONTEXT}-"))


def outcome(folder: Path, names: Iterable[str], unfinished: str = "the same command resumes it") -> Outcome:
    """How an experiment ended, from its records alone."""
    from bench.experiment.run import Outcome
    from bench.records.status import read_status

    failed = {}
    for name in names:
        match read_status(folder / name):
            case {"status": "finished"}:
                pass
            case {"status": "failed", "reason": reason}:
                failed[name] = str(reason)
            case {"status": status}:
                failed[name] = f"{'did not start' if status == 'new' else status}; {unfinished}"
    return Outcome(folder, failed)
