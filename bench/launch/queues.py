"""The queues that jobs wait in: a Slurm cluster's, or submitit's stand-in on this machine."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.errors import BenchError
from bench.launch.command import SAFE
from bench.launch.rank import Rank
from bench.launch.settings import LaunchSettings

ENDED_BADLY = {"BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
OVER = ENDED_BADLY | {"COMPLETED", "GONE"}
"""States from which a job does not return. GONE is ours: the queue does not know it any more."""


_PYTHON = f"{shlex.quote(sys.executable)} {SAFE}"
"""How a process of a Slurm job starts."""

_ERROR = "sbatch: error: "


class Queue(Protocol):
    """Where jobs wait for their turn."""

    def submit(self, ranks: Sequence[Rank], name: str, after: str | None = None) -> list[str]:
        """Queue one job per entry, side by side, to start when the job ``after`` has succeeded; returns their ids."""

    def states(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Slurm's word for how each job stands."""

    def logs(self, job: str) -> str:
        """How the names of a job's log files start."""

    def leave(self, ids: Sequence[str]) -> str:
        """Called when nobody waits any more; says what becomes of the jobs."""


class SlurmQueue:
    """A cluster's queue: an array per submission, states from ``squeue`` (no accounting needed)."""

    def __init__(self, folder: Path, settings: LaunchSettings) -> None:
        self._folder, self._settings = folder, settings

    def submit(self, ranks: Sequence[Rank], name: str, after: str | None = None) -> list[str]:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            executor = submitit.SlurmExecutor(self._folder, max_num_timeout=self._settings.time_outs, python=_PYTHON)
            executor.update_parameters(**sbatch_parameters(self._settings, name, after))
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it also raises
                jobs = executor.submit_array(ranks)
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise BenchError(f"Slurm did not take the job: {_reason(str(error))}") from error
        except RuntimeError as error:  # submitit found no srun
            raise BenchError(
                "there is no Slurm here (srun is not on the PATH); run where there is, or with --launcher accelerate"
            ) from error
        return [job.job_id for job in jobs]

    def states(self, ids: Sequence[str]) -> Mapping[str, str]:
        command = ["squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i|%T"]
        try:
            listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except FileNotFoundError as error:
            raise BenchError("there is no Slurm here (squeue is not on the PATH); run where there is") from error
        except subprocess.CalledProcessError:  # the controller restarts or is busy; the jobs do not mind
            return dict.fromkeys(ids, "UNKNOWN")
        states = dict(line.strip().split("|") for line in listed.splitlines())
        return {job: states.get(job, "GONE") for job in ids}

    def logs(self, job: str) -> str:
        return f"{self._folder}/{job}_"

    def leave(self, ids: Sequence[str]) -> str:
        whole = sorted({job.partition("_")[0] for job in ids}, key=int)
        return (
            f"the Slurm jobs go on, and the same command waits for them again; to stop them: scancel {' '.join(whole)}"
        )


def sbatch_parameters(settings: LaunchSettings, name: str, after: str | None) -> dict[str, Any]:
    """What submitit's SlurmExecutor is told; the names are its own."""
    further: dict[str, Any] = dict(settings.sbatch)
    if after is not None:
        further |= {"kill-on-invalid-dep": "yes"}  # else the jobs wait for ever when the one before them fails
    parameters = {
        "job_name": name,
        "time": settings.time_minutes,
        "nodes": settings.nodes,
        "ntasks_per_node": settings.tasks_per_node,
        "gpus_per_node": settings.gpus_per_node or None,
        "cpus_per_task": settings.cpus_per_task,
        "partition": settings.partition,
        "account": settings.account,
        "signal_delay_s": settings.signal_seconds,
        "array_parallelism": settings.array_parallelism,
        "setup": list(settings.setup) or None,
        "dependency": f"afterok:{after}" if after is not None else None,
        "additional_parameters": further or None,
    }
    # When a rank's process ends badly, the job's others are stopped. Since 22.05 srun does not take over the cores that
    # sbatch was asked for.
    srun = ["--kill-on-bad-exit=1"]
    if settings.cpus_per_task is not None:
        srun.append(f"--cpus-per-task={settings.cpus_per_task}")
    return {key: value for key, value in parameters.items() if value is not None} | {"srun_args": srun}


class LocalQueue:
    """submitit's local executor, a few jobs at a time, so that an experiment can be tried out without a cluster."""

    def __init__(self, folder: Path, settings: LaunchSettings) -> None:
        import submitit

        if settings.nodes > 1:
            raise BenchError("--cluster local is this machine alone; several nodes need a Slurm cluster")
        if not settings.wait:
            raise BenchError("--no-wait needs a Slurm cluster; --cluster local runs only while it is waited for")
        self._side_by_side = settings.array_parallelism or 1
        self._executor = submitit.LocalExecutor(folder, max_num_timeout=settings.time_outs)
        self._executor.update_parameters(
            tasks_per_node=settings.tasks_per_node,
            gpus_per_node=settings.gpus_per_node,
            timeout_min=settings.time_minutes,
            signal_delay_s=settings.signal_seconds,
            setup=settings.setup,
        )
        self._waiting: dict[str, tuple[Rank, str | None]] = {}
        self._started: dict[str, Any] = {}
        self._state: dict[str, str] = {}

    def submit(self, ranks: Sequence[Rank], name: str, after: str | None = None) -> list[str]:
        ids = [f"{name}-{len(self._state) + i}" for i in range(len(ranks))]
        self._waiting |= {job: (rank, after) for job, rank in zip(ids, ranks, strict=True)}
        self._state |= dict.fromkeys(ids, "PENDING")
        return ids

    def states(self, ids: Sequence[str]) -> Mapping[str, str]:
        for job, process in self._started.items():
            if self._state[job] == "RUNNING" and process.done():
                self._state[job] = "COMPLETED" if _succeeded(process) else "FAILED"
        for job, (rank, after) in list(self._waiting.items()):
            before = self._state[after] if after is not None else "COMPLETED"
            if before in ENDED_BADLY:
                self._state[job] = "CANCELLED"
                del self._waiting[job]
            elif before == "COMPLETED" and self._running() < self._side_by_side:
                self._started[job], self._state[job] = self._start(rank), "RUNNING"
                del self._waiting[job]
        return {job: self._state.get(job, "GONE") for job in ids}

    def _start(self, rank: Rank) -> Any:
        usual = signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # inherited: Ctrl-C is for this process, which passes it on
        try:
            with _safe_path():
                return self._executor.submit(rank)
        finally:
            signal.signal(signal.SIGINT, usual)

    def _running(self) -> int:
        return list(self._state.values()).count("RUNNING")

    def logs(self, job: str) -> str:
        return f"{self._executor.folder}/{self._started[job].job_id if job in self._started else job}_"

    def leave(self, ids: Sequence[str]) -> str:
        self._waiting.clear()
        for job, process in self._started.items():
            if self._state[job] == "RUNNING":
                process._process.send_signal(signal.SIGTERM)
        for process in self._started.values():
            process._process.wait()
        return "the running jobs were stopped; the same command resumes them"


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Python processes that are started meanwhile, and theirs, import nothing from the current folder."""
    usual = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if usual is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = usual


def _succeeded(job: Any) -> bool:
    """Whether each process of a finished local job returned."""
    from submitit.core.utils import pickle_load

    for rank in range(job.num_tasks):
        path = job.task(rank).paths.result_pickle
        with contextlib.suppress(OSError, EOFError):
            if pickle_load(path)[0] == "success":
                continue
        return False
    return True


def last_error(logs: str) -> str | None:
    """The last line in which a job's worker said what was wrong; ``logs`` is how the names of its logs start."""
    start = Path(logs)
    lines = [line for path in sorted(start.parent.glob(f"{start.name}*_log.err")) for line in _lines(path)]
    errors = [line.removeprefix("bench: ") for line in lines if line.startswith("bench: ")]
    return errors[-1] if errors else None


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return (errors or lines or ["it gives no reason"])[0]
