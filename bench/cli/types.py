"""How the text of an argument is read: as a path, a number or names. What is none of these ends the command at once."""

from __future__ import annotations

import errno
import math
import os
import stat
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bench.errors import BenchError, of_path, shortened


class Place(click.Path):
    """A path: text that can name a file. With ``folder``, no file stands where the folder is or is to be made."""

    def __init__(self, *, folder: bool = False) -> None:
        super().__init__(path_type=Path)
        self._folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        text = os.fspath(value)
        if not text or "\0" in text:
            self.fail(f"{text!r} names no file", param, ctx)
        path = Path(text)
        try:
            if self._folder:
                check_folder(path)
            else:
                path.stat()
        except OSError as error:
            if self._folder or error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                raise of_path(error, path) from error
        return path  # whether a file is there, and which, the command says in its own words


def check_folder(path: Path) -> None:
    """Raises OSError unless a path is a folder, or one that can be made: its first part that is there is a folder."""
    for place in (path, *path.absolute().parents):
        try:
            mode = place.stat().st_mode
        except FileNotFoundError:
            if place.is_symlink():  # to nowhere: no folder can be made there
                raise NotADirectoryError(errno.ENOTDIR, "", str(place)) from None
            continue
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, "", str(place))
        return


class Number(click.FloatRange):
    """A finite number within bounds; a ``FloatRange`` takes NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


class Rows(click.ParamType):
    """A whole number, or ``auto``."""

    name = "integer|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{shortened(value, 80)!r} is no whole number, and not auto", param, ctx)


class Text(click.types.StringParamType):
    """A text that says something. An empty one, as of a shell's variable that is not set, would count as none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        typed = param is not None and ctx is not None and ctx.get_parameter_source(str(param.name)) in TYPED
        if value == "" and typed:
            self.fail("it is empty; give it a value, or leave it out", param, ctx)
        return super().convert(value, param, ctx)


class MaybeEmpty(click.types.StringParamType):
    """A text that may be empty: that takes away what an experiment file names."""


TYPED = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def refuse_empty(command: click.Command) -> None:
    """Give every option and argument of a command, and of those below it, that takes any text the type ``Text``."""
    for param in command.params:
        if type(param.type) is click.types.StringParamType:
            param.type = Text()
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        refuse_empty(below)


ROWS = Rows()
MAYBE_EMPTY = MaybeEmpty()
PATH = Place()
FOLDER = Place(folder=True)


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Names with commas between, as a callback of an option; none for an empty default."""
    if value is None:
        return None
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    if value and not parts:
        raise BenchError(f"{param.opts[0]} takes names with commas between, not {shortened(value, 80)!r}")
    return parts


def scales(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Scales of classifier-free guidance with commas between, each once, as a callback of an option."""
    if value is None:
        return None
    try:
        parts = tuple(float(part) for part in value.split(","))
    except ValueError:
        parts = ()
    if not parts or not all(1 <= s < math.inf for s in parts) or len({f"{s:g}" for s in parts}) < len(parts):
        raise BenchError(
            "--guidance takes numbers of at least 1 with commas between, each once: 1,2,4.5, not "
            f"{shortened(value, 80)!r}"
        )
    return parts
