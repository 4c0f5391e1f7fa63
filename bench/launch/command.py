"""The command line of a worker."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import records

if TYPE_CHECKING:
    from bench.evaluate.config import EvaluationConfig
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.run import Workspace

SAFE = "-P"
"""Python's option that keeps the current folder out of where modules are looked for. A file ``random.py`` there would
be imported in place of the library's, and run."""

WORKER: tuple[str, ...] = (sys.executable, SAFE, "-m", "bench.worker")


def launch_folder(folder: Path) -> Path:
    """Where a launcher keeps what is no record: the configuration it hands over, logs, ids of cluster jobs."""
    return folder.absolute() / "launch"


def write_config(folder: Path, config: ExperimentConfig | EvaluationConfig) -> Path:
    """Write the configuration for the workers. Named by its content: one that waits in a queue is never changed."""
    values = config.model_dump(mode="json")
    path = launch_folder(folder) / f"config-{records.digest(values)[:12]}.json"
    records.write_json(path, values)
    return path


def worker_command(config: Path, workspace: Workspace, only: Sequence[str] = (), *, quiet: bool) -> tuple[str, ...]:
    """What each process runs; without ``only`` the whole experiment."""
    places = ("--cache", str(workspace.cache.absolute()), "--runs", str(workspace.runs.absolute()))
    chosen = [part for name in only for part in ("--only", name)]
    return (*WORKER, str(config.absolute()), *places, *chosen, *(("--quiet",) if quiet else ()))
