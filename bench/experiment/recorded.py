"""What the records of an experiment hold: ``experiment.json``, ``job.json`` of each row, and lines of its logs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import records
from bench.errors import BenchError
from bench.machine.spelling import same_corpus
from bench.machine.versions import git_state, versions
from bench.records import recording
from bench.records.schema import (
    ClockLine,
    EvaluationRecord,
    ExperimentRecord,
    GitRecord,
    JobRecord,
    MeterLine,
    TrainLine,
)
from bench.records.status import read_status
from bench.sampling import levels
from bench.training.budget import Budget
from bench.training.meter import Meter

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.data import SubsetData
    from bench.experiment.keys import JobSpec
    from bench.experiment.workbench import Workbench
    from bench.metric import Metric

NOT_TRAINED = Path("evaluations/0")
"""Folder of the single evaluation of a row that is not trained."""
DRAWN_UNTRAINED = NOT_TRAINED / "evaluation.json"
"""File that such a row has once all its images are drawn."""

# -- experiment.json ---------------------------------------------------------------------------------------------------


def write_experiment(folder: Path, workbench: Workbench, jobs: list[str]) -> None:
    """Write ``experiment.json``, or add jobs to it if everything that makes jobs comparable is the same."""
    path, fixed = folder / "experiment.json", records.document(experiment_record(workbench, jobs))
    names = fixed.pop("jobs")
    if path.exists():
        old = records.read_raw(ExperimentRecord, path)
        old["suite"] = levels.with_name(old["suite"])
        earlier = old.pop("jobs", [])
        fixed["suite"] = with_added(fixed["suite"], old["suite"])
        if same_corpus(str(old.get("corpus")), fixed["corpus"]):
            fixed["corpus"] = old["corpus"]
        left_out = old.keys() & ExperimentRecord.model_fields.keys()  # such as an average that this command has not
        _refuse_another(folder, old, fixed, fixed.keys() | left_out)
        names = merged(earlier, names)
    records.write_json(path, fixed | {"jobs": names})


def experiment_record(workbench: Workbench, jobs: Sequence[str]) -> ExperimentRecord:
    """``experiment.json`` of a run that trains."""
    from bench.backbone import hub

    config, backbone, suite = workbench.config, workbench.backbone, workbench.suite
    return ExperimentRecord(
        v=records.VERSION,
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
        suite=suite.describe(workbench.metrics),
        budget=str(Budget.parse(config.budget)),
        fractions=list(config.fractions),
        **({"average_half_life": half_life} if (half_life := config.half_life(suite)) else {}),
        jobs=list(jobs),
    )


def merged(earlier: list[str], named: list[str]) -> list[str]:
    """Jobs of a run folder after a command: in its order if it names them all, else what it adds comes last."""
    return named if set(earlier) <= set(named) else earlier + [name for name in named if name not in earlier]


def with_added(suite: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """A suite's record with the columns that ``bench score`` has added to the one that is kept."""
    return suite | {"metrics": suite["metrics"] + [m for m in recorded["metrics"] if m.get("added")]}


# -- job.json of a job -------------------------------------------------------------------------------------------------


def write_job(folder: Path, made: JobRecord, *, begins: bool) -> None:
    """Write ``job.json``, or see that the job in this folder is the same one.

    Args:
        begins: it is the job's turn, and this command holds its row: what came to nothing begins anew. Before that it
            stays as it is, since another command may begin it.
    """
    path, record = folder / "job.json", records.document(made)
    nothing = path.exists() and _came_to_nothing(folder)
    if nothing and not begins:
        return
    if nothing and records.configuration(records.read_json(path)) != records.configuration(record):
        for left in ("evaluations", "stages", "weights"):  # of other settings, under names that these will use
            shutil.rmtree(folder / left, ignore_errors=True)
    if path.exists() and not nothing:
        known = ("origin", "stages", "reward_metric")
        younger = {key: record[key] for key in known if key in record}  # than the first records, which lack them
        old = younger | records.read_raw(JobRecord, path)
        old_pairs, new_pairs = old.get("preferences"), record["preferences"]
        others = (
            old_pairs
            and new_pairs
            and any(old_pairs[key] != new_pairs[key] for key in records.PREFERENCES if key in old_pairs)
        )
        fixed = (*records.CONFIGURED, *records.FURTHER, *(("preferences",) if others else ()))
        _refuse_another(folder, old, record, fixed)
        if old_pairs or not new_pairs:
            return
        record = old | {"preferences": new_pairs}  # a job that lacked them has not trained
    records.write_json(path, record)


def _came_to_nothing(folder: Path) -> bool:
    """True of a job that failed before its first checkpoint: it left nothing to go on from."""
    return read_status(folder)["status"] == "failed" and not (folder / "checkpoint.pt").exists()


def job_record(config: ExperimentConfig, job: JobSpec, data: SubsetData, *, reward: Metric | None = None) -> JobRecord:
    """``job.json`` of a job that trains.

    Args:
        reward: that it learns from, if it is no column of the suite, which ``experiment.json`` describes.

    Raises:
        BenchError: a method says something of itself that no record can hold.
    """
    key, preferences = job.key, data.training.preferences if job.recipe.needs.preference_pairs else None
    rows = config.micro_batches.get(key.method)
    with recording(f"the job {job.name}"):
        return JobRecord(
            v=records.VERSION,
            job=job.name,
            method=key.method,
            variant_of=config.method_of(key.method) if key.method in config.variant else None,
            subset=key.subset,
            seed=key.seed,
            **job.recipe.record(),
            tuned=_tuned(config, key.method),
            reward=job.reward,
            trained_probes=sorted({name for stage in job.recipe.stages for name in stage.method.trained_probes}),
            preferences=preferences.record if preferences else None,
            **({} if rows is None else {"micro_batch": rows}),
            **({} if reward is None else {"reward_metric": reward.describe()}),
            **({"adam_8bit": True} if config.adam_8bit else {}),
            subset_hash=data.manifest.content_hash,
            subset_count=data.manifest.count,
            versions=versions(),
            git=GitRecord(**git_state()),
        )


def _tuned(config: ExperimentConfig, row: str) -> dict[str, Any] | None:
    """Which settings of a row's stages come from the tuned file, and how they were chosen; None if none does."""
    values = {stage: settings for stage in config.stages_of(row) if (settings := config.tuned_of(stage))}
    if not (config.tuned and values):
        return None
    known = {stage: config.tuned.about(stage, config.method_of(stage)) for stage in values}
    rows = {stage: about for stage, about in known.items() if about}
    return {"values": values, **config.tuned.record()} | ({"rows": rows} if rows else {})


# -- logs --------------------------------------------------------------------------------------------------------------


def step_lines(step: int, scalars: Mapping[str, float], meter: Meter) -> tuple[TrainLine, MeterLine, ClockLine]:
    """Lines of ``train.jsonl``, ``meter.jsonl`` and ``clock.jsonl`` for a step that is finished."""
    head: dict[str, Any] = {"v": records.VERSION, "step": step}
    return (
        TrainLine(**{**head, **scalars}),
        MeterLine(**head | meter.counts()),
        ClockLine(**head, seconds=round(meter.seconds, 3), peak_memory=meter.peak_memory),
    )


# -- job.json of what is not trained -----------------------------------------------------------------------------------


def untrained_record(*, job: str, method: str, **about: Any) -> JobRecord:
    """``job.json`` of what is evaluated and not trained, with nothing of what belongs to a training.

    Args:
        about: further keys of the record: its ``label``, and ``context`` or ``evaluated``.
    """
    return JobRecord(
        v=records.VERSION,
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
    header = EvaluationRecord(v=records.VERSION, step=0, fraction=0.0, spent=Meter().counts())
    return header.model_copy(update={"weights": weights}) if weights else header


def refuse_another_model(folder: Path, name: str) -> None:
    """BenchError if the context row in ``folder`` is of another model than the one that has the ``name`` now.

    A model of the hub is known by its id and the recorded commit; a folder is hashed.
    """
    from bench.backbone import hub

    held = records.read_json(folder / "job.json").get("context") or {}
    local = Path(name).expanduser()
    same = held.get("id", name) == name
    if same and local.is_dir() and "fingerprint" in held:
        same = held["fingerprint"] == hub.fingerprint(local.resolve())
    if not same:
        raise BenchError(
            f"{folder} holds images of another model than the present {name} (then: {held.get('id', name)}); "
            f"give this experiment a name with --name, or delete {folder}"
        )


def _refuse_another(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], keys: Iterable[str]) -> None:
    """BenchError if what is recorded in ``folder`` differs from what is to be run in one of ``keys``."""
    if differing := sorted(key for key in keys if old.get(key) != new.get(key)):
        named = {
            "origin": "another method's file or package",
            "config": "other settings",
            "reward_metric": "another version of the reward",
            "adam_8bit": "the optimizer's states in other precision",
        }
        what = ", ".join(named.get(key, f"other {key}") for key in differing)
        raise BenchError(
            f"{folder} was run with another configuration ({what}); "
            f"give this experiment a name with --name, or delete {folder}"
        )
