"""What tests of launchers share: an experiment of two jobs whose workers are stubs, and a Slurm to run it on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.experiment.config import ExperimentConfig
from bench.experiment.keys import job_keys
from bench.experiment.run import Workspace
from bench.launch import command
from bench.machine.progress import Progress

STUB = Path(__file__).parent / "stub_worker.py"
SLURM = Path(__file__).parent / "slurm.sh"
CONFIG = ExperimentConfig(name="small", methods=("sft", "soar"), subsets=("all",))
SFT, SOAR = (job.name for job in job_keys(CONFIG))


class Stubbed:
    """A workspace in which workers are stubs that do as ``behaviour`` says, by job."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.workspace = Workspace(folder / "cache", folder / "runs")
        self.folder = self.workspace.runs / CONFIG.run_name
        self.progress = Progress(quiet=True)
        self.said: list[str] = []
        patch.setattr(self.progress, "say", self.said.append)
        self._patch = patch
        patch.setattr(command, "WORKER", (sys.executable, "-S", "-E", str(STUB)))
        patch.setenv("STUB_JOBS", json.dumps([SFT, SOAR]))
        patch.delenv("OMP_NUM_THREADS", raising=False)
        self.behave()

    def behave(self, **behaviour: str) -> None:
        """Say what happens in which job, ``sft``, ``soar`` or ``base``."""
        keys = {"sft": SFT, "soar": SOAR, "base": "base"}
        self._patch.setenv("STUB", json.dumps({keys[key]: value for key, value in behaviour.items()}))

    def trace(self) -> list[dict[str, Any]]:
        """A line for each worker that started."""
        path = self.workspace.runs / "trace.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def started(self, name: str, ranks: int = 1) -> bool:
        """Whether a job has begun on that many ranks, each of which now hears signals."""
        heard = [line for line in self.trace() if line["only"] in ([name], [])]  # [] is a worker of every job
        return len(heard) >= ranks and (self.folder / name / "status.json").exists()

    def status(self, name: str) -> tuple[str, str | None]:
        held = json.loads((self.folder / name / "status.json").read_text())
        return held["status"], held["reason"]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A one-node Slurm of this test run's own, with SLURM_CONF set; without Slurm the test is skipped."""
    missing = [name for name in ("sbatch", "slurmctld", "slurmd", "munged") if not _find(name)]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("only root can start the Slurm of this test")
    folder = tmp_path_factory.mktemp("slurm")
    conf = subprocess.run([SLURM, "start", folder], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", conf)
        yield Path(conf)
        subprocess.run(["scancel", "--me"], check=True)
        subprocess.run([SLURM, "stop", folder], check=True)


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


@contextmanager
def once(true: Callable[[], bool], act: Callable[[], object]) -> Iterator[None]:
    """Do something from another thread as soon as something is so; also when it never is, so that no test hangs."""

    def watch() -> None:
        try:
            wait_until(true)
        finally:
            act()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def ctrl_c() -> None:
    """What a terminal sends to this process at Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that is sure to happen; the limit only keeps a broken test from hanging."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
