"""How much machine a launcher takes. Nothing here changes what is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from bench.errors import BenchError
from bench.experiment.toml import Settings, read_values, validated
from bench.machine.bounds import MOST_MINUTES, MOST_TASKS

_SET_HERE = {
    "account": "account",
    "cpus-per-task": "cpus_per_task",
    "gpus-per-node": "gpus_per_node",
    "nodes": "nodes",
    "ntasks-per-node": "processes",
    "partition": "partition",
    "time": "time_minutes",
}
"""sbatch options that have a setting of their own."""

_TAKEN = {"array", "dependency", "error", "job-name", "kill-on-invalid-dep", "open-mode", "output", "requeue", "signal"}
"""sbatch options that the launcher needs for itself."""


READ = {"local": (), "accelerate": ("processes",)}
"""Flags that a launcher reads; `slurm`, which is not named, reads all. A launch file may serve several launchers."""


class LaunchSettings(Settings):
    """Settings of the launchers; ``local`` reads none of them. The defaults are ours: no source has any."""

    processes: int | None = Field(
        None, ge=1, le=MOST_TASKS, description="processes on each machine; default: one per GPU, else one"
    )
    nodes: int = Field(1, ge=1, le=10_000, description="machines per job (slurm)")
    gpus_per_node: int = Field(0, ge=0, le=MOST_TASKS, description="GPUs that Slurm gives on each machine")
    cpus_per_task: int | None = Field(None, ge=1, le=MOST_TASKS, description="cores that Slurm gives to each process")
    partition: str | None = Field(None, description="Slurm partition; default: the cluster's")
    account: str | None = Field(None, description="Slurm account; default: the user's")
    time_minutes: int = Field(
        24 * 60, ge=1, le=MOST_MINUTES, description="time limit of a Slurm job, which is queued again at its end"
    )
    time_outs: int = Field(20, ge=0, le=1000, description="times that a job may reach its time limit and still go on")
    signal_seconds: int = Field(
        120,
        ge=1,
        le=24 * 3600,
        description="seconds from the signal to stop to the kill: time for one step and its checkpoint",
    )
    array_parallelism: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="jobs side by side; default: all on Slurm, one at a time on the local cluster",
    )
    setup: tuple[str, ...] = Field((), description="shell lines that a Slurm job runs first, e.g. 'module load cuda'")
    sbatch: dict[str, str | int | bool] = Field({}, description="further sbatch options, e.g. {qos = 'high'}")
    cluster: Literal["slurm", "local"] = Field("slurm", description="local: submitit's stand-in on this machine")
    wait: bool = Field(True, description="wait for the Slurm jobs; without it their ids are printed and that is all")
    poll_seconds: float = Field(15.0, gt=0, le=24 * 3600, description="seconds between two looks at the queue")

    @field_validator("sbatch")
    @classmethod
    def _leaves_ours_alone(cls, value: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        options = {key.lstrip("-").replace("_", "-"): held for key, held in value.items()}
        for key in options:
            if key in _TAKEN:
                raise PydanticCustomError(
                    "sbatch", "the sbatch option {key} is the launcher's own; leave it out", {"key": key}
                )
            if key in _SET_HERE:
                raise PydanticCustomError(
                    "sbatch",
                    "the sbatch option {key} has a setting of its own: {own}",
                    {"key": key, "own": _SET_HERE[key]},
                )
        return options

    @property
    def tasks_per_node(self) -> int:
        """Processes that Slurm starts on each machine."""
        return self.processes or max(self.gpus_per_node, 1)


def read_settings(path: Path | None, flags: Mapping[str, Any], sbatch: Iterable[str] = ()) -> LaunchSettings:
    """Read a TOML file of settings (if any) and lay flags that are not None and ``option=value`` pairs over it.

    Raises:
        BenchError: one line for a missing file, an unknown key (with the nearest known one) or a value that cannot be.
    """
    values = read_values(path, flags, LaunchSettings, file="launch file", key="launch setting")
    if pairs := list(sbatch):
        options = values.get("sbatch", {})
        if not isinstance(options, Mapping):
            raise BenchError("launch setting sbatch takes a table, e.g. [sbatch] with qos = 'high'")
        values["sbatch"] = dict(options) | dict(map(_option, pairs))
    settings: LaunchSettings = validated(LaunchSettings, values, "launch setting ")
    return settings


def check_read(launcher: str, flags: Mapping[str, Any], others: Iterable[str] = ("accelerate", "slurm")) -> None:
    """BenchError for a flag that is set and that the launcher does not read: it would change nothing, without a word.

    Args:
        flags: by the names of the settings; None or empty where the command line has none.
        others: launchers that the command could take instead.
    """
    unread = [
        name for name, value in flags.items() if value not in (None, ()) and name not in READ.get(launcher, flags)
    ]
    if unread:
        flag = "--minutes" if unread[0] == "time_minutes" else f"--{unread[0].replace('_', '-')}"
        readers = [name for name in others if unread[0] in READ.get(name, unread)]
        raise BenchError(
            f"--launcher {launcher} does not read {flag}; take --launcher {' or '.join(readers)}, or leave {flag} out"
        )


def _option(text: str) -> tuple[str, str | bool]:
    key, equals, value = text.partition("=")
    if not key.strip("- "):
        raise BenchError(f"--sbatch takes option=value, not {text!r}")
    return key.strip(), value.strip() if equals else True
