"""An experiment: curate, encode, evaluate the base, run every job, and leave records."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from bench import records, registry
from bench.budget import Budget
from bench.config import ExperimentConfig, SubsetRule, method_config
from bench.errors import BenchError, unknown
from bench.progress import Progress
from bench.versions import git_state, versions

BASE = "base"


@dataclass(frozen=True)
class Plan:
    """One job of an experiment."""

    method: str
    subset: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}--{self.subset}--s{self.seed}"


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


def plans(config: ExperimentConfig) -> list[Plan]:
    """The jobs of an experiment: method x subset x seed, seeds outermost: every method has a first result early."""
    return [Plan(m, sub, seed) for seed, sub, m in product(config.seeds, config.subsets, config.methods)]


def run_experiment(config: ExperimentConfig, workspace: Workspace, progress: Progress) -> Outcome:
    """Run every job that is not finished; the same command resumes. A failed job does not stop the others."""
    from bench.backbone import loader
    from bench.backbone.cache import training_data
    from bench.evaluation import Evaluator
    from bench.runner import read_status

    methods = {name: registry.load("methods", name) for name in config.methods}
    suite = registry.load("suites", config.suite)()
    backbone = loader.find(config.backbone)
    if backbone.spec.resolution != suite.sampler.resolution:
        raise BenchError(
            f"the suite {suite.name} is for {suite.sampler.resolution} px and {backbone.spec.name} draws "
            f"{backbone.spec.resolution} px; choose another suite or backbone"
        )
    configs = {n: method_config(m, backbone.spec.scale, config.method.get(n, {})) for n, m in methods.items()}
    metrics = {name: registry.load("metrics", name)() for name, _ in suite.metrics()}
    folder = workspace.runs / config.run_name
    jobs = plans(config)
    _write_experiment(folder, config, suite, backbone, metrics, jobs)

    corpus = open_corpus(config.corpus, workspace.cache, backbone.spec.resolution)
    data, manifests = {}, {}
    for name in config.subsets:
        rule = config.subset.get(name, SubsetRule())
        manifests[name] = manifest = cut_subset(
            corpus, name, suite, metrics, workspace.cache, progress, **rule.model_dump()
        )
        with progress.task(f"encode {name}", manifest.count) as task:
            data[name] = training_data(backbone, corpus, manifest, workspace.cache, task.advance)
        progress.say(
            f"{name}: {manifest.count} of {manifest.of} pairs"
            + (f", {manifest.metric} of at least {manifest.threshold:.3f}" if manifest.threshold is not None else "")
        )
    del corpus  # its pictures are encoded by now
    evaluator = Evaluator(suite, backbone, metrics)
    null = backbone.encode_prompts([""])
    shared = _Shared(config, workspace, progress, backbone, null, evaluator, suite, metrics)

    for job in jobs:  # every configuration is checked before the first job spends anything
        _write_job(folder / job.name, _job_record(config, job, methods, configs, manifests, suite))
    failed = {}
    with progress.experiment(len(jobs), config.evaluations):
        shared.evaluate_base(folder / BASE)
        for job in jobs:
            if read_status(folder / job.name)["status"] == "finished":
                progress.skip(job.name)
                continue
            reason = shared.run(job, methods[job.method](configs[job.method]), data[job.subset], folder / job.name)
            if reason is not None:
                failed[job.name] = reason
    return Outcome(folder, failed)


def open_corpus(name: str, cache: Path, resolution: int) -> Any:
    """A corpus by registered name, or an image folder by path."""
    if name in registry.table("corpora"):
        return registry.load("corpora", name)(cache)
    if Path(name).is_dir():
        return registry.load("corpora", "folder")(Path(name), resolution)
    raise unknown("corpus (or folder)", name, registry.table("corpora"))


def cut_subset(
    corpus: Any, name: str, suite: Any, metrics: dict[str, Any], cache: Path, progress: Progress, **rule: float | None
) -> Any:
    """A subset's manifest, curated now if it is missing."""
    curate = registry.load("curation", "cut")
    subset = registry.load("subsets", name)
    metric = metrics[suite.roles[subset.role]] if subset.role else None
    with progress.task(f"curate {name}", len(corpus)) as task:
        return curate(corpus, subset, metric, cache, tick=task.advance, **rule)


def _write_experiment(
    folder: Path, config: ExperimentConfig, suite: Any, backbone: Any, metrics: dict[str, Any], jobs: list[Plan]
) -> None:
    """Write ``experiment.json``, or add jobs to it if everything that makes jobs comparable is the same."""
    path = folder / "experiment.json"
    fixed = {
        "v": records.VERSION,
        "name": config.run_name,
        "backbone": backbone.spec.name,
        "backbone_hash": backbone.fingerprint,
        "corpus": config.corpus,
        "notice": suite.notice,
        "suite": {
            "name": suite.name,
            "version": suite.version,
            "sampler": asdict(suite.sampler),
            "metrics": [
                metrics[name].describe()
                | {"prompt_set": prompts.name, "images": len(prompts.prompts) * prompts.repeats}
                for name, prompts in suite.metrics()
            ],
        },
        "budget": str(Budget.parse(config.budget)),
        "fractions": list(config.fractions),
    }
    names = [job.name for job in jobs]
    if path.exists():
        old = records.read_json(path)
        earlier = old.pop("jobs", [])
        _refuse_another(folder, old, fixed, fixed)
        names = earlier + [name for name in names if name not in earlier]
    records.write_json(path, fixed | {"jobs": names})


def _job_record(
    config: ExperimentConfig, job: Plan, methods: Any, configs: Any, manifests: Any, suite: Any
) -> dict[str, Any]:
    method, manifest = methods[job.method], manifests[job.subset]
    reward = reward_metric(job, method, suite)
    return {
        "v": records.VERSION,
        "job": job.name,
        "method": job.method,
        "subset": job.subset,
        "seed": job.seed,
        "config": configs[job.method].model_dump(mode="json"),
        "needs": asdict(method.needs),
        "traits": asdict(method.traits),
        "reward": reward,
        "subset_hash": manifest.content_hash,
        "subset_count": manifest.count,
        "versions": versions(),
        "git": git_state(),
    }


def reward_metric(job: Plan, method: Any, suite: Any) -> str | None:
    """The metric a method trains on: the one its subset was cut by, or the suite's aesthetic for uncut subsets."""
    if not (method.needs.reward or method.needs.differentiable_reward):
        return None
    role = registry.load("subsets", job.subset).role or "aesthetic"
    return str(suite.roles[role])


def _refuse_another(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], keys: Iterable[str]) -> None:
    """BenchError if what is recorded in ``folder`` differs from what is to be run in one of ``keys``."""
    if differing := sorted(key for key in keys if old.get(key) != new[key]):
        raise BenchError(
            f"{folder} was run with another configuration ({', '.join(differing)} differ); "
            "give this experiment a name with --name, or delete the folder"
        )


def _write_job(folder: Path, record: dict[str, Any]) -> None:
    path = folder / "job.json"
    if path.exists():
        _refuse_another(folder, records.read_json(path), record, ("config", "subset_hash", "reward"))
        return
    records.write_json(path, record)


@dataclass(frozen=True)
class _Shared:
    """What the jobs of an experiment share."""

    config: ExperimentConfig
    workspace: Workspace
    progress: Progress
    backbone: Any
    null: Any
    evaluator: Any
    suite: Any
    metrics: dict[str, Any]

    def evaluate_base(self, folder: Path) -> None:
        """Evaluate the pretrained model: row zero of every table."""
        from bench.backbone.policy import Policy
        from bench.meter import Meter
        from bench.runner import write_status

        if (folder / "evaluations" / "0" / "evaluation.json").exists():
            self.progress.skip(BASE)
            return
        record: dict[str, Any] = {"v": records.VERSION, "job": BASE, "method": BASE}
        record |= {"config": {}, "needs": {}, "traits": {}}
        record |= dict.fromkeys(("subset", "seed", "reward", "subset_hash", "subset_count"))
        records.write_json(folder / "job.json", record | {"versions": versions(), "git": git_state()})
        write_status(folder, "started")
        policy = Policy(self.backbone.transformer(), self.backbone.scheduler(), self.null)
        with self.progress.job(BASE, self.evaluator.images()) as task:
            header = {"step": 0, "fraction": 0.0, "spent": Meter().counts()}
            self.evaluator.run(policy, folder / "evaluations" / "0", header=header, tick=task.drew)
        write_status(folder, "finished")

    def run(self, plan: Plan, method: Any, data: Any, folder: Path) -> str | None:
        """Run one job; returns the reason if it failed."""
        from bench.job import Job, JobFailure
        from bench.runner import JobRun, write_status

        write_status(folder, "started")
        reward = reward_metric(plan, method, self.suite)
        try:
            job = Job(
                backbone=self.backbone,
                null=self.null,
                data=_declared(data, method.needs),
                seed=plan.seed,
                reward=self.metrics[reward] if reward else None,
            )
            with self.progress.job(plan.name, self.evaluator.images()) as task:
                JobRun(
                    folder=folder,
                    method=method,
                    job=job,
                    budget=Budget.parse(self.config.budget),
                    fractions=self.config.fractions,
                    evaluator=self.evaluator,
                    progress=task.trained,
                    tick=task.drew,
                ).run()
        except KeyboardInterrupt:
            write_status(folder, "interrupted", "stopped by the user; the same command resumes it")
            raise
        except JobFailure as error:
            reason = str(error)
        except records.DiskFull:
            raise
        except BenchError as error:
            reason = str(error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            records.write_bytes(folder / "traceback.txt", traceback.format_exc().encode())
        else:
            write_status(folder, "finished")
            return None
        write_status(folder, "failed", reason)
        self.progress.say(f"{plan.name} failed: {reason}")
        return reason


def _declared(data: Any, needs: Any) -> Any:
    """Just the training data that a method said it needs."""
    return replace(data, latents=data.latents if needs.pairs else None, prompts=data.prompts if needs.prompts else ())
