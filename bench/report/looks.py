"""How a row looks in every plot and on every page: one registry of colour, marker and dashes by name.

A name has the same look in every report. Methods of this repository have looks by their place in ``bench.registry``.
Of other names (variants, pipelines, plugins, evaluated weights) the SHA-256 says the place. Where two names of one
report meet there, the later one in the alphabet takes the next free place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench import registry
from bench.records import BASE


@dataclass(frozen=True)
class Look:
    """How a line or a point is drawn: ``colour`` on white, ``dark`` on a dark page.

    ``marker`` is matplotlib's, and ``symbol`` is what d3 calls it.
    """

    colour: str
    dark: str
    marker: str
    symbol: str
    dashes: Any


HUES = (
    ("#0067a5", "#6bb8f0"),
    ("#b54a00", "#ff9d57"),
    ("#00734f", "#4fd1a1"),
    ("#ab3a7f", "#f291c9"),
    ("#856000", "#e8b53f"),
    ("#006d77", "#4fc9d4"),
    ("#7f3c8d", "#d3a3e4"),
    ("#8a2b2b", "#f29b94"),
    ("#5c6600", "#bccb4e"),
    ("#4550b8", "#aab4ff"),
)
"""Colours for white and for dark ground. Each can be read as text there: contrast of at least 4.5 (WCAG 2.2, 1.4.3).

The first four keep the order of hues of Okabe and Ito 2008 (jfly.uni-koeln.de/color), darkened. Ours beyond.
"""

SHAPES = (
    ("o", "circle"),
    ("s", "square"),
    ("D", "diamond"),
    ("^", "triangle"),
    ("P", "cross"),
    ("*", "star"),
    ("h", "hexagon"),
)
"""As many as have no common divisor with the hues, so that 70 places in a row all differ."""

PLACES = len(HUES) * len(SHAPES)
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
"""Of a built-in method, of a place in the first half, and of one in the second."""

BASE_LOOK = Look("#3c4043", "#c4c7cc", "o", "circle", DASHES[1])


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The look of each name. Beyond the 70 places, looks come again."""
    known = [*registry.BUILT_IN["methods"]]
    found: dict[str, Look] = {}
    taken: set[int] = set()
    others = []
    for name in dict.fromkeys(names):
        if name == BASE:
            found[name] = BASE_LOOK
        elif name in known:
            found[name] = _look(known.index(name), DASHES[0])
        else:
            others.append(name)
    free = PLACES - len(known)
    for name in sorted(others):
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % free
        while place in taken and len(taken) < free:
            place = (place + 1) % free
        taken.add(place)
        found[name] = _look(len(known) + place, DASHES[1 + 2 * place // free])
    return found


def _look(place: int, dashes: Any) -> Look:
    (colour, dark), (marker, symbol) = HUES[place % len(HUES)], SHAPES[place % len(SHAPES)]
    return Look(colour, dark, marker, symbol, dashes)
