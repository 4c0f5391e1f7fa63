"""What ``bench list`` prints, folded to the terminal. Code is read and not imported, so that it stays instant."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench import registry
from bench.cli import costs
from bench.errors import unknown
from bench.experiment import shipped

NARROWEST = 24
"""Columns that a text keeps beside the names, however narrow the terminal is."""

KINDS = ("methods", "subsets", "suites", "metrics", "probes", "corpora", "backbones", "experiments")


def summaries(kind: str) -> dict[str, str]:
    """Name → summary of all of a kind: experiments are files, and everything else is in the registry."""
    if kind == "experiments":
        return {name: shipped.summary(name) for name in shipped.names()}
    return {name: registry.summary(kind, name) for name in registry.table(kind)}


def everything() -> Iterator[str]:
    """The names of every kind, each with its summary."""
    for kind in KINDS:
        yield f"{kind}:"
        names = summaries(kind)
        yield from (_line(names, name, names[name]) for name in names)


def one(kind: str) -> Iterator[str]:
    """The names of a kind with their summaries; of methods also papers, what they must be given, and measured costs.

    Raises:
        BenchError: an unknown kind.
    """
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    measured = costs.read() if kind == "methods" else None
    names = summaries(kind)
    for name in names:
        yield _line(names, name, names[name])
        if kind == "methods":
            declared = registry.declared(kind, name)
            paper = declared.get("traits", {}).get("paper", "paper not read")
            yield _line(names, "", paper, _needs(declared), _cost(measured, name))
    if measured:
        commits = ", ".join(commit[:7] + commit[40:] for commit in measured["commits"])
        yield folded(
            f"Costs are those of the run {measured['run']}: FLOPs are means over its jobs, times are of the fastest "
            f"({measured['backbone']}, its settings, {measured['machine']}, commit {commits})."
        )


def folded(text: str, indent: str = "") -> str:
    """A text in lines that fit the terminal, or 80 columns where there is none; ``indent`` begins all but the first."""
    width = max(shutil.get_terminal_size().columns, len(indent) + NARROWEST)
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )


def _line(names: Iterable[str], name: str, *parts: str) -> str:
    """One of the names and what is said of it. Parts that do not fit one line have lines of their own."""
    start = f"  {name:<{max(map(len, names))}}  "
    one = start + " | ".join(parts)
    if "\n" not in folded(one):
        return one
    indent = " " * len(start)
    return "\n".join(folded((indent if number else start) + part, indent) for number, part in enumerate(parts))


def _needs(declared: Mapping[str, Mapping[str, Any]]) -> str:
    """As its class says them, which is for the default settings."""
    if "needs" not in declared:
        return "needs not read"
    needs = ", ".join(key.replace("_", " ") for key, value in declared["needs"].items() if value) or "nothing"
    return f"needs {needs}{' (by default)' if 'needs_of' in declared else ''}"


def _cost(measured: Mapping[str, Any] | None, name: str) -> str:
    if measured is None or name not in measured["methods"]:
        return "cost per step not measured"
    relative = measured["methods"][name]["relative"]
    flops, seconds = relative["flops_per_step"], relative["seconds_per_step"]
    return f"a step: {flops:.3g} x the FLOPs and {seconds:.3g} x the time of {measured['reference']}'s"
