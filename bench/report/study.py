"""What a run left, as typed records. The report reads these and nothing else: no weights, no GPU, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

from bench import records
from bench.errors import BenchError, some
from bench.records import BASE, CONTEXT, EVALUATED
from bench.records.reading import experiment_of, read_job_folder, read_samples
from bench.records.schema import (
    ClockLine,
    EvaluationRecord,
    ExperimentRecord,
    JobRecord,
    MetricRecord,
    Number,
    ScoreRecord,
    SuiteRecord,
    identity,
)
from bench.report.seed_noise import NoiseFile, shipped
from bench.report.text import listed
from bench.sampling.levels import with_name
from bench.training.budget import Budget
from bench.training.meter import Meter


@dataclass(frozen=True)
class Sample:
    """One image with its scores, of the suite's metric versions only. ``file`` is below its evaluation's ``folder``."""

    prompt_set: str
    prompt_id: str
    prompt: str
    group: str
    repeat: int
    file: str | None
    scores: Mapping[str, ScoreRecord]
    sha256: str | None = None
    folder: Path = Path()

    @cached_property
    def image(self) -> Path | None:
        """Where the picture lies, if one was kept. Most are never asked for, and a path takes time to make."""
        return self.folder / self.file if self.file else None


MISSING = "missing: "
"""Begins the error of a score whose metric lacks a file; how to get it follows."""


@dataclass(frozen=True)
class Tally:
    """One metric of one evaluation.

    ``scores`` are in the order of repeats, by stratum and prompt. ``remedy`` says how to get a file that the metric
    lacked, ``unscored`` counts pictures that nothing has tried to score, and ``errors`` those that failed, by reason.
    """

    scores: Mapping[tuple[str, str], Sequence[float]] = field(default_factory=dict)
    remedy: str = ""
    unscored: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """All samples of one checkpoint; ``fraction`` is the planned share of the budget, ``spent`` the real amount.

    ``configuration`` is that of its job when it was drawn, where the record says it. ``partial`` says that not all
    prompts of the suite were drawn.
    """

    fraction: float
    spent: Meter
    samples: list[Sample]
    configuration: str | None = None
    folder: Path | None = None
    partial: bool = False

    @cached_property
    def _tallies(self) -> dict[str, Tally]:
        return {}

    @cached_property
    def _by_set(self) -> dict[str, list[Sample]]:
        """Samples by their prompt set, in the order of repeats: rows are paired noise by noise."""
        found: dict[str, list[Sample]] = {}
        for sample in sorted(self.samples, key=attrgetter("repeat")):
            found.setdefault(sample.prompt_set, []).append(sample)
        return found

    @cached_property
    def rows(self) -> dict[tuple[Any, ...], Any]:
        """What others have worked out of rows that this evaluation is the first of."""
        return {}

    def tally(self, metric: MetricRecord) -> Tally:
        """What there is of a metric, worked out once."""
        if metric.name not in self._tallies:
            self._tallies[metric.name] = self._tally(metric)
        return self._tallies[metric.name]

    def _tally(self, metric: MetricRecord) -> Tally:
        scores: dict[tuple[str, str], list[float]] = {}
        remedy, unscored, errors = "", 0, Counter[str]()
        for sample in self._by_set.get(metric.prompt_set, ()):
            score = sample.scores.get(metric.name)
            if score is None:
                unscored += 1
            elif score.score is not None:
                key = sample.group if metric.grouped else "", sample.prompt_id
                if key in scores:
                    scores[key].append(score.score)
                else:
                    scores[key] = [score.score]
            elif (score.error or "").startswith(MISSING):
                remedy = remedy or (score.error or "").removeprefix(MISSING)
            else:
                errors[score.error or "no score"] += 1
        return Tally(scores, remedy, unscored, errors)

    def of(self, prompts: Set[tuple[str, str]]) -> Evaluation:
        """The samples of these prompts, each a prompt set and an id."""
        return replace(self, samples=[s for s in self.samples if (s.prompt_set, s.prompt_id) in prompts])

    def scores(self, metric: MetricRecord) -> Iterator[tuple[Sample, float]]:
        """The samples that a metric scored, each with its score."""
        for sample in self.samples:
            record = sample.scores.get(metric.name)
            if sample.prompt_set == metric.prompt_set and record is not None and record.score is not None:
                yield sample, record.score


@dataclass(frozen=True)
class StudiedJob:
    """One method on one subset with one seed, or a row that nothing was trained for: the base, a context row, or an
    evaluated one. ``record`` is None while it has not begun.
    """

    name: str
    method: str
    subset: str
    seed: int
    record: JobRecord | None
    status: str
    reason: str | None
    spent: Meter
    evaluations: list[Evaluation]

    @property
    def label(self) -> str:
        """What its row is called: its own name, else the method's, or its folder's where no method tells it apart."""
        named = self.record.label if self.record else None
        return named or (self.name if self.method in (CONTEXT, EVALUATED) else self.method)

    @property
    def trained(self) -> bool:
        """Whether it is a training of a method."""
        return self.method not in (BASE, CONTEXT, EVALUATED)

    @property
    def made(self) -> Mapping[str, Any]:
        """What its record holds of how an evaluated row was made; empty for others."""
        return (self.record.evaluated if self.record else None) or {}

    @property
    def sweep(self) -> Mapping[str, Any]:
        """Of a row of a sweep over guidance scales: its model's name and, of a job, which it is. Empty for others."""
        return self.made.get("sweep") or {}

    @property
    def training(self) -> Mapping[str, Any]:
        """Of an evaluated row that is a job of a run: which one. Empty for others."""
        return (self.record.training if self.record else None) or {}

    @property
    def guidance_scale(self) -> float:
        """Of a row of a sweep."""
        return float(self.made["sampler"]["guidance_scale"])

    @property
    def sampled_elsewhere(self) -> bool:
        """Whether its images came from elsewhere, sampled nobody knows how."""
        return self.made.get("kind") == "images" and not self.made.get("sampler")

    def at(self, fraction: float) -> Evaluation | None:
        """The evaluation planned at ``fraction`` of the budget, if it was made."""
        return next((e for e in self.evaluations if abs(e.fraction - fraction) < 1e-6), None)


@dataclass(frozen=True)
class Row:
    """The jobs of one method on one subset: its seeds, pooled."""

    method: str
    subset: str
    jobs: tuple[StudiedJob, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its trainings."""
        return tuple(job.training.get("seed", job.seed) for job in self.jobs)

    @property
    def trained_on(self) -> frozenset[str]:
        """Metrics that the method was given: its reward, and what its preference pairs encode."""
        known = [job.record for job in self.jobs if job.record]
        encoded = [name for record in known if record.preferences for name in record.preferences.get("encodes", [])]
        return frozenset([*(record.reward for record in known if record.reward), *encoded])


@dataclass(frozen=True)
class Study:
    """Everything one report shows: one or more experiments that may be compared.

    ``base`` is None only where nothing is trained and the base was not evaluated. ``context`` holds other models'
    evaluations on the same suite, which compete with nobody, and ``evaluated`` those of given weights and images.
    ``swept`` rows were drawn at a guidance scale of their own: they stand in a table by themselves. ``part`` is how
    many prompts the study is narrowed to, 0 where it is not, and ``shares`` what share that is of the prompts of each
    metric. ``given`` is a noise file that takes the place of the suite's.
    """

    experiments: tuple[ExperimentRecord, ...]
    base: StudiedJob | None
    jobs: tuple[StudiedJob, ...]
    context: tuple[StudiedJob, ...] = ()
    evaluated: tuple[StudiedJob, ...] = ()
    swept: tuple[StudiedJob, ...] = ()
    part: int = 0
    given: NoiseFile | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def noise(self) -> NoiseFile | None:
        """How much the suite's scores vary, as a file says it: the one that was given, else the suite's own."""
        return self.given or shipped(self.experiment)

    def listed(self, metric: MetricRecord) -> float:
        """Share of the prompts of a metric that the study holds: below 1 where it is narrowed to a part of them."""
        return self.shares.get(metric.name, 1.0)

    def of_every_evaluation(self) -> Study:
        """The same, narrowed to the prompts that every evaluation drew, so that a curve compares like with like."""
        drawn = [evaluation for job in self.jobs for evaluation in job.evaluations if evaluation.partial]
        if not drawn:
            return self
        prompts = {(sample.prompt_set, sample.prompt_id) for sample in drawn[0].samples}

        def narrowed(job: StudiedJob) -> StudiedJob:
            return replace(job, evaluations=[evaluation.of(prompts) for evaluation in job.evaluations])

        return replace(
            self,
            experiments=tuple(e.model_copy(update={"suite": e.suite.on_its_way()}) for e in self.experiments),
            base=narrowed(self.base) if self.base else None,
            jobs=tuple(map(narrowed, self.jobs)),
            context=tuple(map(narrowed, self.context)),
            evaluated=tuple(map(narrowed, self.evaluated)),
            part=len(prompts),
            shares={
                m.name: min(m.images_on_the_way / m.images, 1.0)
                for m in self.metrics
                if m.images and m.images_on_the_way
            },
        )

    @property
    def experiment(self) -> ExperimentRecord:
        """The first experiment that trains, else the first; the others agree with it in all that the report shows."""
        return next((e for e in self.experiments if e.jobs), self.experiments[0])

    @property
    def start(self) -> tuple[StudiedJob, ...]:
        """The base, where there is one."""
        return (self.base,) if self.base else ()

    @property
    def untrained(self) -> tuple[StudiedJob, ...]:
        """Every row of the main table that nothing was trained for here, in the order of the tables."""
        return (*self.start, *self.context, *self.evaluated)

    @property
    def tabled(self) -> bool:
        """Whether there is a main table: always, but where scales were swept and nothing else was done."""
        return not self.swept or bool(self.jobs or self.untrained)

    @property
    def everything(self) -> tuple[StudiedJob, ...]:
        """Every row there is."""
        return (*self.untrained, *self.swept, *self.jobs)

    @property
    def rows_sampled_elsewhere(self) -> tuple[StudiedJob, ...]:
        """Rows of images that were not sampled here."""
        return tuple(job for job in self.evaluated if job.sampled_elsewhere)

    @property
    def draws(self) -> bool:
        """Whether any row was, or is to be, sampled here."""
        return (
            bool(self.jobs or self.swept)
            or not self.untrained
            or len(self.rows_sampled_elsewhere) < len(self.untrained)
        )

    def tokens_of(self, job: StudiedJob) -> int | None:
        """T5 tokens of a prompt that an untrained row was drawn with, where its record says so."""
        if job is self.base:
            return next((e.max_sequence_length for e in self.experiments if e.max_sequence_length), None)
        return job.made.get("max_sequence_length")

    @property
    def tokens(self) -> list[int]:
        """T5 tokens that its numbers were measured with: those that trained, or where nothing did, of each row."""
        if self.jobs:
            return [self.experiment.max_sequence_length] if self.experiment.max_sequence_length else []
        counts = (self.experiment.max_sequence_length, *map(self.tokens_of, self.everything))
        return sorted({count for count in counts if count})

    @property
    def metrics(self) -> list[MetricRecord]:
        """The suite's columns, in its order."""
        return self.experiment.suite.metrics

    @property
    def fractions(self) -> list[float]:
        """Planned shares of the budget at which jobs are evaluated, ascending."""
        return sorted(self.experiment.fractions)

    @cached_property
    def budget(self) -> Budget:
        """What each job may spend."""
        return Budget.parse(self.experiment.budget)

    @cached_property
    def methods(self) -> list[str]:
        """In order of appearance, which also gives each its colour."""
        return list(dict.fromkeys(job.method for job in self.jobs))

    @cached_property
    def subsets(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(job.subset for job in self.jobs))

    def share(self, spent: Meter) -> float:
        """Part of the budget that an amount is."""
        return spent.spent(self.budget.currency) / self.budget.amount

    def rows(self, subset: str) -> list[Row]:
        """The methods that ran on ``subset``, each with its seeds in order."""
        chosen = sorted((job for job in self.jobs if job.subset == subset), key=lambda job: job.seed)
        rows = (Row(m, subset, tuple(job for job in chosen if job.method == m)) for m in self.methods)
        return [row for row in rows if row.jobs]

    @cached_property
    def trainings(self) -> list[Row]:
        """The rows of ``jobs``. Where there are none, those of evaluated rows that are jobs of runs.

        Seeds of one method on one subset of one run are pooled. BenchError where one of them is there twice.
        """
        if self.jobs:
            return [row for subset in self.subsets for row in self.rows(subset)]
        found: dict[tuple[str, str, str], dict[int, StudiedJob]] = {}
        for job in self.evaluated:
            of = job.training
            if of and of["seed"] is not None:
                seeds = found.setdefault((of["run"], of["method"], of["subset"] or ""), {})
                if earlier := seeds.get(of["seed"]):
                    raise twice(earlier, job, of)
                seeds[of["seed"]] = job
        return [
            Row(method, subset, tuple(jobs[seed] for seed in sorted(jobs)))
            for (_, method, subset), jobs in found.items()
        ]

    @property
    def trained_until(self) -> float:
        """Fraction at which ``trainings`` are evaluated at last; an evaluated row counts as not trained here."""
        return self.fractions[-1] if self.jobs else 0.0

    @property
    def backbones(self) -> set[str]:
        """Hashes of the backbones that ``trainings`` started from."""
        trained = {experiment.backbone_hash for experiment in self.experiments if experiment.jobs}
        return trained or {job.made.get("backbone_hash") or "" for row in self.trainings for job in row.jobs}

    def run_of(self, job: StudiedJob) -> str:
        """The run that a job of ``trainings`` is of."""
        return job.training.get("run") or next(e.name for e in self.experiments if job.name in e.jobs)


MUST_AGREE = (
    "suite",
    "backbone",
    "backbone_hash",
    "resolution",
    "max_sequence_length",
    "corpus",
    "notice",
    "budget",
    "fractions",
    "average_half_life",
)
"""Fields in which merged experiments must be equal: rows that differ in one of them are no fair comparison."""

EVALUATIONS_AGREE = ("suite", "notice")
"""The same for an experiment that trains nothing: its rows spent nothing and name their own weights and sampler."""

BASES_AGREE = (*EVALUATIONS_AGREE, "backbone", "backbone_hash", "max_sequence_length")
"""The same where it evaluated the base, since one base stands for all."""

SEEDS_AGREE = (
    "config",
    "variant_of",
    "stages",
    "reward",
    "reward_metric",
    "adam_8bit",
    "preferences",
    "subset_hash",
    "subset_count",
)
"""Fields in which seeds of one method on one subset must be equal: a row is one training, done again."""


def twice(earlier: StudiedJob, job: StudiedJob, of: Mapping[str, Any]) -> BenchError:
    """What to say where one training is there twice.

    Args:
        of: the training: its run, method and seed.
    """
    return BenchError(
        f"{earlier.name} and {job.name} are both seed {of['seed']} of {of['method']} in a run called {of['run']}, so "
        "they are no two trainings; evaluate them in runs of their own with --name"
    )


def read_study(runs: list[Path], *, samples: bool = True) -> Study:
    """Read run folders and merge them. Raises BenchError where a record is damaged or two runs are not comparable.

    Args:
        samples: whether to read the evaluations' samples, which take most of the time.
    """
    if not runs:
        raise BenchError("no run to report on; name at least one folder, e.g. runs/<experiment>")
    experiments = tuple(records.read_record(ExperimentRecord, run / "experiment.json") for run in runs)
    _check_agreement(runs, experiments)
    jobs: dict[str, StudiedJob] = {}
    for run, experiment in zip(runs, experiments, strict=True):
        for name in experiment.jobs:
            if name in jobs:
                raise BenchError(f"job {name} is in more than one of the given runs; name each run once")
            jobs[name] = _read_job(run / name, experiment.suite, samples)
    _check_seeds(jobs.values())
    suite = experiments[0].suite
    # A run that trains owes its base even before the base is begun.
    base_runs = [r for r, experiment in zip(runs, experiments, strict=True) if experiment.jobs or (r / BASE).is_dir()]
    bases = [_read_job(run / BASE, suite, samples) for run in base_runs]
    # Every run evaluated the same weights on the same noise, so the first base that got through stands for all.
    base = next((b for b in bases if b.status == "finished"), bases[0] if bases else None)
    context = _read_untrained(runs, CONTEXT, suite, samples)
    evaluated = _read_untrained(runs, EVALUATED, suite, samples)
    swept = tuple(job for job in evaluated if job.sweep)
    beside = _with_own_labels((*context, *(job for job in evaluated if not job.sweep)))
    context, evaluated = beside[: len(context)], beside[len(context) :]
    return Study(experiments, base, tuple(jobs.values()), context, evaluated, swept)


def read_studies(runs: list[Path]) -> list[Study]:
    """A study of all runs that drew their prompts equally often; others share no table. Errors: as ``read_study``."""
    alike: dict[int, list[Path]] = {}
    for run in runs:
        repeats = records.read_record(ExperimentRecord, run / "experiment.json").suite.repeats
        alike.setdefault(repeats, []).append(run)
    return [read_study(group) for group in alike.values()]


def _check_agreement(runs: list[Path], experiments: tuple[ExperimentRecord, ...]) -> None:
    """Compare every experiment with the first that trains, else with the first that evaluated its base."""
    trained = [bool(e.jobs) for e in experiments]
    based = [(run / BASE).is_dir() for run in runs]
    first = (trained if any(trained) else based if any(based) else [True]).index(True)
    for run, experiment, trains, has_base in zip(runs, experiments, trained, based, strict=True):
        for key in MUST_AGREE if trains else BASES_AGREE if has_base else EVALUATIONS_AGREE:
            one, other = getattr(experiments[first], key), getattr(experiment, key)
            if key == "suite":
                added = _added(one, other)
                one, other = _without(one, added), _without(other, added)
            if one != other:
                raise BenchError(
                    f"{runs[first]} and {run} differ in {key} and cannot share a report; render them apart"
                )
        _check_added(runs[first], experiments[first].suite, run, experiment.suite)


def _check_seeds(jobs: Iterable[StudiedJob]) -> None:
    """BenchError if two seeds of a row are not the same training."""
    first: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for job in jobs:
        if job.record is None:
            continue
        held = _flat(job.record)
        name, known = first.setdefault((job.method, job.subset), (job.name, held))
        if held != known:
            raise BenchError(
                f"{name} and {job.name} differ in {_differing(known, held)}, so they are no two seeds of one row; "
                "render them apart, or run one of them as a variant with a name of its own"
            )


def _flat(record: JobRecord) -> dict[str, Any]:
    """What seeds agree in, each setting of the configuration by itself."""
    held = record.model_dump(include=set(SEEDS_AGREE))
    return {f"config.{key}": value for key, value in held.pop("config").items()} | held


def _check_added(first: Path, one: SuiteRecord, run: Path, other: SuiteRecord) -> None:
    """BenchError if two runs of the same suite differ in the columns that ``bench score`` added to them."""
    ours, theirs = ({m.name: m for m in suite.metrics if m.name in _added(one, other)} for suite in (one, other))
    lacking = {first: [m for m in theirs.values() if m.name not in ours]}
    lacking |= {run: [m for m in ours.values() if m.name not in theirs]}
    remedies = [
        f"`bench score {folder} --metrics {','.join(f'{m.name}@{m.prompt_set}' for m in metrics)}`"
        for folder, metrics in lacking.items()
        if metrics
    ]
    unlike = [m.name for m in ours.values() if m.name in theirs and not m.same(theirs[m.name])]
    if not remedies and not unlike:
        return
    names = some(unlike or sorted(ours.keys() ^ theirs.keys()))
    how = ", which they did not compute alike; render them apart" if unlike else f"; run {listed(remedies)} first"
    raise BenchError(f"{first} and {run} differ in suite, but only in columns added to it: {names}{how}")


def _added(one: SuiteRecord, other: SuiteRecord) -> set[str]:
    return {metric.name for suite in (one, other) for metric in suite.metrics if metric.added}


def _without(suite: SuiteRecord, names: set[str]) -> SuiteRecord:
    return suite.model_copy(update={"metrics": [metric for metric in suite.metrics if metric.name not in names]})


def read_job(folder: Path) -> Study:
    """The study of one job against its base, so that what is said of the job alone is what its report says."""
    experiment = experiment_of(folder)
    base, job = (_read_job(folder.with_name(name), experiment.suite, samples=True) for name in (BASE, folder.name))
    return Study((experiment,), base, (job,))


def _read_untrained(runs: list[Path], kind: str, suite: SuiteRecord, samples: bool) -> tuple[StudiedJob, ...]:
    """Context or evaluated rows by folder name; of one that several runs hold, the first that got through.

    BenchError where two runs hold different weights or images under one name.
    """
    jobs: dict[str, StudiedJob] = {}
    for folder in (path.parent for run in runs for path in sorted(run.glob(f"{kind}--*/job.json"))):
        job = _read_job(folder, suite, samples)
        earlier = jobs.get(job.name)
        if earlier and earlier.record and job.record and with_name(earlier.made) != with_name(job.made):
            raise BenchError(
                f"{folder} and an earlier run's {job.name} are not the same (they differ in "
                f"{_differing(earlier.made, job.made)}); evaluate one of them under another path, or report them apart"
            )
        if earlier is None or earlier.status != "finished":
            jobs[job.name] = job
    return tuple(jobs[name] for name in sorted(jobs))


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return some(sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key)))


def _with_own_labels(rows: tuple[StudiedJob, ...]) -> tuple[StudiedJob, ...]:
    """Rows of one label under their folders' names, since a table shows and pairs rows by what they are called."""
    times = Counter([BASE, *(job.label for job in rows)])
    return tuple(
        replace(job, record=job.record.model_copy(update={"label": job.name.partition("--")[2] or job.name}))
        if job.record and times[job.label] > 1
        else job
        for job in rows
    )


def _read_job(folder: Path, suite: SuiteRecord, samples: bool) -> StudiedJob:
    method, subset, seed = identity(folder.name)
    held = read_job_folder(folder)
    record, status = held.record, held.status
    clock = {line.step: line for line in held.clock}
    evaluations = [_read_evaluation(path, about, suite, clock, samples) for path, about in held.evaluations.items()]
    last, steps = max(clock, default=0), held.meter[-1].step if held.meter else 0
    ends_early = status is not None and status.status == "finished" and last < steps
    return StudiedJob(
        name=folder.name,
        method=record.method if record else method,
        subset=(record.subset if record else None) or subset,
        seed=record.seed if record and record.seed is not None else seed,
        record=record,
        status=status.status if status else "not begun",
        reason=status.reason if status else None,
        spent=_meter(records.document(held.meter[-1]) if held.meter else {}, None if ends_early else clock.get(last)),
        evaluations=sorted(evaluations, key=lambda e: e.fraction),
    )


def _read_evaluation(
    path: Path, record: EvaluationRecord, suite: SuiteRecord, clock: Mapping[Number, ClockLine], with_samples: bool
) -> Evaluation:
    versions = {metric.name: metric.version for metric in suite.metrics}
    samples: dict[tuple[str, str, int], Sample] = {}
    for line in read_samples(path) if with_samples else ():
        # A score of another version is another quantity: it does not count. Scoring again appends: later lines win.
        scores = {name: score for name, score in line.scores.items() if versions.get(name) == score.version}
        key = (line.prompt_set, line.prompt_id, line.repeat)
        if key in samples:
            scores = {**samples[key].scores, **scores}
        about = line.prompt_set, line.prompt_id, line.prompt, line.group, line.repeat
        samples[key] = Sample(*about, line.image, scores, line.sha256, path.parent)
    spent = _meter(record.spent, clock.get(record.step))
    partial = record.every is not None
    return Evaluation(record.fraction, spent, list(samples.values()), record.configuration, path.parent, partial)


def _meter(counts: Mapping[str, Any], clock: ClockLine | None) -> Meter:
    """Exact counts, completed by the clock reading of the same step."""
    known = {each.name for each in fields(Meter)}
    readings = records.document(clock) if clock else {}
    return Meter(**{key: value for key, value in {**counts, **readings}.items() if key in known})
