"""``--micro-batch auto``: of each row, the most rows at a time that a rehearsal says fit this machine's GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig
from bench.experiment.keys import job_keys
from bench.records.files import read_raw
from bench.records.schema import JobRecord
from bench.rehearsal import answers
from bench.rehearsal.ask import rehearsed
from bench.rehearsal.fit import GIB, largest
from bench.rehearsal.results import Rehearsal, setting_of

OTHERWISE = "give --micro-batch a number"


def chosen(
    config: ExperimentConfig, *, processes: int, memory: int, cache: Path, runs: Path, say: Callable[[str], None]
) -> ExperimentConfig:
    """An experiment with a number for each row in place of ``auto``; another experiment as it is.

    A row of which a job has begun keeps its number: a resumed job computes in the parts that it began with.

    Args:
        processes: that share a job.
        memory: bytes of the smallest GPU among theirs.
        runs: the folder of run folders.

    Raises:
        BenchError: no rehearsal runs here, a row cannot be rehearsed, or not one row at a time fits.
    """
    if config.micro_batch != "auto":
        return config
    rows = _begun(config, runs)
    if lacking := tuple(row for row in config.methods if row not in rows):
        if reason := answers.why_not():
            raise BenchError(f"--micro-batch auto needs a rehearsal: {reason}; {OTHERWISE}")
        say(f"--micro-batch auto: rehearsing {', '.join(lacking)}, which takes minutes on a full-size backbone")
        asked = config.model_copy(update={"micro_batch": None, "methods": lacking})
        found = rehearsed(asked, setting_of(asked, processes), cache, grid="own")
        rows |= {row: _most(row, [each for each in found if each.row == row], memory) for row in lacking}
    say(f"--micro-batch auto: {', '.join(f'{row} {rows[row]}' for row in config.methods)}")
    return config.model_copy(update={"micro_batches": rows})


def _begun(config: ExperimentConfig, runs: Path) -> dict[str, int]:
    """What was chosen for the rows of which this run folder holds a job."""
    rows: dict[str, int] = {}
    for job in job_keys(config):
        path = runs / config.run_name / job.name / "job.json"
        if path.exists() and (number := read_raw(JobRecord, path).get("micro_batch")):
            rows[job.method] = number
    return rows


def _most(row: str, found: list[Rehearsal], memory: int) -> int:
    """The most that every stage of a row can take."""
    least: int | None = None
    for whole in (each for each in found if not each.short):
        short = [each for each in found if each.short and each.stage == whole.stage]
        if problem := next((each.problem for each in (whole, *short) if each.problem), ""):
            raise BenchError(f"--micro-batch auto: {whole.stage} cannot be rehearsed: {problem}; {OTHERWISE}")
        most = largest(whole, short, memory)
        if not most:
            raise BenchError(
                f"--micro-batch auto: {whole.stage} does not fit {memory / GIB:.1f} GiB with one row at a time; "
                "--gradient-checkpointing, --sharding fsdp on several GPUs or --adam-8bit take less"
            )
        least = min(most, least or most)
    assert least is not None
    return least
