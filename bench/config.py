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


class ExperimentConfig(BaseModel):
    """An experiment. The defaults are the embedded one that ``make run`` runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("", pattern=r"^[\w.-]*$", description="run folder; default: the subsets, joined")
    methods: tuple[str, ...] = Field(("sft", "soar", "flow_grpo"), min_length=1)
    subsets: tuple[str, ...] = Field(("high_aesthetic",), min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    backbone: str = "tiny-sd3"
    corpus: str = "world"
    suite: str = "embedded"
    budget: str = Field("flops=1.5e13", description="equal for every job; currencies: flops, steps, device-seconds")
    evaluations: int = Field(3, ge=1, description="evaluations per job, at equal shares of the budget")
    method: dict[str, dict[str, Any]] = Field({}, description="per method: overrides of its configuration")

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
        except tomllib.TOMLDecodeError as error:
            raise BenchError(f"the experiment file {path} is no valid TOML: {error}") from error
    values |= {key: value for key, value in flags.items() if value is not None}
    for key in values:
        if key not in ExperimentConfig.model_fields:
            raise unknown("experiment key", key, ExperimentConfig.model_fields)
    values["method"] = _overlay(values.get("method", {}), settings)
    config: ExperimentConfig = _validated(ExperimentConfig, values, "experiment")
    for kind, names in (("methods", config.methods), ("subsets", config.subsets), ("suites", (config.suite,))):
        for name in names:
            if name not in registry.table(kind):
                raise unknown(kind.rstrip("s"), name, registry.table(kind))
    for name in config.method:
        if name not in config.methods:
            raise unknown("method in settings", name, config.methods)
    Budget.parse(config.budget)
    return config


def _overlay(method: Any, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    merged = {name: dict(overrides) for name, overrides in dict(method).items()}
    for setting in settings:
        target, equals, text = setting.partition("=")
        name, dot, key = target.partition(".")
        if not (equals and dot and key):
            raise BenchError(f"--set takes method.key=value, not {setting!r}")
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
