"""Several processes on this machine, one per GPU, started and watched by torch's elastic agent (what torchrun is)."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.launch import ends
from bench.launch.bound import bound
from bench.launch.command import worker_command, write_config
from bench.launch.settings import LaunchSettings
from bench.launch.signals import note
from bench.machine.bounds import MOST_ON_CPU
from bench.records.atomic import scratch

if TYPE_CHECKING:
    from bench.evaluate.config import EvaluationConfig
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.run import Outcome, Workspace
    from bench.machine.progress import Progress

_AGENT_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_NEARLY_AT_ONCE = 2
"""Seconds. A rank that is killed takes the others with it, and the agent may see them end first."""


@dataclass(frozen=True)
class GroupEnd:
    """How a group of processes ended: an exit code of ``bench.launch.ends`` or another one, and the reason."""

    code: int
    reason: str = ""


def run_in_processes(
    config: ExperimentConfig, workspace: Workspace, settings: LaunchSettings, progress: Progress
) -> Outcome:
    """Run an experiment in processes that share every job's work. A job whose rank dies fails; the others still run.

    Raises:
        BenchError: what stopped everything, or a death before any job had started.
        KeyboardInterrupt: Ctrl-C or SIGTERM here, or a signal to a worker; the same call resumes.
    """
    from bench.experiment.keys import job_keys

    processes = how_many(settings)
    folder = workspace.runs / config.run_name
    path = write_config(folder, config)
    names = [job.name for job in job_keys(config)]
    before, only = _stamps(folder, names), list[str]()
    while True:
        command = worker_command(path, workspace, only, quiet=progress.console.quiet)
        since = time.time()
        end = run_processes(command, processes, settings.signal_seconds)
        if end.code in (ends.FINE, ends.SOME_FAILED):
            break
        if end.code == ends.INTERRUPTED:
            raise KeyboardInterrupt
        if end.code == ends.DISK_FULL:
            raise BenchError(end.reason)
        blamed = ends.blame(folder, names, end.reason, since=since)
        if not blamed:
            ends.blame(folder, ends.preparations(folder), end.reason)
            raise BenchError(end.reason)
        for name in blamed:
            progress.say(f"{name} failed: {end.reason}")
        after = _stamps(folder, names)
        only = [name for name in names if after[name] == before[name] and not _finished(folder / name)]
        if not only:
            break
    return ends.outcome(folder, names)


def evaluate_in_processes(
    config: EvaluationConfig, workspace: Workspace, settings: LaunchSettings, progress: Progress
) -> Outcome:
    """Run an evaluation in processes that share its images. What stops one of them stops it all; it can be resumed.

    Raises:
        BenchError: one line.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the same call goes on.
    """
    from bench.experiment.run import Outcome

    folder = workspace.runs / config.run_name
    command = worker_command(write_config(folder, config), workspace, quiet=progress.console.quiet)
    end = run_processes(command, how_many(settings), settings.signal_seconds)
    if end.code == ends.INTERRUPTED:
        raise KeyboardInterrupt
    if end.code != ends.FINE:
        raise BenchError(end.reason)
    return Outcome(folder, {})


def run_processes(command: Sequence[str], processes: int, grace: int) -> GroupEnd:
    """Run a command as ranks 0 to ``processes - 1`` of one group; when one fails the others are stopped.

    None outlives this process, not even when it is killed.

    Args:
        grace: seconds that the processes have to end after a signal to this one was passed on to them.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    entry, *arguments = bound(command)
    # As many threads as there are cores would be that many for each process; torchrun, too, bounds them.
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    with scratch() as logs, _none_left(grace), _same_handlers(), _silent():
        agent = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="bench",
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
            shutdown_timeout=grace,
        )
        try:
            elastic_launch(agent, entry)(*arguments)
        except ChildFailedError as error:
            return first_end(error.failures)
        except SignalException as stop:
            note(stop.sigval)
            return GroupEnd(ends.INTERRUPTED)
    return GroupEnd(ends.FINE)


def first_end(failures: Mapping[int, Any]) -> GroupEnd:
    """What ended the group, of all that ended badly: ``ProcessFailure`` by rank.

    The first one, but a signal comes before an error of about the same time (the other ranks lose their connection),
    and being told to stop comes after both (the agent tells those that are left).
    """
    stopped = (ends.INTERRUPTED, -signal.SIGTERM)

    def when(rank: int) -> float:
        code, at = failures[rank].exitcode, failures[rank].timestamp
        if code in stopped:
            return float(at + _NEARLY_AT_ONCE)
        return float(at - _NEARLY_AT_ONCE if code < 0 else at)

    rank = min(failures, key=when)
    failure = failures[rank]
    if failure.exitcode in stopped:
        return GroupEnd(ends.INTERRUPTED)
    message = failure.message if Path(failure.error_file).is_file() else None
    return GroupEnd(failure.exitcode, ends.death(rank, failure.exitcode, message))


def how_many(settings: LaunchSettings) -> int:
    """Processes on this machine. BenchError for more than it has GPUs, or can do without one."""
    import torch

    gpus = torch.cuda.device_count()
    processes = settings.processes or gpus or 1
    if gpus and processes > gpus:
        raise BenchError(f"--processes {processes} is more than this machine's {gpus} GPUs; each process needs its own")
    if not gpus and processes > (most := max(os.cpu_count() or 1, MOST_ON_CPU)):
        raise BenchError(
            f"--processes {processes} is more than this machine's {os.cpu_count()} cores can do; give at most {most}"
        )
    return processes


def _stamps(folder: Path, names: Sequence[str]) -> dict[str, int | None]:
    """When each job's status was last written; a job that was tried since has another stamp."""
    paths = {name: folder / name / "status.json" for name in names}
    return {name: path.stat().st_mtime_ns if path.exists() else None for name, path in paths.items()}


def _finished(folder: Path) -> bool:
    from bench.records.status import read_status

    return bool(read_status(folder)["status"] == "finished")


@contextlib.contextmanager
def _none_left(grace: int) -> Iterator[None]:
    """Ends the processes that the agent was just starting when a signal came: it does not know of them yet."""
    import psutil

    this = psutil.Process()
    before = set(this.children())
    try:
        yield
    finally:
        left = [child for child in this.children() if child not in before]
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()
        for child in psutil.wait_procs(left, timeout=grace)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


@contextlib.contextmanager
def _same_handlers() -> Iterator[None]:
    """Puts back the handlers that the agent leaves replaced."""
    usual = {number: signal.getsignal(number) for number in _AGENT_SIGNALS}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps the agent's own account of a failure off the terminal: the user gets one line."""
    usual = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(usual)
