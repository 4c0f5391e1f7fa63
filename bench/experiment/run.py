"""An experiment: curate, encode, evaluate the base, run every job, and leave records."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from bench import plugins, records, registry
from bench.backbone.source import Source
from bench.errors import BenchError, stop_if_lost
from bench.experiment.keys import JobKey, job_specs
from bench.experiment.prompt_file import suite_of
from bench.experiment.recorded import job_record, write_experiment, write_job
from bench.experiment.workbench import Workbench
from bench.machine.locks import EXPERIMENT, hold_lock
from bench.records import atomic
from bench.records.status import read_status

if TYPE_CHECKING:
    from bench.experiment.config import ExperimentConfig
    from bench.machine.engine import Engine
    from bench.machine.progress import Progress
    from bench.metric import Metric
    from bench.suite import Suite


@dataclass(frozen=True)
class Workspace:
    """Where things lie: ``cache`` can be deleted at any time, ``runs`` holds the records."""

    cache: Path
    runs: Path


@dataclass(frozen=True)
class Outcome:
    """How an experiment ended: its folder and the jobs that failed, with reasons."""

    folder: Path
    failed: dict[str, str]


def run_experiment(
    config: ExperimentConfig,
    workspace: Workspace,
    progress: Progress,
    *,
    engine: Engine | None = None,
    only: Sequence[str] | None = None,
) -> Outcome:
    """Run every job that is not finished; the same command resumes. A failed job does not stop the others.

    Args:
        engine: of this process; every process of a group calls this. None: the environment's.
        only: folders to do: ``base`` (data, the base and the context rows) or names of jobs. None: all of them.
    """
    # here, since these import torch, which the process of a launcher does without
    from bench.backbone import loader
    from bench.evaluation import Evaluator
    from bench.experiment.data import prepare
    from bench.experiment.jobs import Rows
    from bench.experiment.trackers import check_trackers
    from bench.machine.engine import Compute, Engine

    if config.micro_batch == "auto" and not set(config.methods) <= config.micro_batches.keys():
        raise BenchError('micro_batch = "auto" is chosen by `bench run`, before an experiment begins; give a number')
    engine = engine or Engine.from_environment(dtype=config.dtype, sharding=config.sharding)
    plugins.register_all(config.plugins)
    suite = suite_of(config)
    backbone = engine.main_first(  # which may download it
        lambda: loader.find(
            config.backbone,
            revision=config.revision,
            offline=config.offline,
            resolution=config.resolution or suite.sampler.resolution,
            max_sequence_length=config.max_sequence_length,
            engine=engine,
        )
    )
    jobs = job_specs(config, suite, backbone.spec.scale)
    rewards = {job.reward for job in jobs if job.reward}
    metrics = _prepared_metrics(config, suite, rewards, progress)
    check_trackers(config.trackers)
    workbench = Workbench(config, workspace.cache, engine, backbone, suite, metrics, progress)
    folder = workspace.runs / config.run_name
    with hold_lock(folder, EXPERIMENT, engine, progress.say):
        if engine.is_main:
            atomic.sweep_below(folder)
            write_experiment(folder, workbench, [job.name for job in jobs])

    data = prepare(workbench, preference_pairs=any(job.recipe.needs.preference_pairs for job in jobs))
    values = {field.name: getattr(config, field.name) for field in fields(Compute)}
    compute = Compute(**values | {"micro_batch": None})  # each job has its own
    readers = {name: each.probes for name, each in data.subsets.items() if each.probes}
    evaluator = Evaluator(suite, backbone, metrics, engine, compute, keep=rewards)
    rows = Rows(workbench, folder, evaluator, compute, data.lacking, readers)
    columns = dict(suite.metrics())
    made = {
        job.name: job_record(
            config,
            job,
            data.subsets[job.key.subset],
            reward=metrics[job.reward] if job.reward and job.reward not in columns else None,
        )
        for job in jobs
    }
    if engine.is_main:
        for name, record in made.items():  # every configuration is checked before the first job spends anything
            write_job(folder / name, record, begins=False)
        source = Source(config.backbone, config.revision).record()
        records.write_json(folder / "config.json", config.model_dump(mode="json") | source)
    engine.barrier()
    failed = {}
    specs = {job.key: job for job in jobs}
    wanted = engine.broadcast(_in_turn(folder, [job.key for job in jobs if only is None or job.name in only]))
    with progress.experiment(len(wanted), len(config.fractions)):
        if only is None or records.BASE in only:
            rows.evaluate_base()
            for name in config.context:
                rows.evaluate_context(name)
        for number, key in enumerate(wanted):
            training = data.subsets[key.subset].training
            if reason := rows.do(specs[key], made[key.name], training):
                failed[key.name] = reason
            if key.subset not in {later.subset for later in wanted[number + 1 :]}:
                training.close()
    data.close()
    return Outcome(folder, failed)


def _in_turn(folder: Path, jobs: list[JobKey]) -> list[JobKey]:
    """Jobs in the order in which to run them: those that have failed before come last, for they may do so again, and
    one that loses the device keeps those behind it from running."""
    return sorted(jobs, key=lambda job: read_status(folder / job.name)["status"] == "failed")


def _prepared_metrics(
    config: ExperimentConfig, suite: Suite, rewards: Collection[str], progress: Progress
) -> dict[str, Metric]:
    """The suite's metrics and the rewards, by name, each ready to score or said to be not."""
    metrics: dict[str, Metric] = {name: registry.load("metrics", name)() for name in [*dict(suite.metrics()), *rewards]}
    roles = {registry.load("subsets", name).role for name in config.subsets} - {None}
    vital = {*rewards, *(suite.metric_of(role) for role in roles)}
    for name in sorted(metrics, key=lambda name: name in vital):  # last, since the others may free what they share
        prepare_metric(metrics[name], progress, vital=name in vital)
    return metrics


def prepare_metric(metric: Metric, progress: Progress, *, vital: bool) -> None:
    """See that a metric can score before anything is spent. One that only evaluates can score later as well."""
    try:
        metric.prepare()
    except Exception as error:  # a package that does not import is no reason to stop either
        stop_if_lost(error)
        if vital:
            raise
        reason = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        progress.say(f"{metric.name}: {reason}; its column stays open until `bench score`")
    if not vital:
        metric.release()
