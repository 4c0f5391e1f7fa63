"""What each process of a cluster job runs: it starts a worker, passes signals on, and says how the worker ended.

The worker is a process of its own, so that someone is left to write down how a rank died, and so that submitit's
handler, which runs in the middle of whatever the main thread does, can wait for a checkpoint between two steps.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from bench.launch import ends
from bench.launch.bound import bound
from bench.launch.command import launch_folder
from bench.launch.signals import STOP_SIGNALS
from bench.records.atomic import scratch

_LAST_WORD, _OTHERS_WORD = 2.0, 1.0
"""Seconds that a rank whose worker was killed waits before it marks the job, after those that lost their connection to
it; and that such a rank waits for the word of one that was killed."""


_LOOK = 1.0
"""Seconds between two looks at the command that a rank works for."""


class RankFailed(Exception):
    """This rank's worker did not do what it was started for; the cluster is to count the job as failed."""


@dataclass(frozen=True)
class Rank:
    """One rank's share of a cluster job. Called in each process of the job; submitit pickles it.

    Attributes:
        command: the worker's command line.
        folder: the experiment's run folder.
        names: the jobs that the worker runs; none: what comes before the jobs.
        token: of this submission alone, where a cluster may use a job's number again.
        launcher: process that submits. On this machine, where no cluster keeps a job, the worker stops when it is gone.
    """

    command: tuple[str, ...]
    folder: Path
    names: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(6))
    launcher: int = field(default_factory=os.getpid)

    @property
    def word(self) -> Path:
        """Where the ranks tell each other why the first of them died, in this attempt."""
        attempt = os.environ.get("SLURM_RESTART_COUNT", 0)
        return launch_folder(self.folder) / f"death-{self.token}-{attempt}.txt"

    def __call__(self) -> None:
        """Run the worker to its end. Raises RankFailed, so that a job that depends on this one does not start."""
        import submitit

        place = submitit.JobEnvironment()
        since = time.time()
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            threading.Thread(target=_follow, args=(self.launcher,), daemon=True).start()
        code, reason = self._work(place.global_rank, several=place.num_tasks > 1)
        match code:
            case ends.FINE:
                return
            case ends.SOME_FAILED:
                raise RankFailed("the job failed; its status.json says why")
            case ends.INTERRUPTED if not self.word.exists():
                if place.global_rank == 0:
                    _leave_interrupted()
                return
        try:
            if code != ends.DISK_FULL:
                if place.num_tasks > 1:
                    reason = _true_reason(code, reason, self.word)
                names = self.names or ends.preparations(self.folder)
                ends.blame(self.folder, names, reason, since=since, alone=True)
            print(f"bench: {reason}", file=sys.stderr, flush=True)
        finally:  # or they would wait for this rank for ever
            if place.num_tasks > 1:
                stop_others()
        raise RankFailed(reason)

    def _work(self, rank: int, *, several: bool) -> tuple[int, str]:
        """Run the worker: its exit code, and why it died if it did."""
        with scratch() as folder:
            error_file = folder / "error.json"
            os.environ["TORCHELASTIC_ERROR_FILE"] = str(error_file)
            if several:
                join_group()
            code = run_worker(self.command)
            return code, ends.death(rank, code, _line(error_file))

    def checkpoint(self) -> Any:
        """Called by submitit on rank 0 ahead of a kill: stop the worker between two steps, queue the same again."""
        from submitit.helpers import DelayedSubmission

        _stop()
        if _running is not None:
            with contextlib.suppress(ChildProcessError):  # it has just ended
                os.waitid(os.P_PID, _running.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(self)


_running: subprocess.Popen[bytes] | None = None
"""This process's worker. Not in Rank, which is pickled."""
_stop_request = False
"""Whether the worker was told to stop."""


def run_worker(command: tuple[str, ...]) -> int:
    """Run the worker; its exit code, or the negative number of the signal that killed it."""
    global _running, _stop_request
    _stop_request = False
    signal.signal(signal.SIGTERM, _stop)  # submitit's handler ignores it
    # On this machine Ctrl-C reaches everything in the terminal's session; the worker is to hear of it once, from here.
    _running = subprocess.Popen(bound(command), start_new_session=os.environ.get("SUBMITIT_EXECUTOR") == "local")
    # Not Popen.wait: it holds a lock, which ``checkpoint``, called from a signal's handler, would wait for in vain.
    os.waitid(os.P_PID, _running.pid, os.WEXITED | os.WNOWAIT)
    code = _running.wait()
    _running = None
    if _stop_request and -code in STOP_SIGNALS:  # it was told before it could listen
        return ends.INTERRUPTED
    return code


def _true_reason(code: int, reason: str, word: Path) -> str:
    """The word of the rank that ended first, through a file: one that was killed has it, whoever noticed before."""
    if code < 0 or not word.exists():
        word.write_text(reason, encoding="utf-8")
    if code != ends.INTERRUPTED:
        time.sleep(_LAST_WORD if code < 0 else _OTHERS_WORD)
    return word.read_text(encoding="utf-8")


def _stop(number: int = 0, frame: FrameType | None = None) -> None:
    global _stop_request
    _stop_request = True
    if _running is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(_running.pid, signal.SIGTERM)


def _follow(launcher: int) -> None:
    """Stop the worker once the command that it works for is gone. One that was killed cannot pass that on."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(launcher)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_LOOK)
    while True:  # the worker may not have been started yet
        _stop()
        time.sleep(_LOOK)


def join_group() -> None:
    """Set torchrun's environment from the cluster's, one thread per core of this process."""
    from submitit.helpers import TorchDistributedEnvironment

    # All GPUs of the machine stay visible: LOCAL_RANK picks this process's.
    group = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if group.local_world_size == group.world_size:
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("SLURM_CPUS_PER_TASK", "1"))


def stop_others() -> None:
    """What srun does to a job with a bad rank; submitit's local controller, this process's parent, has to be asked."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        os.kill(os.getppid(), signal.SIGTERM)


def _leave_interrupted() -> None:
    """Rank 0's worker stopped with a checkpoint and submitit's handler did not queue the job again."""
    if _stop_request and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        # SIGTERM: pre-emption puts the job back into the queue once its time is up, scancel does not. Slurm decides;
        # a job that had ended by itself would not be queued again.
        while True:
            signal.pause()
    raise RankFailed("interrupted; the same command resumes")


def _line(path: Path) -> str | None:
    """The line that the worker left, if it could."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["message"])
    except (OSError, ValueError, KeyError):
        return None
