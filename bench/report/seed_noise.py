"""The noise file of a suite: how much its scores vary between trainings, measured once by reference runs.

With one seed, a run does not know how much a second training would differ. The file says it for the suite and the
backbone that it was measured on, and for no others. It lies beside the suite's own file, ``<suite>.noise.json``, and
``bench noise`` makes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bench import records, registry
from bench.errors import BenchError
from bench.records.schema import ExperimentRecord

MAKE = "make one with `bench noise`"


class MetricNoise(BaseModel):
    """Components of one metric (``components.Components``), with the prompts that they were measured on.

    Attributes:
        df: degrees of freedom of what trainings add.
        groups: prompts of each group.
        low, high: bounds of a score.
        divided: whether what methods differ by was told apart into prompts and noise; if not, all of it is noise.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, extra="forbid", strict=True)

    version: int
    mean: float
    low: float | None
    high: float | None
    binary: bool
    groups: list[int] = Field(min_length=1)
    repeats: int = Field(ge=1)
    prompt: float = Field(ge=0)
    prompt_noise: float = Field(ge=0)
    residual: float = Field(ge=0)
    seed_prompt: float = Field(ge=0)
    seed_shift: float = Field(ge=0)
    method_prompt: float = Field(ge=0)
    method_noise: float = Field(ge=0)
    df: float = Field(ge=1)
    divided: bool = True

    @property
    def row_noise_share(self) -> float | None:
        """Of what prompts and noise add to a row, the part of noise; None where no repeats told them apart."""
        return self._share(self.prompt, self.prompt_noise)

    @property
    def difference_noise_share(self) -> float | None:
        """The same of a difference of two rows."""
        return self._share(self.method_prompt, self.method_noise)

    def _share(self, of_prompts: float, of_noise: float) -> float | None:
        both = of_prompts + of_noise
        return of_noise / both if self.repeats > 1 and both > 0 else None


class NoiseFile(BaseModel):
    """The whole file.

    Attributes:
        average_half_life: of the average of the weights that was evaluated, as a share of the budget; 0: none. None: it
            is not known, as of folders that only evaluate.
        runs: the experiments it was measured on, with their ``rows`` and trainings (``jobs``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    suite: str
    suite_version: int
    backbone_hash: str
    average_half_life: float | None = Field(default=None, ge=0, lt=1)
    runs: list[str]
    rows: int
    jobs: int
    metrics: dict[str, MetricNoise]

    @property
    def about(self) -> str:
        """What it was measured on, in words."""
        return f"{', '.join(self.runs)} ({self.jobs} trainings of {self.rows} rows)"


def beside(suite: str) -> Path | None:
    """Where the noise file of a registered suite lies or would lie; None for another suite."""
    target = registry.table("suites").get(suite)
    source = registry.find(target.partition(":")[0]) if target else None
    return source.with_name(f"{suite}.noise.json") if source else None


def shipped(experiment: ExperimentRecord) -> NoiseFile | None:
    """The noise file of an experiment's suite, if there is one for its version, its backbone and what it evaluates."""
    path = beside(experiment.suite.name)
    if path is None or not path.is_file():
        return None
    file = read(path)
    return file if not mismatch(file, experiment) else None


def read(path: Path) -> NoiseFile:
    """A noise file. BenchError where it is none."""
    return records.read_record(NoiseFile, path)


def mismatch(file: NoiseFile, experiment: ExperimentRecord) -> str:
    """In what a noise file is not an experiment's; empty where it is."""
    pairs = [
        ("suite", file.suite, experiment.suite.name),
        ("version of the suite", str(file.suite_version), str(experiment.suite.version)),
        ("backbone", file.backbone_hash[:12], experiment.backbone_hash[:12]),
    ]
    if file.average_half_life is not None and experiment.jobs:
        pairs.append(("half-life", f"{file.average_half_life:g}", f"{experiment.average_half_life or 0:g}"))
    return next((f"{what} {theirs}, not {ours}" for what, theirs, ours in pairs if theirs != ours), "")


def given(path: Path, experiment: ExperimentRecord) -> NoiseFile:
    """A noise file of the user's own. BenchError where it is none, or not the experiment's."""
    file = records.parsed(NoiseFile, records.read_json(path, MAKE), path)
    if what := mismatch(file, experiment):
        raise BenchError(f"the noise file {path} is of the {what}; {MAKE} from runs of this suite and backbone")
    return file


def of_metric(file: NoiseFile | None, name: str, version: int) -> MetricNoise | None:
    """What a file says of a metric of this version."""
    found = file.metrics.get(name) if file else None
    return found if found and found.version == version else None
