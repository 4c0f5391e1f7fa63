"""A file of tuned settings. ``bench tune`` writes it and an experiment reads it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.errors import BenchError
from bench.experiment.toml import Settings, read_toml, validated


class Tuned(Settings):
    """Settings that were chosen among trials, and how they were chosen."""

    trials: int = Field(gt=0, description="of each row; the first is its setting before tuning")
    suite: str = Field(description="whose prompts chose")
    objective: str = Field(description="what was best: a metric, or the mean over the ranked columns")
    seed: int = Field(description="of the trials' jobs and of the search")
    budget: str = Field(description="of each trial")
    backbone: str
    corpus: str
    subsets: tuple[str, ...]
    prompts: tuple[str, ...] = Field(
        (), description="keys (``prompt_key``) of the prompts that the settings were chosen on"
    )
    method: dict[str, dict[str, Any]] = Field({})
    variant: dict[str, dict[str, Any]] = Field({})
    sha256: str = Field("", description="of the file; not in it")

    def record(self) -> dict[str, Any]:
        """How the settings were chosen, without them."""
        return self.model_dump(mode="json", exclude={"method", "variant", "prompts"})

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
    """Read a file of tuned settings. BenchError, one line, for a missing file or one of another kind."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BenchError(
            f"the tuned settings {path} cannot be read ({error.strerror}); `bench tune` writes them"
        ) from error
    values = read_toml(data, f"the tuned settings {path} are")
    tuned: Tuned = validated(Tuned, values | {"sha256": hashlib.sha256(data).hexdigest()}, f"{path}: ")
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
            lines += ["", f"[{kind}.{_key(name)}]", *(f"{key} = {_value(value)}" for key, value in settings.items())]
    return "\n".join(lines) + "\n"


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
    if tuned.seed in seeds:
        raise BenchError(
            f"the settings were tuned on seed {tuned.seed}, so its jobs would be unfair; leave that seed out"
        )
