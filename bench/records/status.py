"""``status.json``: how a job stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.records.files import VERSION, read_raw, write_record
from bench.records.schema import Status, StatusRecord


def write_status(folder: Path, status: Status, reason: str | None = None) -> None:
    """Say how a job stands: started, finished, failed or interrupted, with the reason."""
    write_record(folder / "status.json", StatusRecord(v=VERSION, status=status, reason=reason))


def read_status(folder: Path) -> dict[str, Any]:
    """Status of a job folder; ``{"status": "new"}`` where there is none."""
    path = folder / "status.json"
    return read_raw(StatusRecord, path) if path.exists() else {"status": "new", "reason": None}


def check_finished(folder: Path, status: str, reason: str | None) -> None:
    """BenchError for a job that has not come to its end, and what goes on with it."""
    if status != "finished":
        why = f": {reason}" if reason else ""
        raise BenchError(f"{folder} is not finished ({status}{why}); the same `bench run` command goes on with it")
