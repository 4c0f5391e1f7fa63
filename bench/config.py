"""What one command runs: an experiment, from a TOML file, from flags, or from both."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench import registry
from bench.budget import Budget
from bench.errors import BenchError, unknown
from bench.method import MethodConfig


class SubsetRule(BaseModel):
    """How a subset is cut in this experiment, where its own threshold or the corpus's quantile will not do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float | None = Field(None, description="least score kept")
    quantile: float | None = Field(None, gt=0, le=1, description="share of the corpus kept, best first")


class ExperimentConfig(BaseModel):
    """An experiment. The defaults are the embedded one that ``make run`` runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("", pattern=r"^(\w[\w.-]*)?$", description="run folder; default: the subsets, joined")
    methods: tuple[str, ...] = Field(
        default_factory=lambda: tuple(registry.BUILT_IN["methods"]),
        min_length=1,
        description="default: all built-in ones",
    )
    subsets: tuple[str, ...] = Field(("high_aesthetic",), min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    backbone: str = "tiny-sd3"
    corpus: str = "world"
    suite: str = "embedded"
    budget: str = Field("flops=7.07e12", description="equal for every job; currencies: flops, steps, device-seconds")
    evaluations: int = Field(3, ge=1, description="evaluations per job, at equal shares of the budget")
    method: dict[str, dict[str, Any]] = Field({}, description="per method: overrides of its configuration")
    subset: dict[str, SubsetRule] = Field({}, description="per subset: threshold or quantile")

    @property
    def run_name(self) -> str:
        return self.name or "-".join(self.subsets)

    @property
    def fractions(self) -> tuple[float, ...]:
        """Shares of the budget at which a job is evaluated."""
        return tuple(round((i + 1) / self.evaluations, 6) for i in range(self.evaluations))


def read_experiment(path: Path | None, flags: Mapping[str, Any], settings: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment file (if any), lay flags and ``method.key=value`` settings over it, and check every name.

    Raises:
        BenchError: one line for an unknown key, method, subset or suite, with the nearest known name.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BenchError(f"the experiment file {path} is not there") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BenchError(f"the experiment file {path} is no valid TOML: {error}") from error
    values |= {key: value for key, value in flags.items() if value is not None}
    for key in values:
        if key not in ExperimentConfig.model_fields:
            raise unknown("experiment key", key, ExperimentConfig.model_fields)
    rules = [setting for setting in settings if setting.partition(".")[0] in registry.table("subsets")]
    values["subset"] = _overlay("subset", values.get("subset", {}), rules)
    values["method"] = _overlay("method", values.get("method", {}), [s for s in settings if s not in rules])
    config: ExperimentConfig = _validated(ExperimentConfig, values, "experiment")
    for kind, names in (("methods", config.methods), ("subsets", config.subsets), ("suites", (config.suite,))):
        for name in names:
            if name not in registry.table(kind):
                raise unknown(kind.rstrip("s"), name, registry.table(kind))
    for field in ("methods", "subsets", "seeds"):
        if len(set(getattr(config, field))) < len(getattr(config, field)):
            raise BenchError(f"{field} names something twice: {', '.join(map(str, getattr(config, field)))}")
    for kind, tables, chosen in (("method", config.method, config.methods), ("subset", config.subset, config.subsets)):
        for name in tables:
            if name not in chosen:
                raise unknown(f"{kind} in settings", name, chosen)
    Budget.parse(config.budget)
    return config


def _overlay(kind: str, tables: Any, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    if not isinstance(tables, Mapping) or not all(isinstance(table, Mapping) for table in tables.values()):
        raise BenchError(f"the experiment's `{kind}` takes tables, e.g. [{kind}.NAME] with key = value")
    merged = {name: dict(overrides) for name, overrides in tables.items()}
    for setting in settings:
        target, equals, text = setting.partition("=")
        name, dot, key = target.partition(".")
        if not (equals and dot and key):
            raise BenchError(f"--set takes name.key=value, not {setting!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        merged.setdefault(name, {})[key] = value
    return merged


def method_config(method: Any, scale: str, overrides: Mapping[str, Any]) -> MethodConfig:
    """A method's configuration: its defaults, its embedded overrides where they apply, then the user's."""
    base = dict(method.embedded) if scale == "embedded" else {}
    for key in overrides:
        if key not in method.Config.model_fields:
            raise unknown("configuration key", key, method.Config.model_fields)
    config: MethodConfig = _validated(method.Config, base | dict(overrides), method.Config.__name__)
    return config


def _validated(model: type[Any], values: Mapping[str, Any], what: str) -> Any:
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BenchError(f"{what}: {where}: {first['msg']} (got {first.get('input')!r})") from error
