"""How numbers, lists and tables are spelled, in every format the report writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.errors import shown


@dataclass(frozen=True)
class Grid:
    """A table of ready text."""

    headers: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """A pipe table."""
        lines = [self.headers, ["---"] * len(self.headers), *self.rows]
        return "".join("| " + " | ".join(map(markdown, line)) + " |\n" for line in lines)

    def csv(self) -> str:
        """Comma-separated lines, headers first."""
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([map(cell, line) for line in (self.headers, *self.rows)])
        return file.getvalue()


def cell(value: object) -> str:
    """A cell of a csv file that no spreadsheet takes for a formula.

    A text that begins like a formula gets an apostrophe before it (OWASP, "CSV Injection"); a number stays itself.
    """
    text = shown(str(value))
    if text[:1] not in ("=", "+", "-", "@") and str(value)[:1] not in ("\t", "\r"):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


DIGITS, NOTHING = 7, 1e-12
"""Significant digits of a number that was worked out, and what is 0. The places beyond depend on the CPU: a library of
matrix products adds in another order on another one. They are far below what any record can tell."""


def shortened(value: float) -> float:
    """A number that was worked out, with the digits that are the same on every machine. Counts are not shortened."""
    return float(f"{value:.{DIGITS}g}") if abs(value) >= NOTHING or value != value else 0.0


def digits(value: float) -> str:
    """A number that was worked out, as a csv file holds it."""
    return repr(shortened(value))


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def by_subset(values: Iterable[tuple[str | None, str]]) -> str:
    """One value alone, or each with the subsets that have it."""
    subsets: dict[str, dict[str, None]] = {}
    for subset, value in values:
        subsets.setdefault(value, {})[subset or ""] = None
    if len(subsets) < 2:
        return "".join(subsets)
    return "; ".join(f"{value} on {listed([*names])}" for value, names in subsets.items())


def percent(share: float) -> str:
    """A share as ``99.7 %``."""
    return f"{100 * shortened(share):.1f} %"


def whole_percent(share: float) -> str:
    """A share as ``99``, for a column in per cent."""
    return f"{100 * shortened(share):.0f}"


def scientific(value: float) -> str:
    """``12300000000000`` as ``1.23e13``."""
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def count(value: int) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,}"


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def memory(size: int) -> str:
    """Bytes in binary units, ``–`` where nothing was read."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return "–"


def markdown(text: str) -> str:
    """One line of text in which Markdown finds no table cell and no HTML."""
    return " ".join(text.replace("|", r"\|").replace("<", "&lt;").split())


_TEX = {"\\": r"\textbackslash{}", "†": r"$^\dagger$", "‡": r"$^\ddagger$", "–": "--", "×": r"$\times$", "`": "'"}
_TEX |= {"<": "$<$", ">": "$>$", "|": "$|$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    mark: f"\\{mark}" for mark in "&%$#_{}"
}


def tex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))
