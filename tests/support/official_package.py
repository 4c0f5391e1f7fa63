"""Runs a parity test's ``official.py`` in the environment that ``make parity`` builds for it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def run_official(python: Path, script: Path, *arguments: str | Path, **environment: str) -> None:
    """Run a script with another environment's interpreter, away from this one's packages and from a GPU."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, script, *arguments],
        env=kept | {"CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
