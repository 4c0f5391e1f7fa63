"""What the documents show runs as they show it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fakes
import pytest

from bench.config import method_config

DOCS = Path(__file__).parents[1] / "docs"
MADE_UP = {"methods/raft.py", "benchmarks/metrics/colourfulness.py"}  # what the reader is told to write


def plugin(page: str, mark: str) -> dict[str, Any]:
    """The Python block that follows ``<!-- mark -->``, executed as a module of its own."""
    text = (DOCS / page).read_text(encoding="utf-8")
    block = re.search(rf"<!-- {mark} -->\n```python\n(.*?)```", text, re.S)
    assert block is not None
    module: dict[str, Any] = {"__name__": f"{mark}_from_docs"}
    exec(compile(block.group(1), page, "exec"), module)
    return module


def test_the_worked_method_trains(world: fakes.World) -> None:
    raft = plugin("add-a-method.md", "raft")["RAFT"]
    method = raft(method_config(raft, "embedded", {"prompts": 2, "group_size": 2, "sampling_steps": 2}))
    job = world.job()
    method.setup(job)
    before = [p.detach().clone() for p in job.parameters]
    method.step(job)
    scalars = job.finish_step(seconds=1.0, memory=1)
    assert job.meter.updates >= 1
    assert job.meter.reward_calls == 4
    assert any(not a.equal(b.detach()) for a, b in zip(before, job.parameters, strict=True))
    assert all(value == pytest.approx(value) for value in scalars.values())


def test_every_path_that_a_document_names_is_there() -> None:
    root = DOCS.parent
    pages = [*DOCS.glob("*.md"), root / "README.md", root / "CONTRIBUTING.md"]
    named = {
        (page.name, path)
        for page in pages
        for path in re.findall(
            r"`((?:bench|methods|benchmarks|data_curation|tests|docs|experiments|perf)/[\w/.-]+)`", page.read_text()
        )
    }
    missing = sorted((page, path) for page, path in named if not (root / path).exists() and path not in MADE_UP)
    assert not missing


def test_every_link_inside_the_documents_leads_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
