"""Probes of `bench evaluate`: on the held-out pairs of the run that trained a model, or of another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench import records, registry
from bench.errors import BenchError
from bench.evaluate.subjects import Subject
from bench.experiment.config import ExperimentConfig, SubsetRule
from bench.experiment.data import cut_subset, open_corpus
from bench.experiment.held_out import cut_off, probe_reader
from bench.experiment.toml import validated
from bench.experiment.workbench import Workbench
from bench.records.schema import ExperimentRecord, JobRecord, RunConfig

if TYPE_CHECKING:
    from bench.backbone.loader import Backbone
    from bench.evaluate.workbench import EvaluationWorkbench
    from bench.probes.reader import ProbeReader
    from bench.suite import Suite


def run_of(subject: Subject, pairs: str) -> tuple[Path, tuple[str, ...]]:
    """A run with held-out pairs, and its subsets to read them of: a job's own, or all.

    Args:
        pairs: the run, where the subject lies in none or in another one.

    Raises:
        BenchError: no run.
    """
    job = subject.job() if subject.run_source else None
    run = Path(pairs).expanduser() if pairs else Path(subject.what).expanduser().parent if subject.run_source else None
    if run is None:
        raise BenchError(f"{subject.what} lies in no run, so it has no held-out pairs; name a run with --pairs")
    if not (run / "config.json").is_file():
        raise BenchError(f"{run} is no run that trained (it has no config.json); name one with --pairs")
    every = settings_of(run).subsets
    return run, (job["subset"],) if job and job["subset"] in every else every


def settings_of(run: Path) -> ExperimentConfig:
    """What a run was given, without the settings of its methods: where its pairs come from."""
    raw = records.read_raw(RunConfig, run / "config.json")
    known = {name: raw[name] for name in ExperimentConfig.model_fields if name in raw}
    config: ExperimentConfig = validated(ExperimentConfig, known | {"tuned": None, "probes": True}, f"{run}: ")
    return config


def readers(
    evaluation: EvaluationWorkbench, subject: Subject, suite: Suite, backbone: Backbone
) -> Iterator[tuple[str, ProbeReader]]:
    """What reads the probes of a subject, by subset. Every process must go through it.

    Args:
        suite: whose sampler the probes follow.
    """
    engine, cache, bounded = evaluation.engine, evaluation.cache, not evaluation.config.all_pairs
    run, names = engine.main_first(lambda: run_of(subject, evaluation.config.pairs))
    config = settings_of(run)
    own: Suite = registry.load("suites", config.suite)()
    corpus = engine.main_first(
        lambda: open_corpus(config.corpus, cache, backbone.spec.resolution, config.aspect_buckets)
    )
    for name in names:
        role = registry.load("subsets", name).role
        metrics = {own.metric_of(role): registry.load("metrics", own.metric_of(role))()} if role else {}
        workbench = Workbench(config, cache, engine, backbone, own, metrics, evaluation.progress)
        rule = config.subset.get(name, SubsetRule())
        manifest = cut_subset(workbench, corpus, name, rule, holdout=cut_off(config, corpus))
        _check_same(run, name, manifest.content_hash, backbone.spec.resolution)
        if reader := probe_reader(workbench, corpus, manifest, suite, bounded=bounded):
            yield name, reader
        else:
            raise BenchError(
                f"{run} has no held-out pairs of {name}; it was run without --holdout, so its methods saw every pair"
            )


def _check_same(run: Path, subset: str, cut: str, resolution: int) -> None:
    """BenchError if a subset is not what the run's jobs trained on: then held-out pairs may be pairs of training."""
    trained = {
        made["subset_hash"]
        for path in sorted(run.glob("*/job.json"))
        if (made := records.read_raw(JobRecord, path))["subset"] == subset and made["subset_hash"]
    }
    if trained and cut not in trained:
        side = records.read_record(ExperimentRecord, run / "experiment.json").resolution
        why = f"it was cut at {side} px then and at {resolution} px now" if side != resolution else "the corpus changed"
        raise BenchError(f"{subset} holds other pairs than those that {run} trained on ({why}), so none is held out")
