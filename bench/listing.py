"""What ``bench list`` prints. Code is read and not imported, so that it stays instant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench import measured, registry
from bench.errors import unknown

KINDS = ("methods", "subsets", "suites", "metrics", "probes", "corpora", "backbones")


def everything() -> Iterator[str]:
    """A line for each name of every kind."""
    for kind in KINDS:
        yield f"{kind}:"
        yield from (_line(kind, name, registry.summary(kind, name)) for name in registry.table(kind))


def one(kind: str) -> Iterator[str]:
    """A line for each name of a kind; of methods also their papers, what they must be given, and measured costs.

    Raises:
        BenchError: an unknown kind.
    """
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    costs = measured.read() if kind == "methods" else None
    for name in registry.table(kind):
        yield _line(kind, name, registry.summary(kind, name))
        if kind == "methods":
            declared = registry.declared(kind, name)
            paper = declared.get("traits", {}).get("paper", "paper not read")
            yield _line(kind, "", f"{paper} | {_needs(declared)} | {_cost(costs, name)}")
    if costs:
        commits = ", ".join(commit[:7] + commit[40:] for commit in costs["commits"])
        yield (
            f"Costs are those of the run {costs['run']}: FLOPs are means over its jobs, times are of the fastest "
            f"({costs['backbone']}, its settings, {costs['machine']}, commit {commits})."
        )


def _line(kind: str, name: str, text: str) -> str:
    return f"  {name:<{max(map(len, registry.table(kind)))}}  {text}"


def _needs(declared: Mapping[str, Mapping[str, Any]]) -> str:
    """As its class says them, which is for the default settings."""
    if "needs" not in declared:
        return "needs not read"
    needs = ", ".join(key.replace("_", " ") for key, value in declared["needs"].items() if value) or "nothing"
    return f"needs {needs}{' (by default)' if 'needs_of' in declared else ''}"


def _cost(costs: Mapping[str, Any] | None, name: str) -> str:
    if costs is None or name not in costs["methods"]:
        return "cost per step not measured"
    relative = costs["methods"][name]["relative"]
    flops, seconds = relative["flops_per_step"], relative["seconds_per_step"]
    return f"a step costs {flops:.3g} x the FLOPs and takes {seconds:.3g} x the time of {costs['reference']}'s"
