"""An experiment as cluster jobs: one that prepares, then an array with one element for each job of the experiment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, model_validator

from bench import records
from bench.errors import BenchError
from bench.launch import ends
from bench.launch.command import launch_folder, worker_command, write_config
from bench.launch.queues import ENDED_BADLY, OVER, LocalQueue, Queue, SlurmQueue, last_error
from bench.launch.rank import Rank
from bench.launch.settings import LaunchSettings

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.run import Outcome, Workspace
    from bench.machine.progress import Progress

PREPARATION = "preparation"
"""Name, in what is printed, of the cluster job that curates, encodes and evaluates the base."""


EXTENDS = ("methods", "subsets", "seeds")
"""What a later command of a run may have more of."""


class Queued(BaseModel):
    """``queued.json``: the id of each cluster job by its name, and the file of the configuration that they have.

    Files of earlier releases hold the ids alone.
    """

    jobs: dict[str, str]
    config: str = ""

    @model_validator(mode="before")
    @classmethod
    def _ids_alone(cls, value: Any) -> Any:
        return value if not isinstance(value, dict) or isinstance(value.get("jobs"), dict) else {"jobs": value}


def run_on_cluster(
    config: ExperimentConfig, workspace: Workspace, settings: LaunchSettings, progress: Progress
) -> Outcome | None:
    """Submit what is not finished and not queued yet, and wait until all of it has ended; None without waiting.

    Raises:
        BenchError: no Slurm here, a submission that Slurm refuses, or a preparation that failed.
        KeyboardInterrupt: Ctrl-C; Slurm's jobs go on, those of the local cluster stop with a checkpoint.
    """
    from bench.experiment.keys import job_keys

    folder = workspace.runs.absolute() / config.run_name
    names = [job.name for job in job_keys(config)]
    logs = launch_folder(folder) / settings.cluster
    queue: Queue = SlurmQueue(logs, settings) if settings.cluster == "slurm" else LocalQueue(logs, settings)
    path = write_config(folder, config)

    def rank(only: str) -> Rank:
        command = worker_command(path, workspace, [only], quiet=progress.console.quiet)
        return Rank(command, folder, () if only == records.BASE else (only,))

    jobs = _queued(folder, queue, config)
    changed = _changed(config, folder / "config.json")  # then a preparation says whether the run can take it
    todo = _unfinished(folder, [name for name in names if name not in jobs])
    if todo or changed or (PREPARATION not in jobs and _unfinished(folder, [records.BASE])):
        label = f"bench-{config.run_name}"
        if PREPARATION not in jobs:
            [jobs[PREPARATION]] = queue.submit([rank(records.BASE)], label)
        if todo:
            jobs |= zip(todo, queue.submit([rank(name) for name in todo], label, jobs[PREPARATION]), strict=True)
        if settings.cluster == "slurm":
            records.write_json(launch_folder(folder) / "queued.json", {"jobs": jobs, "config": path.name})
    for name, job in jobs.items():
        progress.say(f"{name}: job {job}")
    if not settings.wait:
        return None
    try:
        ended = _wait(queue, jobs, settings.poll_seconds, progress)
    except KeyboardInterrupt:
        progress.say(queue.leave(list(jobs.values())))
        raise
    return _Gathered(folder, queue, jobs, ended).outcome(names)


def _unfinished(folder: Path, names: Sequence[str]) -> list[str]:
    from bench.records.status import read_status

    return [name for name in names if read_status(folder / name)["status"] != "finished"]


def _queued(folder: Path, queue: Queue, config: ExperimentConfig) -> dict[str, str]:
    """Jobs that an earlier command submitted and that are not over: name to id.

    BenchError where they have another configuration.
    """
    path = launch_folder(folder) / "queued.json"
    if not path.exists() or not isinstance(queue, SlurmQueue):
        return {}
    queued = records.read_record(Queued, path)
    states = queue.states(list(queued.jobs.values())) if queued.jobs else {}
    jobs = {name: job for name, job in queued.jobs.items() if states[job] not in OVER}
    if jobs and queued.config and _changed(config, path.with_name(queued.config)):
        raise BenchError(
            f"jobs of {folder} are queued with other settings ({', '.join(dict.fromkeys(jobs.values()))}); wait for "
            "their end, cancel them with scancel, or give this run a name with --name"
        )
    if queued.config and not set(config.subsets) <= set(_subsets(path.with_name(queued.config))):
        jobs.pop(PREPARATION, None)  # the queued one curates and encodes other subsets
    return jobs


def _subsets(path: Path) -> list[str]:
    return list(records.read_json(path)["subsets"]) if path.exists() else []


def _changed(config: ExperimentConfig, path: Path) -> bool:
    """Whether a configuration that an earlier command left has other settings; having fewer jobs is no other."""
    if not path.exists():
        return False
    now, then = config.model_dump(mode="json"), records.read_json(path)
    return _settings(now) != _settings({key: then.get(key) for key in now})


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in EXTENDS}


def _wait(queue: Queue, jobs: dict[str, str], seconds: float, progress: Progress) -> dict[str, str]:
    """Look at the queue until every job is over, and say what changes; returns each name's last state."""
    last: dict[str, str] = {}
    while True:
        states = queue.states(list(jobs.values()))
        for name, job in jobs.items():
            if states[job] not in ("UNKNOWN", last.get(name)):
                last[name] = states[job]
                progress.say(f"{name}: {last[name].lower().replace('_', ' ')}")
        if all(last.get(name) in OVER for name in jobs):
            return last
        time.sleep(seconds)


@dataclass(frozen=True)
class _Gathered:
    """The cluster jobs when all are over: name to id, and name to last state."""

    folder: Path
    queue: Queue
    jobs: dict[str, str]
    ended: dict[str, str]

    def outcome(self, names: Sequence[str]) -> Outcome:
        """From the records, once every job that the cluster killed is marked there."""
        for name, job in self.jobs.items():
            if self.ended[name] != "COMPLETED":
                ends.blame(self.folder, self._of(name), self._why(name, job))
        if self.ended.get(PREPARATION) in ENDED_BADLY:
            raise BenchError(f"the preparation failed: {self._why(PREPARATION, self.jobs[PREPARATION])}")
        return ends.outcome(self.folder, names)

    def _of(self, name: str) -> list[str]:
        return ends.preparations(self.folder) if name == PREPARATION else [name]

    def _why(self, name: str, job: str) -> str:
        state = self.ended[name]
        logs = self.queue.logs(job)
        return last_error(logs) or f"the cluster ended job {job} ({state}); its logs are {logs}*"
