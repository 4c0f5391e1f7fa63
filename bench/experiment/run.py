"""An experiment: curate, encode, evaluate the base, run every job, and leave records."""

from __future__ import annotations

import re
import shutil
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import plugins, records, registry
from bench.backbone.source import Origin
from bench.errors import FULL, BenchError, DeviceLost, device_lost, of_path, stop_if_lost
from bench.experiment.config import ExperimentConfig, SubsetRule
from bench.experiment.held_out import cut_off, probe_reader
from bench.experiment.prompt_file import suite_of
from bench.experiment.recipe import Recipe, recipe
from bench.machine.locks import EXPERIMENT, turn
from bench.machine.progress import Progress
from bench.machine.spelling import same_corpus
from bench.machine.versions import git_state, versions
from bench.plugins.blame import Own
from bench.records import atomic
from bench.sampling import levels
from bench.training.budget import Budget

if TYPE_CHECKING:
    from bench.machine.engine import Engine
    from bench.method import Needs
    from bench.probes.reader import ProbeReader
    from bench.training.data import Preferences, TrainingData


NOT_TRAINED = Path("evaluations/0")
"""Where the one evaluation of a row lies that is not trained."""
DRAWN_UNTRAINED = NOT_TRAINED / "evaluation.json"
"""What such a row has once all its images are drawn."""


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
    from bench.backbone import loader
    from bench.evaluation import Evaluator
    from bench.experiment.trackers import check_trackers
    from bench.machine.engine import Compute, Engine

    engine = engine or Engine.from_environment(dtype=config.dtype, sharding=config.sharding)
    plugins.register_all(config.plugins)
    suite = suite_of(config)
    if config.tuned:
        config.tuned.check_prompts(suite.texts(), suite.name)
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
    recipes = {row: recipe(config, row, backbone.spec.scale) for row in config.methods}
    chosen = (reward_metric(config, job, recipes[job.method].needs, suite) for job in plans(config))
    rewards = {reward for reward in chosen if reward}
    metrics = {name: registry.load("metrics", name)() for name in [*dict(suite.metrics()), *rewards]}
    roles = {registry.load("subsets", name).role for name in config.subsets} - {None}
    vital = rewards | {suite.roles[role] for role in roles}
    for name in sorted(metrics, key=lambda name: name in vital):  # last, since the others may free what they share
        prepare_metric(metrics[name], progress, vital=name in vital)
    check_trackers(config.trackers)
    folder, jobs = workspace.runs / config.run_name, plans(config)
    with turn(folder, EXPERIMENT, engine, progress.say):
        if engine.is_main:
            atomic.sweep_below(folder)
            _write_experiment(folder, config, suite, backbone, metrics, jobs)

    data, manifests, readers = _prepare(config, workspace, progress, engine, backbone, suite, metrics)
    preferences: Preferences | str | None = None
    if any(recipe.needs.preference_pairs for recipe in recipes.values()):
        preferences = prepare_preferences(config, workspace, progress, engine, backbone, suite, metrics)
        if not isinstance(preferences, str):
            data = {name: replace(each, preferences=preferences) for name, each in data.items()}
    compute = Compute(**{field.name: getattr(config, field.name) for field in fields(Compute)})
    evaluator = Evaluator(suite, backbone, metrics, engine, compute, keep=rewards)
    lacking = preferences if isinstance(preferences, str) else None
    shared = _Shared(config, progress, engine, compute, backbone, evaluator, suite, metrics, lacking, readers)
    if engine.is_main:
        for job in jobs:  # every configuration is checked before the first job spends anything
            given = recipes[job.method], data[job.subset], manifests[job.subset]
            _write_job(folder / job.name, _job_record(config, job, *given, suite))
        origin = Origin(config.backbone, config.revision).record()
        records.write_json(folder / "config.json", config.model_dump(mode="json") | origin)
    engine.barrier()
    failed = {}
    wanted = engine.broadcast(_in_turn(folder, [job for job in jobs if only is None or job.name in only]))
    with progress.experiment(len(wanted), config.evaluations):
        if only is None or records.BASE in only:
            shared.evaluate_base(folder)
            for name in config.context:
                shared.evaluate_context(folder, name)
        for number, job in enumerate(wanted):
            with shared.owed(folder / job.name) as owed:
                reason = shared.run(job, recipes[job.method], data[job.subset], folder / job.name) if owed else None
                if reason:
                    failed[job.name] = reason
                else:
                    shared.wind_up(folder / job.name)
            if job.subset not in {later.subset for later in wanted[number + 1 :]}:
                data[job.subset].close()
    if preferences and not isinstance(preferences, str):
        preferences.pictures.close()
    return Outcome(folder, failed)


def _in_turn(folder: Path, jobs: list[Plan]) -> list[Plan]:
    """Jobs in the order in which to run them: those that have failed before come last, for they may do so again, and
    one that loses the device keeps those behind it from running."""
    from bench.records.status import read_status

    return sorted(jobs, key=lambda job: read_status(folder / job.name)["status"] == "failed")


def prepare_metric(metric: Any, progress: Progress, *, vital: bool) -> None:
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


def _prepare(
    config: ExperimentConfig,
    workspace: Workspace,
    progress: Progress,
    engine: Engine,
    backbone: Any,
    suite: Any,
    metrics: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, ProbeReader]]:
    """Training data and manifest of each subset, curated and encoded now or read from the caches, and what reads
    probes on its held-out pairs, if it has any."""
    cache = workspace.cache
    corpus = engine.main_first(
        lambda: open_corpus(config.corpus, cache, backbone.spec.resolution, config.aspect_buckets)
    )
    data, manifests, readers = {}, {}, {}
    for name in config.subsets:
        rule = config.subset.get(name, SubsetRule()).model_dump(exclude={"pairs"})
        rule["holdout"] = cut_off(config, corpus)
        manifests[name] = manifest = cut_subset(corpus, name, suite, metrics, cache, progress, engine, **rule)
        backbone.check_sides(side for size in manifest.sizes for side in size)  # buckets are wider than the resolution
        data[name] = _encoded(config, cache, progress, engine, backbone, corpus, manifest, name)
        progress.say(
            f"{name}: {manifest.count} of {manifest.of} pairs"
            + (f", {manifest.metric} of at least {manifest.threshold:.3f}" if manifest.threshold is not None else "")
        )
        role = registry.load("subsets", name).role
        metric = metrics[suite.roles[role]] if role else None
        if reader := probe_reader(config, corpus, manifest, metric, cache, suite, backbone, engine, progress):
            readers[name] = reader
    return data, manifests, readers


def _encoded(
    config: ExperimentConfig,
    cache: Path,
    progress: Progress,
    engine: Engine,
    backbone: Any,
    corpus: Any,
    manifest: Any,
    name: str,
) -> TrainingData:
    """Latents and text of a manifest's pairs, encoded now or read from the cache."""
    from bench.encoded.subset import training_data
    from bench.experiment.toml import parse_size

    with progress.task(f"encode {name}", manifest.count) as task:
        return training_data(
            backbone,
            corpus,
            manifest,
            cache,
            text_limit=parse_size(config.text_cache_limit),
            rank=engine.rank,
            world_size=engine.world_size,
            barrier=engine.barrier,
            tick=task.advance,
            say=progress.say,
        )


def prepare_preferences(
    config: ExperimentConfig,
    workspace: Workspace,
    progress: Progress,
    engine: Engine,
    backbone: Any,
    suite: Any,
    metrics: dict[str, Any],
) -> Preferences | str:
    """Preference data, or what is wrong with it: that ends the jobs that need it, and no other."""
    from bench.training.data import Preferences

    cache, side = workspace.cache, backbone.spec.resolution
    name = config.preferences
    try:
        if not name:
            name = engine.main_first(lambda: open_corpus(config.corpus, cache, side, config.aspect_buckets)).preferences
        if not name:  # which every process finds alike
            return f"no preference pairs go with the corpus {config.corpus}; give some with --preferences"
        corpus = engine.main_first(lambda: open_corpus(name, cache, side))
        manifest = cut_subset(corpus, "all", suite, metrics, cache, progress, engine)
        try:
            pairs = registry.load("curation", "pair_up")(corpus, manifest, progress.say)
        except BenchError as error:  # of what every process has read alike
            return str(error)
        pictures = _encoded(config, cache, progress, engine, backbone, corpus, manifest, name)
    except BenchError as error:
        if engine.world_size > 1:  # the others may be inside a collective and cannot know
            raise
        return str(error)
    progress.say(f"{name}: {len(pairs)} preference pairs")
    told = records.digest(sorted([manifest.keys[picture] for picture in pair] for pair in pairs.tolist()))
    about = {"corpus": name, "pairs": len(pairs), "hash": manifest.content_hash, "preferred_hash": told}
    return Preferences(pictures, pairs, about)


def open_corpus(name: str, cache: Path, resolution: int, aspect_buckets: bool = False) -> Any:
    """A corpus by registered name or by path. Opening lists it and decodes no picture."""
    return registry.load("curation", "open")(name, cache, resolution, aspect_buckets)


def cut_subset(
    corpus: Any,
    name: str,
    suite: Any,
    metrics: dict[str, Any],
    cache: Path,
    progress: Progress,
    engine: Engine,
    **rule: float | None,
) -> Any:
    """A subset's manifest, curated now if it is missing, by all processes together."""
    curate = registry.load("curation", "cut")
    subset = registry.load("subsets", name)
    metric = metrics[suite.roles[subset.role]] if subset.role else None
    with progress.task(f"curate {name}", len(corpus)) as task:
        return curate(
            corpus,
            subset,
            metric,
            cache,
            tick=task.advance,
            rank=engine.rank,
            world_size=engine.world_size,
            barrier=engine.barrier,
            **rule,
        )


def _write_experiment(
    folder: Path, config: ExperimentConfig, suite: Any, backbone: Any, metrics: dict[str, Any], jobs: list[Plan]
) -> None:
    """Write ``experiment.json``, or add jobs to it if everything that makes jobs comparable is the same."""
    from bench.backbone import hub
    from bench.report.study import Experiment

    path = folder / "experiment.json"
    fixed = {
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
        "suite": suite.describe(metrics),
        "budget": str(Budget.parse(config.budget)),
        "fractions": list(config.fractions),
    }
    names = [job.name for job in jobs]
    if path.exists():
        old = records.read_raw(Experiment, path)
        old["suite"] = levels.with_name(old["suite"])
        earlier = old.pop("jobs", [])
        fixed["suite"] = with_added(fixed["suite"], old["suite"])
        if same_corpus(str(old.get("corpus")), config.corpus):
            fixed["corpus"] = old["corpus"]
        _refuse_another(folder, old, fixed, fixed)
        names = merged(earlier, names)
    records.write_json(path, fixed | {"jobs": names})


def merged(earlier: list[str], named: list[str]) -> list[str]:
    """Jobs of a run folder after a command: in its order if it names them all, else what it adds comes last."""
    return named if set(earlier) <= set(named) else earlier + [name for name in named if name not in earlier]


def with_added(suite: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """A suite's record with the columns that ``bench score`` has added to the one that is kept."""
    return suite | {"metrics": suite["metrics"] + [m for m in recorded["metrics"] if m.get("added")]}


def _job_record(
    config: ExperimentConfig, job: Plan, recipe: Recipe, data: TrainingData, manifest: Any, suite: Any
) -> dict[str, Any]:
    return {
        "v": records.VERSION,
        "job": job.name,
        "method": job.method,
        "variant_of": config.method_of(job.method) if job.method in config.variant else None,
        "subset": job.subset,
        "seed": job.seed,
        **recipe.record(),
        "tuned": _tuned_record(config, job.method),
        "reward": reward_metric(config, job, recipe.needs, suite),
        "trained_probes": sorted({name for stage in recipe.stages for name in stage.method.trained_probes}),
        "preferences": data.preferences.record if recipe.needs.preference_pairs and data.preferences else None,
        "subset_hash": manifest.content_hash,
        "subset_count": manifest.count,
        "versions": versions(),
        "git": git_state(),
    }


def _tuned_record(config: ExperimentConfig, row: str) -> dict[str, Any] | None:
    """Which settings of a row's stages come from the tuned file, and how they were chosen; None if none does."""
    values = {stage: found for stage in config.stages_of(row) if (found := config.tuned_of(stage))}
    return {"values": values, **config.tuned.origin()} if config.tuned and values else None


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


def reward_metric(config: ExperimentConfig, job: Plan, needs: Needs, suite: Any) -> str | None:
    """The metric a method trains on: the experiment's, or the one that its subset was cut by, or else the aesthetic.

    Raises:
        BenchError: it looks at facts that captions do not hold, or one picture tells it nothing.
    """
    if not (needs.reward or needs.differentiable_reward):
        return None
    if config.reward:
        metric = registry.load("metrics", config.reward)
        if metric.needs_facts or metric.per_prompt:
            why = "checks facts that captions do not hold" if metric.needs_facts else "compares a prompt's pictures"
            raise BenchError(f"{config.reward} cannot reward: it {why}")
        return config.reward
    role = registry.load("subsets", job.subset).role or "aesthetic"
    return str(suite.roles[role])


def _refuse_another(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], keys: Iterable[str]) -> None:
    """BenchError if what is recorded in ``folder`` differs from what is to be run in one of ``keys``."""
    if differing := sorted(key for key in keys if old.get(key) != new[key]):
        named = {"origin": "another method's file or package", "config": "other settings"}
        what = ", ".join(named.get(key, f"other {key}") for key in differing)
        raise BenchError(
            f"{folder} was run with another configuration ({what}); "
            f"give this experiment a name with --name, or delete {folder}"
        )


def _refuse_another_model(folder: Path, name: str) -> None:
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


def _came_to_nothing(folder: Path) -> bool:
    """True of a job that failed before its first checkpoint: it left nothing to go on from."""
    from bench.records.status import read_status

    return read_status(folder)["status"] == "failed" and not (folder / "checkpoint.pt").exists()


def _write_job(folder: Path, record: dict[str, Any]) -> None:
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


def _where(recipe: Recipe, error: BaseException) -> str:
    """``file:line: `` of the last line of a method that an error passed through, or nothing."""
    found = (Own.of(stage.method).of_error(error) for stage in reversed(recipe.stages))
    return next((f"{place}: " for place in found if place), "")


def _lies_in(error: OSError, folder: Path) -> bool:
    """Whether an error is about a file of a job's folder, and not about one that a method opens."""
    return isinstance(error.filename, str) and Path(error.filename).is_relative_to(folder)


@dataclass(frozen=True)
class _Shared:
    """What the jobs of an experiment share. ``lacking`` says why there are no preference pairs, if they were needed;
    ``readers`` read probes, by subset."""

    config: ExperimentConfig
    progress: Progress
    engine: Engine
    compute: Any
    backbone: Any
    evaluator: Any
    suite: Any
    metrics: dict[str, Any]
    lacking: str | None
    readers: Mapping[str, ProbeReader]

    @cached_property
    def null(self) -> Any:
        """The empty prompt's condition."""
        return self.backbone.encode_prompts([""])

    @contextmanager
    def owed(self, folder: Path, *left: str | Path) -> Iterator[bool]:
        """Hold a row for as long as the context lasts; False where it is finished, with ``left`` in its folder."""
        from bench.records.status import read_status

        with turn(folder.parent, folder.name, self.engine, self.progress.say):
            finished = read_status(folder)["status"] == "finished" and all((folder / name).exists() for name in left)
            owed = not self.engine.broadcast(finished)
            if not owed:
                self.progress.skip(folder.name)
            yield owed

    def evaluate_base(self, runs: Path) -> None:
        """Evaluate the pretrained model: row zero of every table."""
        from bench.backbone.policy import Policy

        probed = (NOT_TRAINED / records.PROBES / name / "probes.json" for name in self.readers)
        with self.owed(runs / records.BASE, DRAWN_UNTRAINED, *probed) as owed:
            if owed:
                policy = Policy(self.backbone.transformer(), self.backbone.scheduler(), self.null, self.engine)
                head = {"job": records.BASE, "method": records.BASE}
                folder, painter = runs / records.BASE, self.evaluator.painter(policy)
                with self._evaluated(folder, head, painter, self.backbone.fingerprint):
                    for name, reader in self.readers.items():
                        reader.read(policy, folder / NOT_TRAINED / records.PROBES / name)

    def evaluate_context(self, runs: Path, name: str) -> None:
        """Evaluate a pipeline that is never trained, through diffusers: a row beside the base."""
        from bench.backbone.context import ContextPipeline

        job = f"{records.CONTEXT}--" + re.sub(r"[^\w.-]+", "-", name.strip("/")).lower()
        with self.owed(runs / job, DRAWN_UNTRAINED) as owed:
            if not owed:
                self.engine.main_first(lambda: _refuse_another_model(runs / job, name))
                return
            pipeline = self.engine.main_first(
                lambda: ContextPipeline(
                    name, offline=self.config.offline, device=self.engine.device, dtype=self.engine.dtype
                )
            )
            head = {"job": job, "method": records.CONTEXT, "label": name.strip("/").rpartition("/")[2]}
            try:
                about = pipeline.describe()
                with self._evaluated(runs / job, head | {"context": about}, pipeline, records.digest(about)):
                    pass
            finally:
                pipeline.close()

    @contextmanager
    def _evaluated(self, folder: Path, head: dict[str, Any], painter: Any, weights: str) -> Iterator[None]:
        """Evaluate a row that is not trained; it is finished when the context ends."""
        from bench.records.status import write_status

        main, name = self.engine.is_main, head["job"]
        if main:
            records.write_json(folder / "job.json", untrained_record(head))
            write_status(folder, "started")
        with self.progress.job(name, self.suite.images()) as task:
            self.evaluator.run(painter, folder / NOT_TRAINED, header=untrained_header(weights), tick=task.drew)
        yield
        if main:
            write_status(folder, "finished")

    def run(self, plan: Plan, recipe: Recipe, data: TrainingData, folder: Path) -> str | None:
        """Run one job; returns the reason if it failed."""
        from bench.errors import JobFailure, Undeclared
        from bench.experiment.loop import OutOfMemory

        self._status(folder, "started")
        try:
            self._run(plan, recipe, data, folder)
        except KeyboardInterrupt:
            self._status(folder, "interrupted", "stopped by the user; the same command resumes it")
            raise
        except Undeclared as error:
            reason = f"{_where(recipe, error)}{error}"
        except JobFailure as error:
            reason = str(error)
        except records.DiskFull:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise of_path(error, folder) from error
            if isinstance(error, OSError) and _lies_in(error, folder):
                error = of_path(error)
            foreseen = isinstance(error, (BenchError, OutOfMemory))
            reason = str(error) if foreseen else f"{_where(recipe, error)}{plugins.one_line(error)} (see traceback.txt)"
            if not foreseen:
                records.write_bytes(folder / "traceback.txt", traceback.format_exc().encode())
            if self.engine.world_size > 1:  # the others wait for this process and cannot know; the launcher ends them
                self._status(folder, "failed", reason, force=True)
                raise
            if device_lost(error):
                self._status(folder, "failed", reason)
                raise DeviceLost(
                    f"{plan.name} failed, and its process has lost the device: {reason}; the same command goes on with "
                    "the other jobs"
                ) from error
        else:
            self._status(folder, "finished")
            return None
        self._status(folder, "failed", reason)
        self.progress.say(f"{plan.name} failed: {reason}")
        return reason

    def wind_up(self, folder: Path) -> None:
        """What is left to do of a finished job, also where a kill came between its end and this."""
        from bench.export.model_card import write_card

        if not self.engine.is_main:
            return
        shutil.rmtree(folder / "stages", ignore_errors=True)  # what a resume of later stages started from
        if (folder / "README.md").exists():
            return
        try:
            write_card(folder)
        except BenchError as error:  # the job is whole without it
            self.progress.say(f"{folder.name}: no model card: {error}")

    def _status(self, folder: Path, status: str, reason: str | None = None, *, force: bool = False) -> None:
        from bench.records.status import write_status

        if self.engine.is_main or force:
            write_status(folder, status, reason)

    def _run(self, plan: Plan, recipe: Recipe, data: TrainingData, folder: Path) -> None:
        from bench.errors import JobFailure
        from bench.experiment.loop import JobRun
        from bench.experiment.session import Session
        from bench.experiment.trackers import tracking
        from bench.machine.memory import release_memory

        needs, reward = recipe.needs, reward_metric(self.config, plan, recipe.needs, self.suite)
        if needs.differentiable_reward and reward and not self.metrics[reward].differentiable:
            raise JobFailure(f"it needs a reward with a gradient, and {reward} has none; give another with --reward")
        if needs.preference_pairs and self.lacking:
            raise JobFailure(self.lacking)
        release_memory()  # an earlier job's model, before there is another
        session = Session.of(
            backbone=self.backbone,
            null=self.null,
            data=data.given(needs),
            seed=plan.seed,
            reward=self.metrics[reward] if reward else None,
            engine=self.engine,
            compute=self.compute,
            levels=self.suite.sampler.levels,
        )
        trackers = self.config.trackers if self.engine.is_main else ()
        with (
            self.progress.job(plan.name, self.suite.images()) as task,
            tracking(trackers, folder) as track,
            self.backbone.vae_loaded() if reward else nullcontext(),
        ):
            JobRun(
                folder=folder,
                method=recipe.stages[0].make(),
                then=tuple((stage.make(), before.end) for before, stage in pairwise(recipe.stages)),
                session=session,
                budget=Budget.parse(self.config.budget),
                fractions=self.config.fractions,
                evaluator=self.evaluator,
                probes=self.readers.get(plan.subset),
                configuration=records.configuration(records.read_json(folder / "job.json")),
                progress=task.trained,
                tick=task.drew,
                track=track,
            ).run()
