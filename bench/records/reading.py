"""What a run's folders hold, read as records. A damaged one ends in one line, whoever reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from bench.errors import BenchError, unknown
from bench.records import files
from bench.records.schema import (
    ClockLine,
    EvaluationRecord,
    ExperimentRecord,
    JobRecord,
    LogLine,
    MeterLine,
    SampleRecord,
    StatusRecord,
)

Line = TypeVar("Line", bound=LogLine)


@dataclass(frozen=True)
class JobFolder:
    """Records of one job, or of a row that nothing was trained for; ``evaluations`` by the files that hold them."""

    record: JobRecord | None
    status: StatusRecord | None
    clock: list[ClockLine]
    meter: list[MeterLine]
    evaluations: dict[Path, EvaluationRecord]


def read_job_folder(folder: Path) -> JobFolder:
    """Read what a folder holds; all of it may be missing. BenchError where a record is damaged."""
    job, status = folder / "job.json", folder / "status.json"
    # A folder whose name begins with a dot was being written when its job was killed.
    paths = sorted(folder.glob("evaluations/[!.]*/evaluation.json"))
    held = JobFolder(
        record=files.read_record(JobRecord, job) if job.exists() else None,
        status=files.read_record(StatusRecord, status) if status.exists() else None,
        clock=_read_log(ClockLine, folder / "clock.jsonl"),
        meter=_read_log(MeterLine, folder / "meter.jsonl"),
        evaluations={path: files.read_record(EvaluationRecord, path) for path in paths},
    )
    _check_one_start(job, held.evaluations)
    _check_spending(folder, held)
    return held


def read_samples(evaluation: Path) -> Iterator[SampleRecord]:
    """The samples beside an ``evaluation.json``, in the order in which they were written."""
    lines = evaluation.with_name("samples.jsonl")
    for row in files.read_lines(lines):
        yield files.parsed(SampleRecord, row, lines)


def scores_by_group(evaluation: Path, metric: str) -> dict[str, list[float]]:
    """Scores of a metric beside an ``evaluation.json``, by the prompts' group.

    Raises:
        BenchError: a picture that the metric applies to has no score.
    """
    groups: dict[str, list[float]] = {}
    for sample in read_samples(evaluation):
        if (found := sample.scores.get(metric)) is None:
            continue  # its prompts are not the metric's
        if found.score is None:
            raise BenchError(f"{evaluation.parent} has an image without a score of {metric}; run `bench score` first")
        groups.setdefault(sample.group, []).append(found.score)
    return groups


def experiment_of(job: Path) -> ExperimentRecord:
    """The experiment of a job's folder. BenchError where the folder is none of its jobs."""
    experiment = files.read_record(ExperimentRecord, job.parent / "experiment.json")
    if job.name not in experiment.jobs:
        raise unknown("job", job.name, experiment.jobs)
    return experiment


def check_job(folder: Path) -> None:
    """BenchError if a record of a job is none that this version reads."""
    for evaluation in read_job_folder(folder).evaluations:
        for _ in read_samples(evaluation):
            pass


def check_run(run: Path) -> None:
    """BenchError if a record of a run is none that this version reads."""
    files.read_record(ExperimentRecord, run / "experiment.json")
    for folder in sorted(path for path in run.iterdir() if path.is_dir()):
        check_job(folder)


def _check_one_start(job: Path, evaluations: dict[Path, EvaluationRecord]) -> None:
    """BenchError if evaluations are not of the job that ``job.json`` names, or two of them are at one fraction."""
    now = files.configuration(files.read_json(job)) if job.exists() else None
    seen: dict[float, Path] = {}
    for file, evaluation in evaluations.items():
        other = seen.setdefault(evaluation.fraction, file)
        if evaluation.configuration not in (None, now) or other != file:
            which = "another configuration than job.json's" if other == file else f"the fraction of {other.parent}, too"
            raise BenchError(
                f"{file.parent} is of {which}: an earlier start of the job left it; delete the one that is older"
            )


def _check_spending(folder: Path, held: JobFolder) -> None:
    """BenchError if a finished job has an evaluation that its meter does not reach: nobody knows what it spent."""
    last = max((evaluation.step for evaluation in held.evaluations.values()), default=0)
    if held.status and held.status.status == "finished" and (held.meter[-1].step if held.meter else 0) < last:
        raise BenchError(
            f"{folder / 'meter.jsonl'} ends before the step {last:g} of the job's last evaluation, so what the job "
            "spent is not known; copy the whole file here, or delete the job's folder and run again"
        )


def _read_log(kind: type[Line], path: Path) -> list[Line]:
    lines = []
    for number, row in enumerate(files.read_lines(path), 1):
        if isinstance(row, dict) and row.get("v") != files.VERSION:
            raise BenchError(f"{path}:{number} is of version {row.get('v')!r}, which this version does not read")
        try:
            lines.append(kind.model_validate(row))
        except ValidationError as error:
            required = (name for name in kind.model_fields if name != "v")
            raise BenchError(
                f"{path}:{number} lacks one of {', '.join(required)}; delete its folder and run again"
            ) from error
    return lines
