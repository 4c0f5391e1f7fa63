"""The rows of one subject: one, or one for each sampler of a sweep, all on the same prompts and noise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import records
from bench.evaluate.subjects import Subject
from bench.experiment.recorded import DRAWN_UNTRAINED, NOT_TRAINED

if TYPE_CHECKING:
    from bench.evaluate.config import EvaluationConfig
    from bench.suite import Suite


@dataclass(frozen=True)
class EvaluatedRow:
    """One line of ``runs/``: a subject, drawn as its ``suite`` says.

    ``about`` is what its record holds of a sweep. ``training`` says which job of a run it is, where it is one that the
    suite's own sampler draws.
    """

    suite: Suite
    folder: Path
    label: str
    about: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None

    @property
    def evaluation(self) -> Path:
        return self.folder / NOT_TRAINED

    @property
    def drawn(self) -> bool:
        return (self.folder / DRAWN_UNTRAINED).exists()


def chosen(config: EvaluationConfig) -> dict[str, tuple[Any, ...]]:
    """The sampler's settings that a command names, with their values, in the order of folders and labels."""
    named = {
        "steps": config.steps,
        "levels": config.levels,
        "solver": config.solver,
        "remedy": config.remedy,
        "guidance_scale": config.guidance,
    }
    return {name: values for name, values in named.items() if values}


def swept_by(config: EvaluationConfig) -> str:
    """The first flag that a command changes the sampler with, or nothing."""
    flags = (f"--{name}".replace("_scale", "") for name in chosen(config))
    return next(flags, "")


def rows_of(config: EvaluationConfig, suite: Suite, run: Path, subject: Subject) -> list[EvaluatedRow]:
    """A subject's row, or one for each combination of the settings that are named.

    A single remedy is a row beside the others, and no sweep: it is held against them in the main table.
    """
    folder, axes = run / f"{records.EVALUATED}--{subject.slug}", chosen(config)
    job = subject.job()
    about = {"sweep": {"name": subject.label, **(job or {})}}
    plain = not axes or (set(axes) == {"remedy"} and len(config.remedy) == 1)
    rows = []
    for values in product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        parts, names = zip(*(_spelled(*setting) for setting in settings.items()), strict=True) if axes else ((), ())
        rows.append(
            EvaluatedRow(
                replace(suite, sampler=replace(suite.sampler, **settings)),
                folder.with_name("--".join((folder.name, *parts))),
                ", ".join((subject.label, *names)),
                {} if plain else about,
                None if axes else job,
            )
        )
    return rows


def _spelled(setting: str, value: Any) -> tuple[str, str]:
    """A setting as a part of a folder's name, and in a row's label."""
    if setting == "steps":
        return f"n{value}", f"{value} steps"
    if setting == "guidance_scale":
        return f"cfg{value:g}", f"CFG {value:g}"
    return str(value).replace("+", "p").replace("=", "-").replace(":", "-"), str(value)
