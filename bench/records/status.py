"""``status.json``: how a job stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.records.files import VERSION, read_json, write_json


def write_status(folder: Path, status: str, reason: str | None = None) -> None:
    """Say how a job stands: started, finished, failed or interrupted, with the reason."""
    write_json(folder / "status.json", {"v": VERSION, "status": status, "reason": reason})


def read_status(folder: Path) -> dict[str, Any]:
    """Status of a job folder; ``{"status": "new"}`` where there is none."""
    path = folder / "status.json"
    return dict(read_json(path)) if path.exists() else {"status": "new", "reason": None}
