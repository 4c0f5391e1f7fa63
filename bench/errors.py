"""Errors that a user can act on: one line of the CLI, or the reason why a job ended. Nothing else is caught."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


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
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return BenchError(f"unknown {kind} {name!r}; {hint}")


def named(names: Sequence[str], most: int = 3) -> str:
    """Names for one line of an error: the first few, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"
