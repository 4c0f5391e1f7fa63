"""What a run left, as typed records. The report reads these and nothing else: no weights, no GPU, no clock."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic asks for these before Python 3.12
)

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator, with_config
from typing_extensions import TypedDict

from bench import records
from bench.errors import BenchError, some, unknown
from bench.records import BASE, CONTEXT, EVALUATED
from bench.report.text import listed
from bench.sampling.levels import DIFFUSERS, with_name
from bench.sampling.names import EULER
from bench.training.budget import Budget
from bench.training.meter import Meter

_KEPT = ConfigDict(extra="allow", allow_inf_nan=False)
"""Of a part of a record that stays a dictionary: keys that no reader asks for are kept."""


def _one_name(value: str) -> str:
    if not records.is_name(value):
        raise ValueError("no name of one file or folder")
    return value


Name = Annotated[str, AfterValidator(_one_name)]
"""A text that becomes a part of a file's name in reports, so it must not lead anywhere else."""


class _Part(BaseModel):
    """A part of a record, or a whole one. No number in it is infinite or NaN."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Metric(_Part):
    """A column of the suite. ``images`` is how many scored samples one evaluation owes it.

    A metric that is not ``ranked`` (a drift) has no better direction; ``weights`` names the files it computes with.
    One that was ``added`` to a run came from ``bench score``, not with the suite.
    """

    name: str
    label: str
    version: int
    higher_is_better: bool
    low: float | None
    high: float | None
    format: str
    prompt_set: str
    images: int = Field(ge=0)
    grouped: bool
    ranked: bool = True
    weights: Any = None
    added: bool = False

    @field_validator("format")
    @classmethod
    def _formats_a_number(cls, value: str) -> str:
        if not re.fullmatch(r",?(\.\d{1,2})?[efg%]?", value):  # a width could ask for gigabytes of spaces
            raise ValueError("no format of a number, such as .3f")
        return value

    @property
    def heading(self) -> str:
        """Label with the direction that is better, where one is."""
        return f"{self.label} {'↑' if self.higher_is_better else '↓'}" if self.ranked else self.label

    def same(self, other: Metric) -> bool:
        """Whether two runs' columns hold one quantity, whoever of them added it."""
        return self.model_copy(update={"added": other.added}) == other

    def text(self, value: float, sign: str = "") -> str:
        """``value`` with the metric's precision; ``sign="+"`` always shows the sign."""
        return format(value, sign + self.format)


class Sampler(_Part):
    """How the suite's images were sampled; records from before levels had names had one list."""

    steps: int
    guidance_scale: float
    resolution: int
    levels: str = DIFFUSERS
    solver: str = EULER
    remedy: str = ""


class Suite(_Part):
    """Prompt sets, metrics and sampling settings under one version; records of 0.2.0 do not hold the ``seed``."""

    name: str
    version: int
    seed: int | None = None
    metrics: list[Metric] = Field(min_length=1)
    sampler: Sampler

    @field_validator("metrics")
    @classmethod
    def _names_tell_columns_apart(cls, value: list[Metric]) -> list[Metric]:
        if len({metric.name for metric in value}) < len(value):
            raise ValueError("a metric is there twice; register it under a second name for a second prompt set")
        return value


class _Record(_Part):
    """A record of the layout this code knows; one of a later layout is refused instead of misread."""

    v: Literal[1]


class Experiment(_Record):
    """``experiment.json``: what was compared, under which budget, and which jobs that makes.

    ``resolution`` is the side of a training picture in pixels, ``max_sequence_length`` T5's tokens of a prompt. What
    only evaluates has no jobs, hence neither corpus nor budget, and no backbone where it scores images.
    """

    name: str
    backbone: str = ""
    backbone_hash: str = ""
    resolution: int | None = None
    max_sequence_length: int | None = None
    corpus: str = ""
    notice: str
    suite: Suite
    budget: str = ""
    fractions: list[Annotated[float, Field(gt=0, le=1)]] = Field(default=[1.0], min_length=1)
    jobs: list[str]

    @field_validator("jobs")
    @classmethod
    def _jobs_lie_in_the_run(cls, value: list[str]) -> list[str]:
        for name in value:
            identity(name)
        return value

    @model_validator(mode="after")
    def _jobs_start_somewhere(self) -> Experiment:
        if self.jobs and not all((self.backbone, self.backbone_hash, self.corpus, self.budget)):
            raise ValueError("jobs need a backbone with its hash, a corpus and a budget")
        return self


class RunConfig(_Part):
    """``config.json`` of a run: of the settings that an experiment was given, those that are read again."""

    backbone: str = ""
    backbone_kind: Literal["registered", "folder", "hub"] | None = None
    revision: str | None = None


class Git(_Part):
    """The code that ran; unknown where it was not run from a checkout."""

    commit: str | None
    dirty: bool | None


@with_config(_KEPT)
class FromFile(TypedDict):
    """Origin of a method that was given as a file."""

    file: str
    sha256: str


@with_config(_KEPT)
class FromPackage(TypedDict):
    """Origin of a method that another package brought."""

    package: str
    version: str | None


Comes = FromFile | FromPackage | str | None
"""Where a method came from, as ``plugins.origin`` says."""


@with_config(_KEPT)
class StageRun(TypedDict):
    """One stage of a pipeline; ``end`` is the share of the budget at which it ended."""

    name: str
    end: float
    origin: Comes


@with_config(_KEPT)
class PreferencesUsed(TypedDict):
    """The corpus of preference pairs, and how many there are."""

    corpus: str
    pairs: int


@with_config(_KEPT)
class TunedUsed(TypedDict):
    """The settings that `bench tune` chose, by stage, among how many trials on which suite."""

    values: dict[str, dict[str, Any]]
    trials: int
    suite: str


@with_config(_KEPT)
class Swept(TypedDict):
    """What was drawn at several guidance scales; of a job, which it is."""

    name: str
    run: NotRequired[str | None]
    method: NotRequired[Name | None]
    subset: NotRequired[Name | None]
    seed: NotRequired[int | None]
    reward: NotRequired[str | None]


@with_config(_KEPT)
class SampledAs(TypedDict):
    """The sampler of an evaluated row."""

    steps: NotRequired[int | None]
    guidance_scale: NotRequired[float | None]
    resolution: NotRequired[int | None]
    solver: NotRequired[str]
    remedy: NotRequired[str]


@with_config(_KEPT)
class EvaluatedAs(TypedDict):
    """What an evaluated row is."""

    kind: NotRequired[str]
    backbone: NotRequired[str | None]
    sizes: NotRequired[dict[str, int]]
    sampler: NotRequired[SampledAs | None]
    sweep: NotRequired[Swept | None]
    backbone_hash: NotRequired[str | None]
    max_sequence_length: NotRequired[int | None]


class JobRecord(_Record):
    """``job.json``: everything known about a job before its first step.

    ``label`` is the name of a row that nothing was trained for. ``context`` says how a context row was loaded and
    sampled, ``evaluated`` what an evaluated row is: its kind, source, identity and sampler. ``preferences`` names the
    corpus of preference pairs and how many there are, ``tuned`` the settings that `bench tune` chose and how,
    ``origin`` where the method came from (of a pipeline, ``stages`` say it).
    """

    job: Name
    method: Name
    subset: Name | None
    seed: int | None
    config: dict[str, Any]
    needs: dict[str, bool]
    traits: dict[str, str]
    reward: str | None
    preferences: PreferencesUsed | None = None
    tuned: TunedUsed | None = None
    origin: Comes = None
    stages: list[StageRun] | None = None
    versions: dict[str, Any]
    git: Git
    subset_hash: str | None
    subset_count: int | None
    trained_probes: list[str] = []
    label: str | None = None
    context: dict[str, Any] | None = None
    evaluated: EvaluatedAs | None = None

    @model_validator(mode="after")
    def _holds_what_its_parts_name(self) -> JobRecord:
        for stage in self.stages or ():
            if not isinstance(self.config.get(stage["name"]), dict):
                raise ValueError(f"the stage {stage['name']} has no settings in config")
        made: Mapping[str, Any] = self.evaluated or {}
        if made.get("sweep") and ("kind" not in made or not (made.get("sampler") or {}).get("guidance_scale")):
            raise ValueError("a row of a sweep needs its kind and the guidance scale of its sampler")
        sweep = made.get("sweep") or {}
        if "run" in sweep and not {"method", "subset"} <= sweep.keys():
            raise ValueError("a job's row of a sweep needs its method and its subset")
        return self


class StatusRecord(_Record):
    """``status.json``; a job that has not begun has none."""

    status: Literal["started", "finished", "failed", "interrupted"]
    reason: str | None


class EvaluationRecord(_Record):
    """``evaluation.json``: when in the job an evaluation happened.

    Of newer records it also says of which ``configuration`` the job was, and which ``weights`` were drawn.
    """

    step: int
    fraction: float
    spent: dict[str, float]
    configuration: str | None = None
    weights: str | None = None


class Score(_Part):
    """One metric's verdict on one sample: a score, or the error that took its place."""

    version: int
    score: float | None = None
    error: str | None = None


class SampleLine(_Record):
    """A line of ``samples.jsonl`` as it is scored.

    A given image that is not there has no file, and older records hold no ``sha256``.
    """

    prompt_set: str
    prompt_id: str
    prompt: str
    group: str
    repeat: int
    image: str | None = None
    sha256: str | None = None
    scores: dict[str, Score] = Field(default_factory=dict)


class SampleRecord(SampleLine):
    """The same as it is reported: of an image that lies in the evaluation's folder."""

    @field_validator("image")
    @classmethod
    def _lies_in_its_folder(cls, value: str | None) -> str | None:
        if value is not None and not records.inside(value):
            raise ValueError("an image outside the evaluation's folder")
        return value


@dataclass(frozen=True)
class Sample:
    """One image with its scores, of the suite's metric versions only."""

    prompt_set: str
    prompt_id: str
    prompt: str
    group: str
    repeat: int
    image: Path | None
    scores: Mapping[str, Score]
    sha256: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """All samples of one checkpoint; ``fraction`` is the planned share of the budget, ``spent`` the real amount.

    ``configuration`` is that of its job when it was drawn, where the record says it.
    """

    fraction: float
    spent: Meter
    samples: list[Sample]
    configuration: str | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Job:
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
    def made(self) -> Mapping[str, Any]:
        """What its record holds of how an evaluated row was made; empty for others."""
        return (self.record.evaluated if self.record else None) or {}

    @property
    def sweep(self) -> Mapping[str, Any]:
        """Of a row of a sweep over guidance scales: its model's name and, of a job, which it is. Empty for others."""
        return self.made.get("sweep") or {}

    @property
    def guidance_scale(self) -> float:
        """Of a row of a sweep."""
        return float(self.made["sampler"]["guidance_scale"])

    @property
    def given(self) -> bool:
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
    jobs: tuple[Job, ...]

    @property
    def trained_on(self) -> str | None:
        """Metric that the method was given as its reward."""
        return next((job.record.reward for job in self.jobs if job.record and job.record.reward), None)


@dataclass(frozen=True)
class Study:
    """Everything one report shows: one or more experiments that may be compared.

    ``base`` is None only where nothing is trained and the base was not evaluated. ``context`` holds other models'
    evaluations on the same suite, which compete with nobody, and ``evaluated`` those of given weights and images.
    ``swept`` rows were drawn at a guidance scale of their own: they stand in a table by themselves.
    """

    experiments: tuple[Experiment, ...]
    base: Job | None
    jobs: tuple[Job, ...]
    context: tuple[Job, ...] = ()
    evaluated: tuple[Job, ...] = ()
    swept: tuple[Job, ...] = ()

    @property
    def experiment(self) -> Experiment:
        """The first experiment that trains, else the first; the others agree with it in all that the report shows."""
        return next((e for e in self.experiments if e.jobs), self.experiments[0])

    @property
    def start(self) -> tuple[Job, ...]:
        """The base, where there is one."""
        return (self.base,) if self.base else ()

    @property
    def untrained(self) -> tuple[Job, ...]:
        """Every row of the main table that nothing was trained for here, in the order of the tables."""
        return (*self.start, *self.context, *self.evaluated)

    @property
    def tabled(self) -> bool:
        """Whether there is a main table: always, but where scales were swept and nothing else was done."""
        return not self.swept or bool(self.jobs or self.untrained)

    @property
    def everything(self) -> tuple[Job, ...]:
        """Every row there is."""
        return (*self.untrained, *self.swept, *self.jobs)

    @property
    def given(self) -> tuple[Job, ...]:
        """Rows of images that were not sampled here."""
        return tuple(job for job in self.evaluated if job.given)

    @property
    def draws(self) -> bool:
        """Whether any row was, or is to be, sampled here."""
        return bool(self.jobs or self.swept) or not self.untrained or len(self.given) < len(self.untrained)

    def tokens_of(self, job: Job) -> int | None:
        """T5 tokens of a prompt that an untrained row was drawn with, where its record says so."""
        if job is self.base:
            return next((e.max_sequence_length for e in self.experiments if e.max_sequence_length), None)
        return job.made.get("max_sequence_length")

    @property
    def tokens(self) -> list[int]:
        """T5 tokens that its numbers were measured with: those that trained, or where nothing did, of each row."""
        if self.jobs:
            return [self.experiment.max_sequence_length] if self.experiment.max_sequence_length else []
        found = (self.experiment.max_sequence_length, *map(self.tokens_of, self.everything))
        return sorted({tokens for tokens in found if tokens})

    @property
    def metrics(self) -> list[Metric]:
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
)
"""Fields in which merged experiments must be equal: rows that differ in one of them are no fair comparison."""

EVALUATIONS_AGREE = ("suite", "notice")
"""The same for an experiment that trains nothing: its rows spent nothing and name their own weights and sampler."""

BASES_AGREE = (*EVALUATIONS_AGREE, "backbone", "backbone_hash", "max_sequence_length")
"""The same where it evaluated the base, since one base stands for all."""


def read_study(runs: list[Path]) -> Study:
    """Read run folders and merge them. Raises BenchError where a record is damaged or two runs are not comparable."""
    if not runs:
        raise BenchError("no run to report on; name at least one folder, e.g. runs/<experiment>")
    experiments = tuple(records.read_record(Experiment, run / "experiment.json") for run in runs)
    _check_agreement(runs, experiments)
    jobs: dict[str, Job] = {}
    for run, experiment in zip(runs, experiments, strict=True):
        for name in experiment.jobs:
            if name in jobs:
                raise BenchError(f"job {name} is in more than one of the given runs; name each run once")
            jobs[name] = _read_job(run / name, experiment.suite)
    suite = experiments[0].suite
    # A run that trains owes its base even before the base is begun.
    owed = [r for r, experiment in zip(runs, experiments, strict=True) if experiment.jobs or (r / BASE).is_dir()]
    bases = [_read_job(run / BASE, suite) for run in owed]
    # Every run evaluated the same weights on the same noise, so the first base that got through stands for all.
    base = next((b for b in bases if b.status == "finished"), bases[0] if bases else None)
    context = _read_untrained(runs, CONTEXT, suite)
    evaluated = _read_untrained(runs, EVALUATED, suite)
    swept = tuple(job for job in evaluated if job.sweep)
    beside = _told_apart((*context, *(job for job in evaluated if not job.sweep)))
    context, evaluated = beside[: len(context)], beside[len(context) :]
    return Study(experiments, base, tuple(jobs.values()), context, evaluated, swept)


def _check_agreement(runs: list[Path], experiments: tuple[Experiment, ...]) -> None:
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


def _check_added(first: Path, one: Suite, run: Path, other: Suite) -> None:
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


def _added(one: Suite, other: Suite) -> set[str]:
    return {metric.name for suite in (one, other) for metric in suite.metrics if metric.added}


def _without(suite: Suite, names: set[str]) -> Suite:
    return suite.model_copy(update={"metrics": [metric for metric in suite.metrics if metric.name not in names]})


def read_job(folder: Path) -> Study:
    """The study of one job against its base, so that what is said of the job alone is what its report says."""
    experiment = records.read_record(Experiment, folder.parent / "experiment.json")
    if folder.name not in experiment.jobs:
        raise unknown("job", folder.name, experiment.jobs)
    base, job = (_read_job(folder.with_name(name), experiment.suite) for name in (BASE, folder.name))
    return Study((experiment,), base, (job,))


def _read_untrained(runs: list[Path], kind: str, suite: Suite) -> tuple[Job, ...]:
    """Context or evaluated rows by folder name; of one that several runs hold, the first that got through.

    BenchError where two runs hold different weights or images under one name.
    """
    found: dict[str, Job] = {}
    for folder in (path.parent for run in runs for path in sorted(run.glob(f"{kind}--*/job.json"))):
        job = _read_job(folder, suite)
        earlier = found.get(job.name)
        if earlier and earlier.record and job.record and with_name(earlier.made) != with_name(job.made):
            raise BenchError(
                f"{folder} and an earlier run's {job.name} are not the same (they differ in "
                f"{_differing(earlier.made, job.made)}); evaluate one of them under another path, or report them apart"
            )
        if earlier is None or earlier.status != "finished":
            found[job.name] = job
    return tuple(found[name] for name in sorted(found))


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return some(sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key)))


def _told_apart(rows: tuple[Job, ...]) -> tuple[Job, ...]:
    """Rows of one label under their folders' names, since a table shows and pairs rows by what they are called."""
    times = Counter([BASE, *(job.label for job in rows)])
    return tuple(
        replace(job, record=job.record.model_copy(update={"label": job.name.partition("--")[2] or job.name}))
        if job.record and times[job.label] > 1
        else job
        for job in rows
    )


def _read_job(folder: Path, suite: Suite) -> Job:
    record = records.read_record(JobRecord, folder / "job.json") if (folder / "job.json").exists() else None
    status = records.read_record(StatusRecord, folder / "status.json") if (folder / "status.json").exists() else None
    method, subset, seed = identity(folder.name)
    clock = {row["step"]: row for row in _rows(folder / "clock.jsonl", ("step", "seconds", "peak_memory"))}
    metered = _rows(folder / "meter.jsonl", ("step", "flops"))
    # A folder whose name begins with a dot was being written when its job was killed.
    found = sorted(folder.glob("evaluations/[!.]*/evaluation.json"))
    evaluations = [_read_evaluation(f, suite, clock) for f in found]
    _check_one_start(folder, found, evaluations)
    return Job(
        name=folder.name,
        method=record.method if record else method,
        subset=(record.subset if record else None) or subset,
        seed=record.seed if record and record.seed is not None else seed,
        record=record,
        status=status.status if status else "not begun",
        reason=status.reason if status else None,
        spent=_meter(metered[-1] if metered else {}, max(clock, default=0), clock),
        evaluations=sorted(evaluations, key=lambda e: e.fraction),
    )


def _check_one_start(folder: Path, files: list[Path], evaluations: list[Evaluation]) -> None:
    """BenchError if evaluations are not of the job that ``job.json`` names, or two of them are at one fraction."""
    job = records.configuration(records.read_json(folder / "job.json")) if (folder / "job.json").exists() else None
    seen: dict[float, Path] = {}
    for file, evaluation in zip(files, evaluations, strict=True):
        other = seen.setdefault(evaluation.fraction, file)
        if evaluation.configuration not in (None, job) or other != file:
            which = "another configuration than job.json's" if other == file else f"the fraction of {other.parent}, too"
            raise BenchError(
                f"{file.parent} is of {which}: an earlier start of the job left it; delete the one that is older"
            )


def identity(folder: str) -> tuple[str, str, int]:
    """Method, subset and seed from ``<method>--<subset>--s<seed>``: all that is known of a job not begun.

    Raises:
        BenchError: the folder is named otherwise, or the name leads out of the run.
    """
    if folder == BASE:
        return BASE, "", 0
    for kind in (CONTEXT, EVALUATED):
        if folder.startswith(f"{kind}--"):
            return kind, "", 0
    found = re.fullmatch(r"(.+)--(.+)--s(-?\d{1,19})", folder, re.ASCII)
    if found is None or "--" in found[1] or "--" in found[2] or not records.is_name(folder):
        raise BenchError(f"job {folder!r} is not named <method>--<subset>--s<seed>; mend experiment.json")
    return found[1], found[2], int(found[3])


def _read_evaluation(path: Path, suite: Suite, clock: Mapping[int, Mapping[str, Any]]) -> Evaluation:
    record = records.read_record(EvaluationRecord, path)
    versions = {metric.name: metric.version for metric in suite.metrics}
    samples: dict[tuple[str, str, int], Sample] = {}
    lines = path.with_name("samples.jsonl")
    for row in records.read_lines(lines):
        line = records.parsed(SampleRecord, row, lines)
        # A score of another version is another quantity: it does not count. Scoring again appends: later lines win.
        scores = {name: score for name, score in line.scores.items() if versions.get(name) == score.version}
        key = (line.prompt_set, line.prompt_id, line.repeat)
        if key in samples:
            scores = {**samples[key].scores, **scores}
        image = path.parent / line.image if line.image else None
        about = line.prompt_set, line.prompt_id, line.prompt, line.group, line.repeat
        samples[key] = Sample(*about, image, scores, line.sha256)
    spent = _meter(record.spent, record.step, clock)
    return Evaluation(record.fraction, spent, list(samples.values()), record.configuration, path.parent)


def _meter(counts: Mapping[str, Any], step: int, clock: Mapping[int, Mapping[str, Any]]) -> Meter:
    """Exact counts, completed by the clock reading of the same step."""
    known = {field.name for field in fields(Meter)}
    readings = clock.get(step, {})
    return Meter(**{key: value for key, value in {**counts, **readings}.items() if key in known})


def _rows(path: Path, required: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = list(records.read_lines(path))
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict) and row.get("v") != records.VERSION:
            raise BenchError(f"{path}:{number} is of version {row.get('v')!r}, which this version does not read")
        if not isinstance(row, dict) or not all(
            isinstance(row.get(key), int | float) and math.isfinite(row[key]) for key in required
        ):
            raise BenchError(f"{path}:{number} lacks one of {', '.join(required)}; delete its folder and run again")
    return rows
