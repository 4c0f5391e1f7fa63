"""Settings from a TOML file with flags over it, held against a pydantic model. Whatever is wrong ends in one line."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from bench.errors import BenchError, of_path, shortened, unknown
from bench.machine.bounds import DEEPEST_SETTING, LARGEST_INTEGER, LONGEST_NAME


class Settings(BaseModel):
    """Base of what a command is given: frozen, closed to unknown keys, and without infinite numbers or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _names_a_run(value: str) -> str:
    if not re.fullmatch(r"(\w[\w.-]*)?", value):
        raise PydanticCustomError(
            "run_name", "a name of a run holds letters, digits, _, . and -, and begins with no . or -"
        )
    return value


RunName = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_names_a_run)]
"""A name that becomes the folder of a run and of its report. It may be empty: then there is a default."""

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(text: str) -> int:
    """Bytes of ``40GB``, ``1.5 TB`` or ``512MiB``. Raises BenchError for anything else."""
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([a-z]+)\s*", text, re.IGNORECASE | re.ASCII)
    if match is None or match[2].upper() not in _UNITS:
        raise BenchError(
            f"{shortened(text, 80)!r} is no size; write a number and a unit (B, KB, MB, GB or TB), such as 40GB"
        )
    return round(float(match[1]) * _UNITS[match[2].upper()])


def read_values(
    path: Path | None, flags: Mapping[str, Any], model: type[Any], *, file: str, key: str
) -> dict[str, Any]:
    """The values of a TOML file (if any) under those flags that are not None.

    Args:
        model: whose fields are the known keys.
        file, key: what errors call the file and one of its keys.

    Raises:
        BenchError: one line for a missing or damaged file, or an unknown key, with the nearest known one.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise BenchError(f"the {file} {path} is not there") from error
        except OSError as error:
            raise BenchError(f"the {file} cannot be read: {of_path(error, path)}") from error
        values = read_toml(data, f"the {file} {path} is")
    values |= {name: value for name, value in flags.items() if value is not None}
    for name in values:
        if name not in model.model_fields:
            raise unknown(key, name, model.model_fields)
        check_value(values[name], f"{key} {name}")
    return values


def read_toml(data: str | bytes, what: str) -> dict[str, Any]:
    """The values of a TOML text. BenchError, which begins with ``what``, for other texts and for too deep nesting."""
    try:
        return tomllib.loads(data.decode("utf-8-sig") if isinstance(data, bytes) else data)
    except RecursionError as error:
        raise BenchError(f"{what} nested more than {DEEPEST_SETTING} deep, which no setting is") from error
    except ValueError as error:
        # A plain ValueError is Python's own, of a number with more digits than it reads.
        reason = "it holds a number of too many digits" if type(error) is ValueError else error
        raise BenchError(f"{what} no valid TOML: {reason}") from error


def check_value(value: Any, where: str) -> None:
    """BenchError unless a setting is something that every part of the program, and every record, can hold.

    No number is infinite, NaN or beyond 64 bits; no text holds what no file can record; nothing nests too deep.
    """
    for depth, part in _parts(value):
        if depth > DEEPEST_SETTING:
            raise BenchError(f"{where} is nested more than {DEEPEST_SETTING} deep, which no setting is")
        if isinstance(part, float) and not math.isfinite(part):
            raise BenchError(f"{where} is {part}; give a finite number")
        if isinstance(part, int) and abs(part) > LARGEST_INTEGER:
            raise BenchError(f"{where} is a whole number of more than 64 bits; give a smaller one")
        if isinstance(part, str) and (bad := re.search("[\0\ud800-\udfff]", part)):
            raise BenchError(f"{where} is {shortened(part, 80)}, with the character {bad[0]!r} that no record can hold")


def _parts(value: Any) -> Iterator[tuple[int, Any]]:
    """A value and everything in it, each with its depth; not deeper than one level beyond ``DEEPEST_SETTING``."""
    left = [(0, value)]
    while left:
        depth, part = left.pop()
        yield depth, part
        if isinstance(part, Mapping):
            left += [(depth + 1, held) for pair in part.items() for held in pair]
        elif isinstance(part, list | tuple):
            left += [(depth + 1, held) for held in part]


def validated(model: type[Any], values: Mapping[str, Any], prefix: str) -> Any:
    """An instance of a pydantic model. BenchError, which begins with ``prefix``, for the first invalid value."""
    for name, value in values.items():
        check_value(value, f"{prefix}{name}")
    try:
        made = model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        got = shortened(repr(first.get("input")), 200)
        raise BenchError(f"{prefix}{where}: {first['msg']} (got {got})") from error
    for name, value in values.items():
        if _counts_truth(value, getattr(made, name, None)):
            got = shortened(repr(value), 200)
            raise BenchError(f"{prefix}{name}: true and false are no numbers (got {got})")
    return made


def _counts_truth(given: Any, made: Any) -> bool:
    """Whether pydantic has made a number of true or false, which it takes for 1 and 0."""
    match given:
        case bool():
            return isinstance(made, int | float) and not isinstance(made, bool)
        case Mapping():
            held = made if isinstance(made, Mapping) else vars(made) if isinstance(made, BaseModel) else {}
            return any(_counts_truth(part, held.get(key)) for key, part in given.items())
        case list() | tuple() if isinstance(made, list | tuple) and len(given) == len(made):
            return any(map(_counts_truth, given, made))
    return False
