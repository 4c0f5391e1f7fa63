"""Settings from a TOML file with flags over it, held against a pydantic model. Whatever is wrong ends in one line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import BenchError, unknown


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
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError as error:
            raise BenchError(f"the {file} {path} is not there") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BenchError(f"the {file} {path} is no valid TOML: {error}") from error
    values |= {name: value for name, value in flags.items() if value is not None}
    for name in values:
        if name not in model.model_fields:
            raise unknown(key, name, model.model_fields)
    return values


def validated(model: type[Any], values: Mapping[str, Any], prefix: str) -> Any:
    """An instance of a pydantic model. BenchError for the first value that cannot be, which ``prefix`` begins."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BenchError(f"{prefix}{where}: {first['msg']} (got {first.get('input')!r})") from error
