"""What an evaluation is: prompt sets, metrics and sampling settings, under one version."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from bench.errors import BenchError, unknown
from bench.metric import Metric
from bench.prompt import Prompt
from bench.records import recording
from bench.records.schema import MetricRecord, SamplerRecord, SuiteRecord
from bench.rng import derive_seed
from bench.sampling import levels
from bench.sampling.names import EULER, check_remedy, check_solver

__all__ = ["Prompt", "PromptSet", "Sampler", "Suite"]


@dataclass(frozen=True)
class PromptSet:
    """Prompts drawn ``repeats`` times each and scored by ``metrics`` (registry names)."""

    name: str
    prompts: tuple[Prompt, ...]
    repeats: int
    metrics: tuple[str, ...]

    def __post_init__(self) -> None:
        """BenchError without a prompt or repeat, for an id that is there twice or a name that cannot name a file."""
        if not self.prompts or self.repeats < 1:
            lacks = "no prompt" if not self.prompts else f"{self.repeats} repeats"
            raise BenchError(f"the prompt set {self.name} has {lacks}, so nothing would be drawn")
        ids = Counter(prompt.id for prompt in self.prompts)
        if twice := next((name for name, times in ids.items() if times > 1), None):
            raise BenchError(f"the prompt set {self.name} holds the prompt id {twice!r} more than once")
        for name in (self.name, *ids):
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise BenchError(f"{name!r} names images, so it has to be of letters, digits, '_', '-' and '.'")

    @property
    def images(self) -> int:
        """How many there are of them."""
        return len(self.prompts) * self.repeats

    def every(self, step: int) -> PromptSet:
        """Every ``step``-th prompt of each group, from its first on."""
        seen: Counter[str] = Counter()
        prompts = []
        for prompt in self.prompts:
            if seen[prompt.group] % step == 0:
                prompts.append(prompt)
            seen[prompt.group] += 1
        return replace(self, prompts=tuple(prompts))

    def column(self, metric: Metric, on_the_way: int = 1) -> MetricRecord:
        """What records hold of a metric on these prompts; ``images`` is how many it owes a score.

        Args:
            on_the_way: the suite's; above 1 the record also says how many images the part owes.

        Raises:
            BenchError: what the metric says of itself is no description of a metric.
        """
        about = metric.describe() | {"prompt_set": self.name, "images": self.images}
        if on_the_way > 1:
            about["images_on_the_way"] = self.every(on_the_way).images
        with recording(f"the metric {metric.name}"):
            return MetricRecord.model_validate(about)


@dataclass(frozen=True)
class Sampler:
    """How images are made: Euler steps of the probability-flow ODE, guidance scale, side in pixels.

    Attributes:
        levels: name of the list of noise levels (``bench/sampling/levels.py``). Another list is a new version of the
            suite.
        solver: one of ``bench/sampling/names.py``. A suite's own is Euler's; a sweep draws with others.
        remedy: for exposure bias without training, ``name=scale``, or nothing.
    """

    steps: int
    guidance_scale: float
    resolution: int
    levels: str = levels.DIFFUSERS
    solver: str = EULER
    remedy: str = ""

    def __post_init__(self) -> None:
        """BenchError for levels, a solver or a remedy that is not known, and for those that do not go together."""
        levels.check(self.levels)
        check_solver(self.solver)
        if self.remedy:
            check_remedy(self.remedy, self.solver)

    def record(self) -> SamplerRecord:
        """Its record. Euler's solver and an empty remedy are left out, as in records of every release."""
        usual = {"solver": EULER, "remedy": ""}
        return SamplerRecord(**{name: value for name, value in asdict(self).items() if usual.get(name, ...) != value})


@dataclass(frozen=True)
class Suite:
    """A versioned evaluation. Anything that changes a score is a new version.

    Attributes:
        roles: what a subset or a reward asks for ("aesthetic", "clipscore") → the metric that plays it here.
        notice: first line of every report: which world the numbers come from.
        on_the_way: evaluations of a job before its last draw every so-many-th prompt of each group: the same prompts
            each time. With 1 they draw all, as the paper's protocol has it.
        average_half_life: of the average of the weights that a job is evaluated with, as a share of its budget. With 0
            they are the weights that its method evaluates, as the paper's protocol has it. An experiment can set
            another.
        repeats: times as often as the suite has it that every prompt is drawn; 1 but in ``repeated``.
    """

    name: str
    version: int
    prompt_sets: tuple[PromptSet, ...]
    sampler: Sampler
    seed: int
    roles: Mapping[str, str]
    notice: str
    on_the_way: int = 1
    average_half_life: float = 0.0
    repeats: int = 1

    def noise_seed(self, prompt_set: str, prompt: Prompt, repeat: int) -> int:
        """Seed of an image's starting noise: the same for every method, different for every prompt and repeat."""
        return derive_seed(self.seed, prompt_set, prompt.id, prompt.text, repeat, "evaluation-noise")

    def metric_of(self, role: str) -> str:
        """The metric that plays a role. BenchError where the suite has none."""
        if role not in self.roles:
            raise unknown(f"role in the suite {self.name}", role, self.roles)
        return self.roles[role]

    def images(self, evaluations: int = 1) -> int:
        """Images of a job's ``evaluations``, of which the last draws all prompts."""
        whole, part = (sum(p.every(step).images for p in self.prompt_sets) for step in (1, self.on_the_way))
        return whole + (evaluations - 1) * part

    def part(self) -> Suite:
        """The prompts of an evaluation before a job's last."""
        sets = tuple(prompts.every(self.on_the_way) for prompts in self.prompt_sets)
        return replace(self, prompt_sets=sets, on_the_way=1)

    def texts(self) -> list[str]:
        """Every prompt's text."""
        return [prompt.text for prompts in self.prompt_sets for prompt in prompts.prompts]

    def limited(self, per_group: int) -> Suite:
        """The first prompts of each group of each set: for a look, and never to be compared with the whole suite."""
        sets = []
        for prompts in self.prompt_sets:
            seen: Counter[str] = Counter()
            first = []
            for prompt in prompts.prompts:
                seen[prompt.group] += 1
                if seen[prompt.group] <= per_group:
                    first.append(prompt)
            sets.append(replace(prompts, prompts=tuple(first)))
        notice = f"{self.notice} Only the first {per_group} of each group of prompts: too few to compare anything."
        return replace(self, name=f"{self.name}, first {per_group}", prompt_sets=tuple(sets), notice=notice)

    def repeated(self, times: int) -> Suite:
        """The same prompts, each drawn ``times`` as often.

        The first repeats are the suite's own, with their noise. Further ones have noise of their own.
        """
        if times == 1:
            return self
        sets = tuple(replace(prompts, repeats=prompts.repeats * times) for prompts in self.prompt_sets)
        notice = (
            f"{self.notice} Every prompt is drawn {times} times as often as the suite has it: the numbers share no "
            "table with the suite's own."
        )
        return replace(self, prompt_sets=sets, repeats=self.repeats * times, notice=notice)

    def with_metrics(self, columns: Mapping[str, str]) -> Suite:
        """The same prompts with other columns: metric → prompt set."""
        sets = (
            replace(prompts, metrics=tuple(name for name, chosen in columns.items() if chosen == prompts.name))
            for prompts in self.prompt_sets
        )
        return replace(self, prompt_sets=tuple(sets))

    def describe(self, metrics: Mapping[str, Metric]) -> SuiteRecord:
        """What records hold of a suite: all that two evaluations must share to be compared.

        Raises:
            BenchError: a metric has two columns, or something else that no record can hold.
        """
        columns = [prompts.column(metrics[name], self.on_the_way) for name, prompts in self.metrics()]
        with recording(f"the suite {self.name}"):
            record = SuiteRecord(
                name=self.name,
                version=self.version,
                seed=self.seed,
                sampler=self.sampler.record(),
                metrics=columns,
            )
        unusual = {"on_the_way": self.on_the_way, "repeats": self.repeats}
        return record.model_copy(update={name: number for name, number in unusual.items() if number > 1})

    def metrics(self) -> list[tuple[str, PromptSet]]:
        """(metric, prompt set) in the order of the columns of a report."""
        return [(metric, prompts) for prompts in self.prompt_sets for metric in prompts.metrics]
