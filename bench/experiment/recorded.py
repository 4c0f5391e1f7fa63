"""What the records of an experiment hold: ``experiment.json``, and ``job.json`` of each row."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import records
from bench.errors import BenchError
from bench.machine.spelling import same_corpus
from bench.machine.versions import git_state, versions
from bench.records.status import read_status
from bench.training.budget import Budget

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.experiment.data import SubsetData
    from bench.experiment.keys import JobSpec
    from bench.experiment.workbench import Workbench

NOT_TRAINED = Path("evaluations/0")
"""Where the one evaluation of a row lies that is not trained."""
DRAWN_UNTRAINED = NOT_TRAINED / "evaluation.json"
"""What such a row has once all its images are drawn."""

# -- experiment.json ---------------------------------------------------------------------------------------------------


def write_experiment(folder: Path, workbench: Workbench, jobs: list[str]) -> None:
    """Write ``experiment.json``, or add jobs to it if everything that makes jobs comparable is the same."""
    from bench.report.study import Experiment

    path, record = folder / "experiment.json", experiment_record(workbench)
    if path.exists():
        old = records.read_raw(Experiment, path)
        earlier = old.pop("jobs", [])
        record["suite"] = with_added(record["suite"], old["suite"])
        if same_corpus(str(old.get("corpus")), record["corpus"]):
            record["corpus"] = old["corpus"]
        _refuse_another(folder, old, record, record)
        jobs = merged(earlier, jobs)
    records.write_json(path, record | {"jobs": jobs})


def experiment_record(workbench: Workbench) -> dict[str, Any]:
    """``experiment.json`` but for its jobs: all that makes jobs comparable."""
    from bench.backbone import hub

    config, backbone, suite = workbench.config, workbench.backbone, workbench.suite
    return {
        "v": records.VERSION,
        "name": config.run_name,
        "backbone": backbone.spec.name,
        "resolution": backbone.spec.resolution,
        "max_sequence_length": backbone.spec.max_sequence_length,
        "aspect_buckets": config.aspect_buckets,
        "dtype": str(backbone.engine.dtype).removeprefix("torch."),
        "backbone_hash": backbone.fingerprint,
        "backbone_commit": hub.commit(backbone.folder),
        "corpus": config.corpus,
        "notice": suite.notice,
        "suite": suite.describe(workbench.metrics),
        "budget": str(Budget.parse(config.budget)),
        "fractions": list(config.fractions),
    }


def merged(earlier: list[str], named: list[str]) -> list[str]:
    """Jobs of a run folder after a command: in its order if it names them all, else what it adds comes last."""
    return named if set(earlier) <= set(named) else earlier + [name for name in named if name not in earlier]


def with_added(suite: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """A suite's record with the columns that ``bench score`` has added to the one that is kept."""
    return suite | {"metrics": suite["metrics"] + [m for m in recorded["metrics"] if m.get("added")]}


# -- job.json of a job -------------------------------------------------------------------------------------------------


def write_job(folder: Path, record: dict[str, Any]) -> None:
    """Write ``job.json``, or see that the job in this folder is the same one. What came to nothing begins anew."""
    from bench.report.study import JobRecord

    path = folder / "job.json"
    nothing = path.exists() and _came_to_nothing(folder)
    if nothing and records.configuration(records.read_json(path)) != records.configuration(record):
        for left in ("evaluations", "stages", "weights"):  # of other settings, under names that these will use
            shutil.rmtree(folder / left, ignore_errors=True)
    if path.exists() and not nothing:
        younger = {key: record[key] for key in ("origin", "stages")}  # than the first records, which lack them
        old = younger | records.read_raw(JobRecord, path)
        known, given = old.get("preferences"), record["preferences"]
        others = known and given and any(known[key] != given[key] for key in records.PREFERENCES if key in known)
        _refuse_another(folder, old, record, (*records.CONFIGURED, "preferences") if others else records.CONFIGURED)
        if known or not given:
            return
        record = old | {"preferences": given}  # a job that lacked them has not trained
    records.write_json(path, record)


def _came_to_nothing(folder: Path) -> bool:
    """True of a job that failed before its first checkpoint: it left nothing to go on from."""
    return read_status(folder)["status"] == "failed" and not (folder / "checkpoint.pt").exists()


def job_record(config: ExperimentConfig, job: JobSpec, data: SubsetData) -> dict[str, Any]:
    """``job.json`` of a job that trains."""
    key, preferences = job.key, data.training.preferences if job.recipe.needs.preference_pairs else None
    return {
        "v": records.VERSION,
        "job": job.name,
        "method": key.method,
        "variant_of": config.method_of(key.method) if key.method in config.variant else None,
        "subset": key.subset,
        "seed": key.seed,
        **job.recipe.record(),
        "tuned": _tuned_record(config, key.method),
        "reward": job.reward,
        "preferences": preferences.record if preferences else None,
        "subset_hash": data.manifest.content_hash,
        "subset_count": data.manifest.count,
        "versions": versions(),
        "git": git_state(),
    }


def _tuned_record(config: ExperimentConfig, row: str) -> dict[str, Any] | None:
    """Which settings of a row's stages come from the tuned file, and how they were chosen; None if none does."""
    values = {stage: found for stage in config.stages_of(row) if (found := config.tuned_of(stage))}
    return {"values": values, **config.tuned.origin()} if config.tuned and values else None


# -- job.json of what is not trained -----------------------------------------------------------------------------------


def untrained_record(head: Mapping[str, Any]) -> dict[str, Any]:
    """``job.json`` of what is evaluated and not trained: ``head``, and nothing of what belongs to a training."""
    record: dict[str, Any] = {"v": records.VERSION, **head, "config": {}, "needs": {}, "traits": {}}
    record |= dict.fromkeys(("subset", "seed", "reward", "subset_hash", "subset_count"))
    return record | {"versions": versions(), "git": git_state()}


def untrained_header(weights: str | None = None) -> dict[str, Any]:
    """``evaluation.json`` of the same: at the start, with nothing spent.

    Args:
        weights: a hash of what draws; None where the row's ``job.json`` alone says it, as that of given images does.
    """
    from bench.training.meter import Meter

    return {"step": 0, "fraction": 0.0, "spent": Meter().counts()} | ({"weights": weights} if weights else {})


def refuse_another_model(folder: Path, name: str) -> None:
    """BenchError if the context row in ``folder`` shows another model than the one that is called ``name`` now.

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
            f"{folder} shows another model than {name} is now ({held.get('id', name)}, as it was then); "
            f"give this experiment a name with --name, or delete {folder}"
        )


def _refuse_another(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], keys: Iterable[str]) -> None:
    """BenchError if what is recorded in ``folder`` differs from what is to be run in one of ``keys``."""
    if differing := sorted(key for key in keys if old.get(key) != new[key]):
        named = {"origin": "another method's file or package", "config": "other settings"}
        what = ", ".join(named.get(key, f"other {key}") for key in differing)
        raise BenchError(
            f"{folder} was run with another configuration ({what}); "
            f"give this experiment a name with --name, or delete {folder}"
        )
