"""What a row of an experiment trains with: one method, or several in a row from each other's weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from typing import Any

from bench import plugins
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig, method_config
from bench.method import MethodConfig, Needs, PostTrainingMethod
from bench.plugins.blame import MethodFiles


@dataclass(frozen=True)
class Stage:
    """One method with its configuration.

    Attributes:
        name: as the experiment calls it: a method's, or a variant's.
        origin: where the method comes from, as ``plugins.origin`` says.
        end: share of the job's budget at which it ends.
    """

    name: str
    method: type[PostTrainingMethod]
    config: MethodConfig
    origin: Any
    end: float = 1.0

    @property
    def needs(self) -> Needs:
        """What it must be given. Raises BenchError if the method raises where it should say so."""
        try:
            return self.method.needs_of(self.config)
        except Exception as error:  # whatever a stranger's method raises
            place = MethodFiles.of(self.method).of_error(error)
            at = f"{place}: " if place else ""
            raise BenchError(f"{at}{self.name}.needs_of raises {plugins.one_line(error)}") from error

    def make(self) -> PostTrainingMethod:
        """A fresh method."""
        return self.method(self.config)


@dataclass(frozen=True)
class Recipe:
    """The stages of a row, in their order."""

    stages: tuple[Stage, ...]

    @property
    def needs(self) -> Needs:
        """What any of them must be given."""
        each = [asdict(stage.needs) for stage in self.stages]
        return Needs(**{field.name: any(needs[field.name] for needs in each) for field in fields(Needs)})

    def record(self) -> dict[str, Any]:
        """The part of ``job.json`` that says what trains: ``config``, ``needs``, ``traits`` and ``stages``.

        A pipeline's ``config`` holds its stages' by name; its ``traits`` are theirs, one after the other where they
        differ.
        """
        needs = asdict(self.needs)
        configs = {stage.name: stage.config.model_dump(mode="json") for stage in self.stages}
        traits = [asdict(stage.method.traits) for stage in self.stages]
        if len(self.stages) == 1:
            (stage,) = self.stages
            about = {"config": configs[stage.name], "origin": stage.origin, "stages": None}
            return {"needs": needs, "traits": traits[0]} | about
        joined = {key: ", then ".join(dict.fromkeys(each[key] for each in traits)) for key in traits[0]}
        stages = [{"name": stage.name, "end": stage.end, "origin": stage.origin} for stage in self.stages]
        return {"needs": needs, "traits": joined, "config": configs, "origin": None, "stages": stages}


def recipe(config: ExperimentConfig, row: str, scale: str) -> Recipe:
    """What a row trains with, on a backbone of this scale (``embedded`` or ``full``).

    Raises:
        BenchError: one line for a configuration that does not hold.
    """
    stages = []
    for name, end in zip(config.stages_of(row), accumulate(config.split_of(row)), strict=True):
        behind = config.method_of(name)
        method = plugins.load(behind)
        settings = method_config(method, scale, config.overrides_of(name))
        stages.append(Stage(name, method, settings, plugins.origin(behind), round(end, 9)))
    return Recipe(tuple(stages))
