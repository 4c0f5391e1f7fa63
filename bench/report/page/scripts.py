"""The page's style and scripts, and the library that they draw with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = {
    "d3.min.js": "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1",
    "plot.umd.min.js": "4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
}
"""Files in ``vendor/`` with their SHA-256: d3 7.9.2 and Observable Plot 0.6.17, both under the ISC licence."""

PARTS = (
    "state", "rows", "chart", "verdicts", "tradeoffs", "leaderboard", "dynamics", "samples", "power", "main",
)  # fmt: skip
"""Our own scripts, in the order in which they run. They share one scope."""


@cache
def library() -> str:
    """d3 and Observable Plot."""
    return "\n".join((HERE / "vendor" / name).read_text(encoding="utf-8") for name in LIBRARY)


@cache
def own() -> str:
    """All our scripts as one."""
    parts = ((HERE / "scripts" / f"{name}.js").read_text(encoding="utf-8") for name in PARTS)
    return "(() => {\n'use strict';\n" + "\n".join(parts) + "})();"


@cache
def style() -> str:
    """What the style of every page lacks for this one."""
    return (HERE / "page.css").read_text(encoding="utf-8")
