"""What the records of a run hold. Who writes one builds these models, and who reads one checks it by them.

A key that is not set is not written, so the bytes on disk are what a writer states and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic asks for these before Python 3.12
)

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, field_validator, model_validator, with_config
from typing_extensions import TypedDict

from bench.errors import BenchError
from bench.records.files import BASE, CONTEXT, EVALUATED, inside, is_name
from bench.sampling.levels import DIFFUSERS
from bench.sampling.names import EULER


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
    match = re.fullmatch(r"(.+)--(.+)--s(-?\d{1,19})", folder, re.ASCII)
    if match is None or "--" in match[1] or "--" in match[2] or not is_name(folder):
        raise BenchError(f"job {folder!r} is not named <method>--<subset>--s<seed>; mend experiment.json")
    return match[1], match[2], int(match[3])


_OPEN = ConfigDict(extra="allow", allow_inf_nan=False)
"""Of a part of a record that stays a dictionary: keys that no reader asks for are kept."""


def _one_name(value: str) -> str:
    if not is_name(value):
        raise ValueError("it cannot be the name of one file or folder")
    return value


Name = Annotated[str, AfterValidator(_one_name)]
"""A text that becomes a part of a file's name in reports, so it must not lead anywhere else."""


Number = int | float
"""A number that is written again as it was read: 7 stays 7, and 7.0 stays 7.0."""


class _Part(BaseModel):
    """A part of a record, or a whole one. No number in it is infinite or NaN."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class MetricRecord(_Part):
    """A column of the suite. ``images`` is how many scored samples one evaluation owes it.

    A metric that is not ``ranked`` (a drift) has no better direction; ``weights`` names the files it computes with.
    ``images_on_the_way`` is the same of an evaluation before a job's last, where that draws a part of the prompts.
    One that was ``added`` to a run came from ``bench score``, not with the suite. What else a metric says of itself is
    written too. Two columns are equal where all that is named here is.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    label: str
    version: int
    higher_is_better: bool
    low: Number | None
    high: Number | None
    format: str
    prompt_set: str
    images: int = Field(ge=0)
    images_on_the_way: int | None = Field(default=None, ge=0)
    grouped: bool
    ranked: bool = True
    per_prompt: bool = False
    weights: Any = None
    added: bool = False

    @field_validator("format")
    @classmethod
    def _formats_a_number(cls, value: str) -> str:
        if not re.fullmatch(r",?(\.\d{1,2})?[efg%]?", value):  # a width could ask for gigabytes of spaces
            raise ValueError("it is no number format such as .3f")
        return value

    def __eq__(self, other: object) -> bool:
        names = type(self).model_fields
        return isinstance(other, MetricRecord) and all(getattr(self, n) == getattr(other, n) for n in names)

    @property
    def heading(self) -> str:
        """Label with the direction that is better, where one is."""
        return f"{self.label} {'↑' if self.higher_is_better else '↓'}" if self.ranked else self.label

    def as_added(self) -> MetricRecord:
        """The same column as one that ``bench score`` adds to a run."""
        return self.model_copy(update={"added": True})

    def same(self, other: MetricRecord) -> bool:
        """Whether two runs' columns hold one quantity, whoever of them added it."""
        return self.model_copy(update={"added": other.added}) == other

    def text(self, value: float, sign: str = "") -> str:
        """``value`` with the metric's precision; ``sign="+"`` always shows the sign.

        Nine places decide how it is rounded: what is beyond them in an exact half differs by CPU.
        """
        return format(round(value, 9), sign + self.format)


class SamplerRecord(_Part):
    """How the suite's images were sampled; records from before levels had names had one list."""

    steps: int
    guidance_scale: Number
    resolution: int
    levels: str = DIFFUSERS
    solver: str = EULER
    remedy: str = ""


class SuiteRecord(_Part):
    """Prompt sets, metrics and sampling settings under one version; records of 0.2.0 do not hold the ``seed``.

    ``on_the_way`` is above 1 where evaluations before a job's last draw every so-many-th prompt of each group, and
    ``repeats`` where every prompt was drawn so many times as often as the suite has it.
    """

    name: str
    version: int
    seed: int | None = None
    metrics: list[MetricRecord] = Field(min_length=1)
    sampler: SamplerRecord
    on_the_way: int = Field(default=1, ge=1)
    repeats: int = Field(default=1, ge=1)

    def on_its_way(self) -> SuiteRecord:
        """The same of what an evaluation before a job's last draws."""
        owed = {"images_on_the_way": None}
        metrics = [m.model_copy(update={"images": m.images_on_the_way or 0} | owed) for m in self.metrics]
        return self.model_copy(update={"metrics": metrics, "on_the_way": 1}) if self.on_the_way > 1 else self

    @field_validator("metrics")
    @classmethod
    def _names_tell_columns_apart(cls, value: list[MetricRecord]) -> list[MetricRecord]:
        if len({metric.name for metric in value}) < len(value):
            raise ValueError("a metric is there twice; a second prompt set needs a subclass with a name of its own")
        return value


class _Record(_Part):
    """A record of the layout this code knows; one of a later layout is refused instead of misread."""

    v: Literal[1]


class ExperimentRecord(_Record):
    """``experiment.json``: what was compared, under which budget, and which jobs that makes.

    ``resolution`` is the side of a training picture in pixels, ``max_sequence_length`` T5's tokens of a prompt. What
    only evaluates has no jobs, hence neither corpus nor budget, and no backbone where it scores images.
    ``backbone_commit`` is that of a hub's snapshot. ``average_half_life`` is that of the average of the weights that
    jobs are evaluated with, as a share of the budget; None: they are evaluated with what their methods choose.
    """

    name: str
    backbone: str = ""
    backbone_hash: str = ""
    backbone_commit: str | None = None
    dtype: str | None = None
    aspect_buckets: bool | None = None
    resolution: int | None = None
    max_sequence_length: int | None = None
    corpus: str = ""
    notice: str
    suite: SuiteRecord
    budget: str = ""
    fractions: list[Annotated[float, Field(gt=0, le=1)]] = Field(default=[1.0], min_length=1)
    average_half_life: Annotated[float, Field(gt=0, lt=1)] | None = None
    jobs: list[str]

    @field_validator("jobs")
    @classmethod
    def _jobs_lie_in_the_run(cls, value: list[str]) -> list[str]:
        for name in value:
            identity(name)
        return value

    @model_validator(mode="after")
    def _jobs_start_somewhere(self) -> ExperimentRecord:
        if self.jobs and not all((self.backbone, self.backbone_hash, self.corpus, self.budget)):
            raise ValueError("jobs need a backbone with its hash, a corpus and a budget")
        return self


class RunConfig(_Part):
    """``config.json`` of a run: of the settings that an experiment was given, those that are read again."""

    backbone: str = ""
    backbone_kind: Literal["registered", "folder", "hub"] | None = None
    revision: str | None = None


class GitRecord(_Part):
    """The code that ran; unknown where it was not run from a checkout."""

    commit: str | None
    dirty: bool | None


@with_config(_OPEN)
class FromFile(TypedDict):
    """Origin of a method that was given as a file."""

    file: str
    sha256: str


@with_config(_OPEN)
class FromPackage(TypedDict):
    """Origin of a method that another package brought."""

    package: str
    version: str | None


Comes = FromFile | FromPackage | str | None
"""Where a method came from, as ``plugins.origin`` says."""


@with_config(_OPEN)
class StageRun(TypedDict):
    """One stage of a pipeline; ``end`` is the share of the budget at which it ended."""

    name: str
    end: float
    origin: Comes


@with_config(_OPEN)
class PreferencesUsed(TypedDict):
    """The corpus of preference pairs, how many there are, and metrics that were fitted to what the pairs prefer."""

    corpus: str
    pairs: int
    encodes: NotRequired[list[str]]


@with_config(_OPEN)
class TunedRowUsed(TypedDict):
    """How the settings of one stage were chosen, and its own scale of guidance (``TunedRow`` says what each is)."""

    trials: int
    confirmed: NotRequired[int]
    median: NotRequired[Number]
    default_median: NotRequired[Number]
    guidance_scale: NotRequired[Number]


@with_config(_OPEN)
class TunedUsed(TypedDict):
    """The settings that `bench tune` chose, by stage, among how many trials on which suite."""

    values: dict[str, dict[str, Any]]
    trials: int
    suite: str
    rows: NotRequired[dict[str, TunedRowUsed]]


@with_config(_OPEN)
class Swept(TypedDict):
    """What was drawn with several samplers; of a job, which it is."""

    name: str
    run: NotRequired[str | None]
    method: NotRequired[Name | None]
    subset: NotRequired[Name | None]
    seed: NotRequired[int | None]
    reward: NotRequired[str | None]


@with_config(_OPEN)
class TrainingOf(TypedDict):
    """Which job of which run an evaluated row is."""

    run: str
    method: Name
    subset: Name | None
    seed: int | None
    reward: NotRequired[str | None]


@with_config(_OPEN)
class SampledAs(TypedDict):
    """The sampler of an evaluated row."""

    steps: NotRequired[int | None]
    guidance_scale: NotRequired[Number | None]
    resolution: NotRequired[int | None]
    levels: NotRequired[str]
    solver: NotRequired[str]
    remedy: NotRequired[str]


@with_config(_OPEN)
class TriedScale(TypedDict):
    """A scale of a remedy, and its mean gain beside none in standard deviations of images."""

    scale: Number
    gain: Number


@with_config(_OPEN)
class ChosenScale(TypedDict):
    """How the scale of a remedy was chosen: on which suite, by what, and all that were tried."""

    suite: str
    version: int
    objective: str
    tried: list[TriedScale]


@with_config(_OPEN)
class EvaluatedAs(TypedDict):
    """What an evaluated row is."""

    kind: NotRequired[str]
    backbone: NotRequired[str | None]
    sizes: NotRequired[dict[str, int]]
    sampler: NotRequired[SampledAs | None]
    chosen: NotRequired[ChosenScale]
    sweep: NotRequired[Swept | None]
    backbone_hash: NotRequired[str | None]
    max_sequence_length: NotRequired[int | None]


class JobRecord(_Record):
    """``job.json``: everything known about a job before its first step.

    ``label`` is the name of a row that nothing was trained for. ``context`` says how a context row was loaded and
    sampled, ``evaluated`` what an evaluated row is: its kind, source, identity and sampler. ``training`` says which job
    of a run an evaluated row is, if it is one and the suite's sampler drew it. ``preferences`` names the corpus of
    preference pairs and how many there are, ``tuned`` the settings that `bench tune` chose and how, ``origin`` where
    the method came from (of a pipeline, ``stages`` say it), ``variant_of`` the method of a variant, ``trained_probes``
    the measures of exposure bias that are in its loss, ``micro_batch`` the rows that `--micro-batch auto` chose when it
    began, ``reward_metric`` what a reward is that is no column of the suite, ``adam_8bit`` that its optimizer's states
    have 8 bits.
    """

    job: Name
    method: Name
    variant_of: str | None = None
    subset: Name | None
    seed: int | None
    config: dict[str, Any]
    needs: dict[str, bool]
    traits: dict[str, str]
    reward: str | None
    reward_metric: dict[str, Any] | None = None
    trained_probes: list[str] = []
    preferences: PreferencesUsed | None = None
    tuned: TunedUsed | None = None
    origin: Comes = None
    stages: list[StageRun] | None = None
    micro_batch: int | None = None
    adam_8bit: bool = False
    versions: dict[str, Any]
    git: GitRecord
    subset_hash: str | None
    subset_count: int | None
    label: str | None = None
    context: dict[str, Any] | None = None
    evaluated: EvaluatedAs | None = None
    training: TrainingOf | None = None

    @model_validator(mode="after")
    def _holds_what_its_parts_name(self) -> JobRecord:
        for stage in self.stages or ():
            if not isinstance(self.config.get(stage["name"]), dict):
                raise ValueError(f"the stage {stage['name']} has no settings in config")
        made: Mapping[str, Any] = self.evaluated or {}
        drawn = made.get("sampler") or {}
        if made.get("sweep") and not ("kind" in made and drawn.get("guidance_scale") and drawn.get("steps")):
            raise ValueError("a row of a sweep needs its kind, and the steps and the guidance scale of its sampler")
        sweep = made.get("sweep") or {}
        if "run" in sweep and not {"method", "subset"} <= sweep.keys():
            raise ValueError("a job's row of a sweep needs its method and its subset")
        return self


Status = Literal["started", "finished", "failed", "interrupted"]
"""How a job stands."""


class StatusRecord(_Record):
    """``status.json``; a job that has not begun has none."""

    status: Status
    reason: str | None


class EvaluationRecord(_Record):
    """``evaluation.json``: when in the job an evaluation happened.

    Of newer records it also says of which ``configuration`` the job was, and which ``weights`` were drawn. Of images
    that came from elsewhere it holds their ``identity``, a hash, and how many there are of each of their ``sizes``.
    ``every`` is set where not all prompts were drawn, but every so-many-th of each group.
    """

    step: int
    fraction: float
    spent: dict[str, Number]
    configuration: str | None = None
    weights: str | None = None
    identity: str | None = None
    sizes: dict[str, int] | None = None
    every: int | None = None


class ScoreRecord(_Part):
    """One metric's verdict on one sample: a score, or the error that took its place.

    ``seen`` says in words what the metric saw in the picture; of metrics without such words, and of older records, it
    is None.
    """

    version: int
    score: float | None = None
    error: str | None = None
    seen: str | None = None


class SampleLine(_Record):
    """A line of ``samples.jsonl`` as it is scored.

    A given image that is not there has no file, and older records hold no ``sha256``. ``seed`` is that of its noise,
    None where it came from elsewhere, and ``problem`` says why there is nothing to score.
    """

    prompt_set: str
    prompt_id: str
    prompt: str
    group: str
    repeat: int
    seed: int | None = None
    image: str | None = None
    sha256: str | None = None
    problem: str | None = None
    scores: dict[str, ScoreRecord] = Field(default_factory=dict)


class SampleRecord(SampleLine):
    """The same as it is reported: of an image that lies in the evaluation's folder."""

    @field_validator("image")
    @classmethod
    def _lies_in_its_folder(cls, value: str | None) -> str | None:
        if value is not None and not inside(value):
            raise ValueError("an image outside the evaluation's folder")
        return value


_Reading = Annotated[int, Strict()] | Annotated[float, Strict()]
"""A number of a log, which is no text and no truth."""


class LogLine(_Record):
    """A line of a log: what it says was so after a step."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Reading] = Field(init=False)

    step: _Reading


class TrainLine(LogLine):
    """A line of ``train.jsonl``. Its other keys are the scalars that the method logged in the step."""


class MeterLine(LogLine):
    """A line of ``meter.jsonl``: what the job has spent, in exact counts.

    Its other keys are those of ``bench.training.meter.Meter``; older records hold fewer.
    """

    flops: _Reading


class ClockLine(LogLine):
    """A line of ``clock.jsonl``: device-seconds of training, and peak memory in bytes. No two runs agree in it."""

    seconds: _Reading
    peak_memory: _Reading


class ProbedPairs(_Part):
    """Pairs that probes were read on: how many, and a hash of them."""

    model_config = ConfigDict(extra="allow")

    count: int = Field(ge=1)
    identity: str


class ProbeRecord(_Part):
    """What ``probes.json`` says of a probe: what makes a reading comparable, and how a report shows it.

    ``ideal`` is the value without bias, ``weight`` names the weights of levels in a mean over them. Of a probe that is
    ``relative`` a report divides by the base's readings.
    """

    model_config = ConfigDict(extra="allow")

    name: Name
    label: str
    version: int
    ideal: Number | None
    relative: bool = False
    weight: str | None = None


class ProbingRecord(_Record):
    """``probes.json``: all that two readings of probes must share to be compared, the sampler's levels among it."""

    model_config = ConfigDict(extra="allow")

    pairs: ProbedPairs
    training: ProbedPairs | None = None
    sigmas: list[Number]
    scales: list[Number]
    probes: list[ProbeRecord]


class ProbeLine(_Record):
    """A line of ``probes.jsonl``: readings of ``pairs`` at one level, or why there are none.

    ``values`` are theirs, in their order; None where a value was no finite number, of which ``error`` speaks. Where a
    probe raised there are no ``values``, and ``error`` says why.
    """

    model_config = ConfigDict(extra="allow")

    probe: str
    version: int
    part: Literal["held_out", "training"]
    guidance: _Reading
    pairs: list[int] = Field(min_length=1)
    start: _Reading | None = None
    sigma: _Reading | None = None
    steps: int | None = None
    values: list[_Reading | None] | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _says_what_was_read(self) -> ProbeLine:
        if self.error is None and (self.values is None or None in self.values):
            raise ValueError("it has neither all values nor an error")
        if self.values is not None and len(self.values) != len(self.pairs):
            raise ValueError("it has not one value for each pair")
        if self.values is not None and None in (self.start, self.sigma, self.steps):
            raise ValueError("its values are of no level")
        return self
