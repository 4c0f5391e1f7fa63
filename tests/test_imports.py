"""Imports of ``bench/`` run downwards: read from the files, those inside functions and for type checkers included."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    "errors flow prompt rng",
    "sampling corpus",
    "registry records",
    "machine",
    "assets backbone",
    "metric batches flops",
    "suite training",
    "job encoded evaluation probes",
    "method rollout report",
    "plugins lora matching trajectories export",
    "experiment",
    "evaluate check plan scaffold",
    "tune",
    "launch",
    "rehearsal",
    "worker cli",
)
"""From low to high: folders of ``bench/``, and its flat files one by one. Each imports from lower floors alone."""

READERS = {"report", "export", "plan", "tune", "cli"}
"""Rooms that print or read results. No other room knows the report."""


def name_of(path: Path) -> str:
    """``bench/flow.py`` is ``bench.flow``, ``bench/plan/__init__.py`` is ``bench.plan``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted((ROOT / "bench").rglob("*.py"))}


def imports(file: Path) -> set[str]:
    """Names that a file imports: ``a.b`` of ``import a.b``; ``a.b`` and ``a.b.c`` of ``from a.b import c``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{file}:{node.lineno}: a relative import"
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in FILES else node.module for name in modules}
    return names


def room(name: str) -> str:
    """The folder or flat file that a module of ``bench`` lies in."""
    return name.split(".")[1]


IMPORTS = {(name, other) for name, path in FILES.items() for other in imports(path)}
EDGES = sorted((name, other) for name, other in IMPORTS if other in FILES and other not in (name, "bench"))


def test_the_floors_name_every_room_once() -> None:
    rooms = [name for floor in FLOORS for name in floor.split()]
    assert sorted(rooms) == sorted({room(name) for name in FILES if name != "bench"})


def test_no_imports_run_in_a_circle() -> None:
    graph = TopologicalSorter[str]()
    for name, other in EDGES:
        graph.add(name, other)
    try:
        graph.prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_every_room_imports_from_lower_floors_alone() -> None:
    height = {name: number for number, floor in enumerate(FLOORS) for name in floor.split()}
    pairs = [(name, other) for name, other in EDGES if room(name) != room(other)]
    assert pairs and [pair for pair in pairs if height[room(pair[0])] <= height[room(pair[1])]] == []


def test_no_core_module_imports_the_report() -> None:
    readers = {name for name, other in EDGES if room(other) == "report"}
    assert readers and [name for name in sorted(readers) if room(name) not in READERS] == []


def test_plugins_are_reached_through_the_registry_alone() -> None:
    packages = {"bench", "methods", "benchmarks", "data_curation"}
    assert {other.split(".")[0] for _, other in IMPORTS} & packages == {"bench"}
