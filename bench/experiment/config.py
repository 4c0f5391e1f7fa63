"""What one command runs: an experiment, from a TOML file, from flags, or from both."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bench import plugins, registry
from bench.errors import BenchError, unknown
from bench.experiment import shipped
from bench.experiment.toml import (
    RunName,
    Settings,
    check_value,
    parse_size,
    read_toml,
    read_values,
    validated,
)
from bench.experiment.tuned import Tuned, check_tuned, read_tuned
from bench.machine.bounds import (
    LARGEST_INTEGER,
    LARGEST_SIDE,
    MOST_EVALUATIONS,
    MOST_HELD_OUT,
    MOST_IMAGES,
    MOST_SEEDS,
    MOST_T5_TOKENS,
)
from bench.machine.spelling import CorpusName
from bench.method import MethodConfig
from bench.records import BASE, CONTEXT, EVALUATED, is_name
from bench.suite import Suite
from bench.training.budget import Budget

ROWS = (BASE, CONTEXT, EVALUATED)
"""Names of the rows that nothing is trained for."""

RELEASED_ROWS = 4
"""Rows of a micro-batch of a full-size backbone, unless the user says otherwise: the released SOAR command's
(``--train_batch_size 4``, Tencent-Hunyuan/HY-SOAR @ 59f0e02). A whole share can be 127 GiB of activations."""

Share = Annotated[float, Field(ge=1e-6, lt=1)]
Seed = Annotated[int, Field(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]


class SubsetRule(Settings):
    """How a subset is cut in this experiment, where its own threshold or the corpus's quantile will not do."""

    threshold: float | None = Field(None, description="least score kept")
    quantile: float | None = Field(None, gt=0, le=1, description="share of the corpus kept, best first")
    pairs: int | None = Field(None, gt=0, description="pairs that the experiment's source reports, for `--dry-run`")

    @model_validator(mode="after")
    def _one_of_two(self) -> SubsetRule:
        if self.threshold is not None and self.quantile is not None:
            raise ValueError("a subset is cut by its threshold or by its quantile, not by both")
        return self


class PipelineRule(Settings):
    """How a pipeline of methods shares its budget."""

    split: tuple[float, ...] = Field((), description="share of the budget of each stage; default: equal shares")


class ExperimentConfig(Settings):
    """An experiment. The defaults are those of ``make run``.

    Reports can read every accepted value: names join into folders, so none holds ``--``, and every number is bounded.
    """

    name: RunName = Field("", description="run folder; default: the subsets, joined")
    methods: tuple[str, ...] = Field(registry.DEFAULT_METHODS, min_length=1)
    plugins: tuple[str, ...] = Field(
        (), description="files of methods; a file that `methods` names is added here, with its absolute path"
    )
    subsets: tuple[str, ...] = Field(("high_aesthetic",), min_length=1)
    seeds: tuple[Seed, ...] = Field((0,), min_length=1, max_length=MOST_SEEDS)
    backbone: str = Field("tiny-sd3", description="registered name, hub id or local diffusers folder")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    offline: bool = Field(False, description="use the hub's cache alone")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="of matrix products; auto: bfloat16 where a CUDA device has it, else float32"
    )
    resolution: int | None = Field(
        None, gt=0, le=LARGEST_SIDE, description="side of a training picture; default: the suite's"
    )
    max_sequence_length: int | None = Field(
        None, gt=0, le=MOST_T5_TOKENS, description="T5 tokens; default: the backbone's, 256 for SD3.5"
    )
    corpus: CorpusName = Field("world", min_length=1, description="registered name or path")
    aspect_buckets: bool = Field(False, description="keep aspect ratios in buckets instead of cropping squares")
    text_cache_limit: str = Field("100GB", description="above this, captions are encoded ahead instead of cached")
    reward: str = Field("", description="metric that rewards; default: the one a subset was cut by, else aesthetic")
    context: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="hub ids or folders evaluated beside the base, never trained"
    )
    suite: str = "embedded"
    prompts: str = Field("", description="file of prompts, one a line, for the suite's metrics that need no facts")
    budget: str = Field(
        "flops=4.04e12", description="equal for every job; currencies: flops, updates, steps, device-seconds"
    )
    evaluations: int = Field(
        2, ge=1, le=MOST_EVALUATIONS, description="evaluations per job, at equal shares of the budget"
    )
    evaluate_at: tuple[Share, ...] = Field(
        (), max_length=MOST_EVALUATIONS, description="further shares of the budget at which a job is evaluated"
    )
    average_half_life: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="of the average of the weights that a job is evaluated with, as a share of the budget; 0: the "
        "weights that the method evaluates; default: the suite's",
    )
    micro_batch: int | Literal["auto"] | None = Field(
        None,
        description="rows worked on at a time with a graph; auto: the most that fit the GPU, by a rehearsal of each "
        "row; default: 4, and of an embedded backbone a whole share",
    )
    micro_batches: dict[str, Annotated[int, Field(gt=0, le=MOST_IMAGES)]] = Field(
        {}, description="by row of `methods`: what `auto` chose; goes over `micro_batch`"
    )
    gradient_checkpointing: bool = False
    compile: bool = Field(False, description="torch.compile the transformer's blocks")
    adam_8bit: bool = Field(False, description="optimizer states in 8 bits (bitsandbytes)")
    evaluation_batch: int = Field(48, gt=0, le=MOST_IMAGES, description="images sampled together in evaluations")
    sharding: Literal["ddp", "fsdp"] = Field("ddp", description="what several processes do with a full fine-tune")
    holdout: int | None = Field(
        None,
        ge=0,
        le=MOST_HELD_OUT,
        description="pairs that no method trains on, for measures of exposure bias; default: 256 fresh pairs of the "
        "world, none of another corpus",
    )
    probes: bool = Field(True, description="read measures of exposure bias at every evaluation")
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    method: dict[str, dict[str, Any]] = Field({}, description="per method: overrides of its configuration")
    variant: dict[str, dict[str, Any]] = Field(
        {}, description="further rows: a name → `method` and overrides of its configuration"
    )
    pipeline: dict[str, PipelineRule] = Field({}, description="per row of several stages, such as `a+b`: its split")
    subset: dict[str, SubsetRule] = Field({}, description="per subset: threshold or quantile")
    preferences: CorpusName = Field(
        "", description="corpus of preference pairs; default: the one that goes with the corpus"
    )
    tuned: Tuned | None = Field(None, description="file that `bench tune` wrote; the tables override its settings")

    @field_validator("methods", "subsets")
    @classmethod
    def _names_join_into_folders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not is_name(name) or name[0] in ".-" or name[-1] == "-" or "--" in name or name in ROWS:
                raise PydanticCustomError(
                    "name",
                    "a name becomes a part of a folder's name: it holds no '/' and no '--', has no '-' at either end, "
                    f"and is none of {', '.join(ROWS)}",
                )
        return value

    @field_validator("micro_batch", mode="plain")
    @classmethod
    def _is_a_number_of_rows(cls, value: Any) -> Any:
        number = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_IMAGES
        if not (number or value in (None, "auto")):
            raise PydanticCustomError("rows", f"a number of rows is from 1 to {MOST_IMAGES:,}, or auto")
        return value

    @field_validator("text_cache_limit")
    @classmethod
    def _is_a_size(cls, value: str) -> str:
        parse_size(value)
        return value

    @property
    def run_name(self) -> str:
        return self.name or "-".join(self.subsets)

    def stages_of(self, row: str) -> tuple[str, ...]:
        """The methods and variants that a row of ``methods`` trains with, one after the other."""
        return tuple(row.split("+"))

    @property
    def trained(self) -> tuple[str, ...]:
        """Every method and variant that some row trains with."""
        return tuple(dict.fromkeys(name for row in self.methods for name in self.stages_of(row)))

    def split_of(self, row: str) -> tuple[float, ...]:
        """Share of the budget of each stage of a row."""
        stages = len(self.stages_of(row))
        return self.pipeline.get(row, PipelineRule()).split or (1 / stages,) * stages

    def method_of(self, name: str) -> str:
        """The method behind a stage's name: a variant's, or the name itself."""
        return str(self.variant[name]["method"]) if name in self.variant else name

    def overrides_of(self, name: str) -> dict[str, Any]:
        """Configuration that this experiment gives a method or variant; a variant starts from its method's."""
        tuned_method, method, tuned_variant, own = self._layers(name)
        return tuned_method | method | tuned_variant | own

    def tuned_of(self, name: str) -> dict[str, Any]:
        """Those of ``overrides_of`` that come from the tuned file."""
        tuned_method, method, tuned_variant, own = self._layers(name)
        tuned = {key: value for key, value in tuned_method.items() if key not in method} | tuned_variant
        return {key: value for key, value in tuned.items() if key not in own}

    def _layers(self, name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Settings of the method (tuned, table), then of its variant (tuned, table). A later one overrides."""
        method, tuned = self.method_of(name), self.tuned
        own = {key: value for key, value in self.variant.get(name, {}).items() if key != "method"}
        tables = (tuned.method.get(method, {}), tuned.variant.get(name, {})) if tuned else ({}, {})
        return tables[0], self.method.get(method, {}), tables[1], own

    @property
    def fractions(self) -> tuple[float, ...]:
        """Shares of the budget at which a job is evaluated."""
        equal = ((i + 1) / self.evaluations for i in range(self.evaluations))
        return tuple(sorted({round(share, 6) for share in (*equal, *self.evaluate_at)}))

    def half_life(self, suite: Suite | None) -> float:
        """Of the average of the weights that jobs are evaluated with, as a share of the budget; 0: there is none.

        Args:
            suite: that the experiment names; None where it is not known.
        """
        if self.average_half_life is not None:
            return self.average_half_life
        return suite.average_half_life if suite else 0.0


def read_experiment(path: Path | None, flags: Mapping[str, Any], settings: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment file (if any), lay flags and ``method.key=value`` settings over it, and check every name.

    Args:
        path: of the file, or the name of a shipped experiment.

    Raises:
        BenchError: one line for an unknown experiment, key, method, subset or suite, with the nearest known name.
    """
    path = None if path is None else shipped.find(path)
    values = read_values(path, flags, ExperimentConfig, file="experiment file", key="experiment key")
    values |= _with_files(values, flags, path)
    narrowing = {key: flags[key] for key in ("methods", "subsets") if flags.get(key) is not None}
    if path is not None and narrowing:
        read_experiment(path, {key: value for key, value in flags.items() if key not in narrowing})
        values |= _tables_of(values)
    values["tuned"] = _read_tuned(values.get("tuned"), path if flags.get("tuned") is None else None)
    values["variant"] = _overlay("variant", values.get("variant", {}), ())
    kinds = {**dict.fromkeys(registry.table("subsets"), "subset"), **dict.fromkeys(values["variant"], "variant")}
    kinds |= {setting.partition(".")[0]: "pipeline" for setting in settings if "+" in setting.partition(".")[0]}
    for kind in ("subset", "variant", "pipeline", "method"):
        own = [setting for setting in settings if kinds.get(setting.partition(".")[0], "method") == kind]
        values[kind] = _overlay(kind, values.get(kind, {}), own)
    config: ExperimentConfig = validated(ExperimentConfig, values, "experiment: ")
    for name, variant in config.variant.items():
        if not re.fullmatch(r"\w[\w.]*", name) or name in registry.table("methods"):
            raise BenchError(f"a variant needs a name of its own, of letters, digits, _ and .; not {name!r}")
        if "method" not in variant:
            raise BenchError(f'[variant.{name}] does not name the method that it varies; add method = "…"')
    methods = tuple(config.method_of(name) for name in config.trained)
    unused = [name for name in config.variant if name not in config.trained]
    if unused:
        raise BenchError(f"no row of methods trains with the variant {unused[0]!r}; add it to methods, or remove it")
    rewards = (config.reward,) if config.reward else ()
    for kind, names in (
        ("methods", methods), ("subsets", config.subsets), ("suites", (config.suite,)), ("metrics", rewards),
    ):  # fmt: skip
        for name in names:
            if name not in registry.table(kind):
                raise unknown(kind.rstrip("s"), name, registry.table(kind))
    for field in ("methods", "subsets", "seeds", "context"):
        if len(set(getattr(config, field))) < len(getattr(config, field)):
            raise BenchError(f"{field} names something twice: {', '.join(map(str, getattr(config, field)))}")
    for kind, tables, chosen in (
        ("method", config.method, methods), ("subset", config.subset, config.subsets),
        ("pipeline", config.pipeline, config.methods), ("micro-batch", config.micro_batches, config.methods),
    ):  # fmt: skip
        for name in tables:
            if name not in chosen:
                raise unknown(f"{kind} in settings", name, chosen)
    for name in config.subsets:
        rule, subset = config.subset.get(name, SubsetRule()), registry.load("subsets", name)
        subset.check(rule.threshold, rule.quantile)
    for row in config.methods:
        _check_stages(row, config.stages_of(row), config.split_of(row))
    Budget.parse(config.budget)
    if config.tuned:
        check_tuned(config.tuned, backbone=config.backbone, suite=config.suite, seeds=config.seeds)
    return config


def _tables_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an experiment file that holds, without those of rows and subsets that flags have left out."""
    fields, variants = ExperimentConfig.model_fields, values.get("variant", {})
    rows, subsets = (values.get(key, fields[key].default) for key in ("methods", "subsets"))
    stages = {stage for row in rows for stage in plugins.stages_of(row)}
    behind = {variants[stage]["method"] if stage in variants else stage for stage in stages}
    names = {
        "variant": stages,
        "method": behind,
        "pipeline": set(rows),
        "subset": set(subsets),
        "micro_batches": set(rows),
    }
    return {
        kind: {name: table for name, table in values[kind].items() if name in chosen}
        for kind, chosen in names.items()
        if kind in values
    }


def _read_tuned(value: Any, experiment: Path | None) -> Any:
    """The tuned settings that a path names, from the experiment file's folder where it stands in one; "" names none."""
    if not isinstance(value, str):
        return value
    return read_tuned((experiment.parent if experiment else Path()) / value) if value else None


def _with_files(values: Mapping[str, Any], flags: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    """Register the methods that are given by their files; returns ``methods`` by name, and ``plugins``.

    Relative paths start at the experiment file's folder where they stand in it, and at the working directory elsewhere.
    """
    methods, files = values.get("methods", ()), values.get("plugins", ())
    if not all(
        isinstance(names, list | tuple) and all(isinstance(n, str) for n in names) for names in (methods, files)
    ):
        return {}  # refused with everything else that has the wrong type
    beside = path.parent if path is not None else None
    folder = beside if flags.get("methods") is None else None
    rows = [plugins.stages_of(name) for name in methods]
    method_files = [part for row in rows for part in row if plugins.is_path(part)]
    paths = [plugins.path_of(file, beside) for file in files] + [plugins.path_of(file, folder) for file in method_files]
    if not paths:
        return {}
    plugins.register_all(paths)
    named = ("+".join(plugins.named(part, folder) for part in row) for row in rows)
    return {"plugins": tuple(dict.fromkeys(map(str, paths)))} | ({"methods": tuple(named)} if method_files else {})


def settings_of(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """Overrides of one method from ``key=value`` or ``name.key=value`` settings. BenchError for anything else."""
    own = [setting if setting.startswith(f"{name}.") else f"{name}.{setting}" for setting in settings]
    return _overlay("method", {}, own).get(name, {})


def _check_stages(row: str, stages: tuple[str, ...], split: tuple[float, ...]) -> None:
    """BenchError unless a row's stages differ and its split gives each a share of the budget, and all of it."""
    if len(set(stages)) < len(stages):
        raise BenchError(f"{row} trains twice with the same stage; give one of them a name of its own under [variant]")
    if len(split) != len(stages) or not (all(share > 0 for share in split) and abs(sum(split) - 1) <= 1e-6):
        raise BenchError(f"the split of {row} takes {len(stages)} shares above 0 that add up to 1, not {list(split)}")


def _overlay(kind: str, tables: Any, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    if not isinstance(tables, Mapping) or not all(isinstance(table, Mapping) for table in tables.values()):
        raise BenchError(f"the experiment's `{kind}` takes tables, e.g. [{kind}.NAME] with key = value")
    merged = {name: dict(overrides) for name, overrides in tables.items()}
    for setting in settings:
        target, equals, text = setting.partition("=")
        name, dot, key = target.partition(".")
        if not (equals and dot and key):
            raise BenchError(f"--set takes name.key=value, not {setting!r}")
        merged.setdefault(name, {})[key] = _value(text, target)
    return merged


def _value(text: str, target: str) -> Any:
    """The value of a ``--set``: as TOML where it is one, else the text itself."""
    try:
        values = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        values = {}
    except (RecursionError, ValueError):
        values = read_toml(f"value = {text}", f"--set {target} is")
    value = values["value"] if values.keys() == {"value"} else text
    check_value(value, f"--set {target}")
    return value


def rows_at_once(config: ExperimentConfig, scale: str, row: str) -> int | None:
    """Rows of a micro-batch of a row of ``methods``: as the user says, or as ``auto`` chose.

    Else ``RELEASED_ROWS`` of a full-size backbone, and a whole share (None) of another. So it is for ``auto`` that has
    not chosen yet: in a plan, and in the rehearsal that it chooses by.
    """
    asked = config.micro_batches.get(row) or config.micro_batch
    if isinstance(asked, int):
        return asked
    return None if scale == "embedded" else RELEASED_ROWS


def method_config(method: Any, scale: str, overrides: Mapping[str, Any]) -> MethodConfig:
    """A method's configuration: its defaults, its embedded overrides where they apply, then the user's."""
    base = dict(method.embedded) if scale == "embedded" else {}
    for key in overrides:
        if key not in method.Config.model_fields:
            raise unknown("configuration key", key, method.Config.model_fields)
    config: MethodConfig = validated(method.Config, base | dict(overrides), f"{method.Config.__name__}: ")
    return config
