"""A file of tuned settings. ``bench tune`` writes it and an experiment reads it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.errors import BenchError
from bench.experiment.toml import Settings, read_toml, validated
from bench.machine.bounds import LARGEST_SCALE


class TunedRow(Settings):
    """How the settings of one row were chosen, and its own scale of guidance.

    The medians are of the objective over the fresh seeds: of the chosen setting, and of the one before tuning.
    """

    trials: int = Field(gt=0, description="that it had")
    confirmed: int = Field(0, ge=0, description="trials among them that were run again on fresh seeds")
    median: float | None = Field(None, description="of the chosen setting over the fresh seeds")
    default_median: float | None = Field(None, description="of the setting before tuning; none where that failed")
    guidance_scale: float | None = Field(
        None, ge=1, le=LARGEST_SCALE, description="the best of `scales`; none where none was tried"
    )


class Tuned(Settings):
    """Settings that were chosen among trials, and how they were chosen."""

    trials: int = Field(gt=0, description="of each row; the first is its setting before tuning")
    suite: str = Field(description="whose prompts chose")
    objective: str = Field(description="what was best: a metric, or the mean over the ranked columns")
    seed: int = Field(description="of the trials' jobs and of the search")
    confirmation_seeds: tuple[int, ...] = Field((), description="on which the best trials were run again")
    scales: tuple[float, ...] = Field((), description="of guidance, among which each row's own was chosen")
    budget: str = Field(description="of each trial")
    backbone: str
    corpus: str
    subsets: tuple[str, ...]
    prompts: tuple[str, ...] = Field(
        (), description="keys (``prompt_key``) of the prompts that the settings were chosen on"
    )
    method: dict[str, dict[str, Any]] = Field({})
    variant: dict[str, dict[str, Any]] = Field({})
    row: dict[str, TunedRow] = Field({}, description="by method or variant; older files have none")
    sha256: str = Field("", description="of the file; not in it")

    def record(self) -> dict[str, Any]:
        """How the settings were chosen, without them; what an older file lacks is left out."""
        values = self.model_dump(mode="json", exclude={"method", "variant", "row", "prompts"})
        return {key: value for key, value in values.items() if value != []}

    def about(self, name: str, method: str) -> dict[str, Any]:
        """How the settings of a variant, else of its method, were chosen, without what is not known."""
        row = self.row.get(name) or self.row.get(method)
        return row.model_dump(exclude_none=True) if row else {}

    def check_prompts(self, texts: Iterable[str], suite: str) -> None:
        """BenchError if the settings were chosen on a prompt that a suite reports."""
        keys = set(self.prompts)
        if shared := next((text for text in texts if prompt_key(text) in keys), None):
            raise BenchError(
                f"the settings were tuned on prompts that {suite} reports, {shared!r} among them, so its "
                "scores would be unfair; tune on other prompts"
            )


def prompt_key(text: str) -> str:
    """Sixteen digits that stand for a prompt. Capitals and the number of spaces do not change them."""
    plain = re.sub(r"\s+", " ", text.strip()).casefold()
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def read_tuned(path: Path) -> Tuned:
    """Read a file of tuned settings. BenchError, one line, for a missing file or one of another kind.

    Every table of settings has one that says how it was chosen, and the reverse; older files have none of the latter.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BenchError(
            f"the tuned settings {path} cannot be read ({error.strerror}); `bench tune` writes them"
        ) from error
    values = read_toml(data, f"the tuned settings {path} are")
    tuned: Tuned = validated(Tuned, values | {"sha256": hashlib.sha256(data).hexdigest()}, f"{path}: ")
    settings = tuned.method.keys() | tuned.variant.keys()
    if tuned.row and (odd := sorted(settings ^ tuned.row.keys())):
        lacks = "settings but no [row] table" if odd[0] in settings else "a [row] table but no settings"
        raise BenchError(f"{path} holds {lacks} of {odd[0]!r}; was a name changed by hand?")
    return tuned


def to_toml(tuned: Tuned) -> str:
    """The file's text."""
    lines = ['# Written by `bench tune`. An experiment reads it with `tuned = "…"` or --tuned; see docs/tuning.md.']
    lines += [f"{key} = {_value(value)}" for key, value in tuned.record().items() if key != "sha256"]
    rows = (tuned.prompts[i : i + 6] for i in range(0, len(tuned.prompts), 6))
    keys = [f"    {', '.join(map(_value, row))}," for row in rows]
    lines += ["prompts = [ # the first digits of the SHA-256 of each", *keys, "]"]
    for kind in ("method", "variant"):
        for name, settings in getattr(tuned, kind).items():
            lines += _table(kind, name, settings)
    for name in tuned.row:
        lines += _table("row", name, tuned.about(name, name))
    return "\n".join(lines) + "\n"


def _table(kind: str, name: str, values: Mapping[str, Any]) -> list[str]:
    return ["", f"[{kind}.{_key(name)}]", *(f"{key} = {_value(value)}" for key, value in values.items())]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else json.dumps(name)


def _value(value: Any) -> str:
    """A string, number or list; JSON writes them as TOML does."""
    return json.dumps(value, ensure_ascii=False)


def check_tuned(tuned: Tuned, *, backbone: str, suite: str, seeds: tuple[int, ...]) -> None:
    """BenchError for settings of another model, and for settings that were tuned on the experiment's own tests."""
    if tuned.backbone != backbone:
        raise BenchError(f"the tuned settings are those of {tuned.backbone}, not of {backbone}; tune on {backbone}")
    if tuned.suite == suite:
        raise BenchError(
            f"the settings were tuned on the suite {suite}, so its scores would be unfair; report another suite"
        )
    if used := [seed for seed in (tuned.seed, *tuned.confirmation_seeds) if seed in seeds]:
        raise BenchError(f"the settings were tuned on seed {used[0]}, so its jobs would be unfair; leave that seed out")
