"""What an experiment writes down: the records of the run, of its jobs, and of rows that nothing is trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.experiment.config import ExperimentConfig
from bench.machine.versions import git_state, versions
from bench.records import VERSION, recording
from bench.records.schema import (
    ClockLine,
    EvaluationRecord,
    ExperimentRecord,
    GitRecord,
    JobRecord,
    MeterLine,
    TrainLine,
)
from bench.training.budget import Budget
from bench.training.meter import Meter

if TYPE_CHECKING:
    from bench.backbone.loader import Backbone
    from bench.experiment.recipe import Recipe
    from bench.metric import Metric
    from bench.suite import Suite


def experiment_record(
    config: ExperimentConfig, suite: Suite, backbone: Backbone, metrics: Mapping[str, Metric], jobs: Sequence[str]
) -> ExperimentRecord:
    """``experiment.json`` of a run that trains."""
    from bench.backbone import hub

    return ExperimentRecord(
        v=VERSION,
        name=config.run_name,
        backbone=backbone.spec.name,
        resolution=backbone.spec.resolution,
        max_sequence_length=backbone.spec.max_sequence_length,
        aspect_buckets=config.aspect_buckets,
        dtype=str(backbone.engine.dtype).removeprefix("torch."),
        backbone_hash=backbone.fingerprint,
        backbone_commit=hub.commit(backbone.folder),
        corpus=config.corpus,
        notice=suite.notice,
        suite=suite.describe(metrics),
        budget=str(Budget.parse(config.budget)),
        fractions=list(config.fractions),
        jobs=list(jobs),
    )


def job_record(
    config: ExperimentConfig,
    recipe: Recipe,
    *,
    job: str,
    method: str,
    subset: str,
    seed: int,
    reward: str | None,
    preferences: Mapping[str, Any] | None,
    subset_hash: str,
    subset_count: int,
) -> JobRecord:
    """``job.json`` of a job.

    Args:
        recipe: what its row of ``config`` trains with.
        preferences: what is recorded of the preference pairs; None where it is given none.
        subset_hash, subset_count: of the subset's manifest: its hash, and how many pairs it has.

    Raises:
        BenchError: a method says something of itself that no record can hold.
    """
    with recording(f"the job {job}"):
        return JobRecord(
            v=VERSION,
            job=job,
            method=method,
            variant_of=config.method_of(method) if method in config.variant else None,
            subset=subset,
            seed=seed,
            **recipe.record(),
            tuned=_tuned(config, method),
            reward=reward,
            preferences=preferences,
            subset_hash=subset_hash,
            subset_count=subset_count,
            versions=versions(),
            git=GitRecord(**git_state()),
        )


def _tuned(config: ExperimentConfig, row: str) -> dict[str, Any] | None:
    """Which settings of a row's stages come from the tuned file, and how they were chosen; None if none does."""
    values = {stage: found for stage in config.stages_of(row) if (found := config.tuned_of(stage))}
    return {"values": values, **config.tuned.origin()} if config.tuned and values else None


def step_lines(step: int, scalars: Mapping[str, float], meter: Meter) -> tuple[TrainLine, MeterLine, ClockLine]:
    """Lines of ``train.jsonl``, ``meter.jsonl`` and ``clock.jsonl`` for a step that is finished."""
    head: dict[str, Any] = {"v": VERSION, "step": step}
    return (
        TrainLine(**{**head, **scalars}),
        MeterLine(**head | meter.counts()),
        ClockLine(**head, seconds=round(meter.seconds, 3), peak_memory=meter.peak_memory),
    )


def untrained_record(*, job: str, method: str, **about: Any) -> JobRecord:
    """``job.json`` of what is evaluated and not trained, with nothing of what belongs to a training.

    Args:
        about: further keys of the record: its ``label``, and ``context`` or ``evaluated``.
    """
    return JobRecord(
        v=VERSION,
        job=job,
        method=method,
        subset=None,
        seed=None,
        config={},
        needs={},
        traits={},
        reward=None,
        subset_hash=None,
        subset_count=None,
        versions=versions(),
        git=GitRecord(**git_state()),
        **about,
    )


def untrained_header(weights: str | None = None) -> EvaluationRecord:
    """``evaluation.json`` of the same: at the start, with nothing spent.

    Args:
        weights: a hash of what draws; None where the row's ``job.json`` alone says it, as that of given images does.
    """
    header = EvaluationRecord(v=VERSION, step=0, fraction=0.0, spent=Meter().counts())
    return header.model_copy(update={"weights": weights}) if weights else header
