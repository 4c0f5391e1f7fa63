"""What one ``bench evaluate`` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from bench import registry
from bench.errors import BenchError, unknown
from bench.experiment.toml import RunName, Settings, read_values, validated
from bench.machine.bounds import LARGEST_SCALE, MOST_IMAGES, MOST_REPEATS, MOST_SCALES, MOST_STEPS, MOST_T5_TOKENS


class EvaluationConfig(Settings):
    """What one ``bench evaluate`` does."""

    what: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        min_length=1, description="registered names, hub ids, folders"
    )
    name: RunName = Field("", description="run folder; default: evaluate-<suite>")
    suite: str = "embedded"
    prompts: str = Field("", description="file of prompts, one a line, for the suite's metrics that need no facts")
    backbone: str | None = Field(None, description="pipeline of a LoRA or a lone transformer")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    offline: bool = Field(False, description="use the hub's cache alone")
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    max_sequence_length: int | None = Field(
        None, gt=0, le=MOST_T5_TOKENS, description="T5 tokens; default: the backbone's"
    )
    evaluation_batch: int = Field(48, gt=0, le=MOST_IMAGES, description="images sampled together")
    passes: Literal["all", "generate", "score"] = "all"
    metrics: tuple[str, ...] = Field(
        (), description="score with these of the suite's alone; name@prompt-set adds a column"
    )
    limit: int | None = Field(None, gt=0, description="prompts per group, for a look")
    repeats: int = Field(
        1, ge=1, le=MOST_REPEATS, description="times as often as the suite has it that every prompt is drawn"
    )
    steps: tuple[Annotated[int, Field(ge=1, le=MOST_STEPS)], ...] = Field(
        (), max_length=MOST_SCALES, description="of the sampler, a row for each number; default: the suite's"
    )
    levels: tuple[str, ...] = Field((), description="lists of noise levels, a row for each; default: the suite's")
    solver: tuple[str, ...] = Field((), description="of the sampler, a row for each; default: euler")
    remedy: tuple[str, ...] = Field((), max_length=MOST_SCALES, description="without training, a row for each")
    chosen: dict[str, Any] = Field({}, description="how the scale of the remedy was chosen, for the record")
    guidance: tuple[Annotated[float, Field(ge=1, le=LARGEST_SCALE)], ...] = Field(
        (),
        max_length=MOST_SCALES,
        description="scales of classifier-free guidance, a row for each; default: the suite's",
    )

    probes: bool = Field(False, description="measure exposure bias too")
    pairs: str = Field("", description="run whose held-out pairs are read; default: the run of a job or a base")
    all_pairs: bool = Field(False, description="read probes on all held-out pairs, whatever that costs")

    @property
    def run_name(self) -> str:
        kind = "sweep" if self.steps or self.solver or self.levels else "guidance" if self.guidance else "evaluate"
        limited = f"-first-{self.limit}" if self.limit else ""
        repeated = f"-repeats-{self.repeats}" if self.repeats > 1 else ""
        return self.name or f"{kind}-{self.suite}{limited}{repeated}"


def read_evaluation(flags: Mapping[str, Any]) -> EvaluationConfig:
    """The configuration that flags make; those that are None are left out. BenchError, one line, for a bad one."""
    values = read_values(None, flags, EvaluationConfig, file="", key="evaluation key")
    config: EvaluationConfig = validated(EvaluationConfig, values, "evaluation: ")
    if config.suite not in registry.table("suites"):
        raise unknown("suite", config.suite, registry.table("suites"))
    if not config.probes and (flag := "--pairs" if config.pairs else "--all-pairs" if config.all_pairs else ""):
        raise BenchError(f"{flag} says on which pairs probes are read; add --probes, or leave {flag} out")
    if config.probes and config.passes == "score":
        raise BenchError("--pass score works on images alone, and probes read a model; leave one of the two out")
    return config
