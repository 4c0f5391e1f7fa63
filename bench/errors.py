"""Errors that a user can act on: one line of the CLI, or the reason why a job ended. Nothing else is caught."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST = 1000
"""Characters of a line that is printed. More hides what is wrong; a value of 5,000 digits is cut in its middle."""

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, marks that turn the direction of a text, and bytes of a file name that are no UTF-8."""


def shown(text: str, keep: str = "") -> str:
    """Text that a terminal prints and does not obey: an escape sequence in a file name stands as ``\\x1b[31m``.

    Args:
        keep: control characters that stay as they are.
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's form of a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def shortened(text: str, longest: int = LONGEST) -> str:
    """The beginning and the end of a long text."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"


def one_line(message: str) -> str:
    """A message as one printable line of bounded length."""
    return shown(shortened(re.sub(r"\s*\n\s*", " ", message.strip())))


class BenchError(Exception):
    """Something the user can mend. The message is one line that says what is wrong and what to do."""


class Missing(BenchError):
    """Something from outside is not here. The message says how to get it; ``asset`` is its name in ``bench assets``."""

    def __init__(self, message: str, asset: str) -> None:
        super().__init__(message)
        self.asset = asset


class JobFailure(Exception):
    """The method did something that ends this job and no other: the reason goes into its status."""


class Undeclared(JobFailure):
    """The method used a door that its ``needs`` does not open."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """An error for a mistyped name, with the nearest known one."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {some(known, 40)}"
    return BenchError(f"unknown {kind} {name!r}; {hint}")


def some(names: Iterable[object], most: int = 8) -> str:
    """Names for one line of error: the first few, and how many more there are."""
    shown = [str(name) for name in names]
    more = len(shown) - most
    return ", ".join(shown if more < 2 else [*shown[:most], f"and {more} more"])
