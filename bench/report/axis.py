"""What a sweep varies: one setting of the sampler along an axis, and any others in the names of its lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.records.schema import SamplerRecord
from bench.report.study import StudiedJob
from bench.sampling.names import REMEDIES, SOLVERS

ORDER: Final = ("steps", "guidance_scale", "remedy", "solver")
"""Settings of a sampler; of those that differ, the first is the axis."""

GUIDANCE: Final = "guidance_scale"

_SPELLED = "|".join(re.escape(name.replace("+", "p")) for name in SOLVERS)
_SUFFIX = re.compile(rf"(--(n\d+|cfg[\d.]+|{_SPELLED}|({'|'.join(REMEDIES)})-[\w.-]+?))+$")
"""What ``bench evaluate`` adds to a row's folder for each setting."""


@dataclass(frozen=True)
class Axis:
    """A setting with the values that occur, in order. Numbers are their own place on a plot; names are counted.

    Attributes:
        own: the suite's value.
        beside: the other settings that differ.
    """

    setting: str
    values: tuple[Any, ...]
    own: Any
    beside: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What a plot calls it."""
        return {"guidance_scale": "guidance scale", "steps": "sampling steps"}.get(self.setting, self.setting)

    @property
    def noun(self) -> str:
        """The setting in a title."""
        return "guidance" if self.setting == GUIDANCE else self.title

    @property
    def ticks(self) -> list[str]:
        """What stands at each place of a plot."""
        return [f"{value:g}" if isinstance(value, int | float) else str(value) or "none" for value in self.values]

    def place(self, value: Any) -> float:
        """Where a value stands."""
        return float(value) if isinstance(value, int | float) else float(self.values.index(value))

    @property
    def places(self) -> list[float]:
        """Where all of them stand."""
        return [self.place(value) for value in self.values]

    @property
    def own_place(self) -> float | None:
        """Where the suite's value stands; None where names are swept and it is none of them."""
        return self.place(self.own) if isinstance(self.own, int | float) or self.own in self.values else None

    def label(self, place: float) -> str:
        """A column's heading."""
        (value,) = (value for value in self.values if self.place(value) == place)
        return named(self.setting, value)

    def of(self, job: StudiedJob) -> float:
        """Where a row stands."""
        return self.place(setting(job, self.setting))

    def variant(self, job: StudiedJob) -> str:
        """The other settings of a row that differ among rows."""
        return ", ".join(named(name, setting(job, name)) for name in self.beside)


def named(name: str, value: Any) -> str:
    """A setting in words."""
    if name == "guidance_scale":
        return f"CFG {value:g}"
    if name == "steps":
        return f"{value:g} steps"
    return str(value) or "no remedy"


def setting(job: StudiedJob, name: str) -> Any:
    """A setting of the sampler that a row of a sweep was drawn with; records leave usual ones out."""
    usual = {"solver": "euler", "remedy": ""}
    sampler: dict[str, Any] = usual | {key: v for key, v in (job.made.get("sampler") or {}).items() if v is not None}
    value = sampler.get(name)
    return float(value) if name == GUIDANCE and value is not None else value


def axis_of(swept: Sequence[StudiedJob], sampler: SamplerRecord) -> Axis:
    """What these rows of a sweep differ in; guidance where they differ in nothing."""
    settings = {name: list(dict.fromkeys(setting(job, name) for job in swept)) for name in ORDER}
    differing = [name for name in ORDER if len(settings[name]) > 1]
    chosen = differing[0] if differing else GUIDANCE
    values = settings[chosen] if chosen in ("remedy", "solver") else sorted(settings[chosen])
    return Axis(chosen, tuple(values), getattr(sampler, chosen), tuple(differing[1:]))


def model_of(job: StudiedJob) -> str:
    """A row's folder without what its settings added: all rows of a model share it."""
    return _SUFFIX.sub("", job.name)
