"""What the documents show runs as they show it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch
from click.testing import CliRunner

from bench import plugins, records, registry
from bench.check import PROMISES
from bench.check.world import World, advance
from bench.cli import main
from bench.experiment.config import method_config, read_experiment
from bench.experiment.run import Workspace, run_experiment
from bench.machine.progress import Progress
from bench.report import render_report

DOCS = Path(__file__).parents[1] / "docs"
PACKAGES = ("bench", "methods", "benchmarks", "data_curation")
MADE_UP = {"benchmarks/metrics/colourfulness.py"}  # what the reader is told to write


def code(page: str, mark: str) -> str:
    """The Python block that follows ``<!-- mark -->``."""
    block = re.search(rf"<!-- {mark} -->\n```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)
    assert block is not None
    return block.group(1)


@pytest.fixture
def raft(tmp_path: Path) -> Path:
    """The worked method as the file that the page says it is."""
    path = tmp_path / "raft.py"
    path.write_text(code("add-a-method.md", "raft"), encoding="utf-8")
    return path


SMALL = {"prompts": 4, "group_size": 3, "sampling_steps": 2}


@pytest.mark.slow
def test_the_worked_method_keeps_every_promise(raft: Path) -> None:
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(main, ["check", str(raft), *settings])
    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) == len(PROMISES)


@pytest.mark.slow
def test_the_worked_method_fine_tunes_on_the_best_of_each_group(raft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = registry.load("methods", plugins.named(str(raft)))
    trained, job = method(method_config(method, "embedded", SMALL)), World().job(method.needs)
    trained.setup(job)
    visited: list[Any] = []
    rewards: list[torch.Tensor] = []
    parts, gather = job.parts, job.gather
    monkeypatch.setattr(job, "parts", lambda batch, rows=None: (visited.append(rows), parts(batch, rows))[1])
    monkeypatch.setattr(job, "gather", lambda values, batch: (rewards.append(gather(values, batch)), rewards[-1])[1])
    (logs,) = advance(job, trained)
    groups = rewards[0].double().view(4, 3)
    assert visited[0] is None  # the rollout's
    assert visited[1].tolist() == [3 * number + int(group.argmax()) for number, group in enumerate(groups)]
    assert logs["reward"] == pytest.approx(float(groups.mean()), rel=1e-6)
    assert logs["best"] == pytest.approx(float(groups.amax(1).mean()), rel=1e-6)
    assert logs["best"] > logs["reward"]
    assert job.meter.reward_calls == 12 and job.meter.updates == 1


@pytest.mark.slow
def test_the_worked_method_stands_in_a_comparison_beside_built_in_ones(world: Any, raft: Path, tmp_path: Path) -> None:
    with fakes.registered(world.backbone):
        config = read_experiment(
            None,
            {"methods": ("sft", str(raft)), "subsets": ("half",), "budget": "steps=2", "evaluations": 1}
            | dict.fromkeys(("backbone", "corpus", "suite"), "fake"),
            ["sft.batch_size=2", *(f"raft.{key}={value}" for key, value in SMALL.items())],
        )
        outcome = run_experiment(config, Workspace(tmp_path / "cache", tmp_path / "runs"), Progress(quiet=True))
    assert outcome.failed == {}
    assert records.read_json(outcome.folder / "raft--half--s0" / "job.json")["origin"]["file"] == "raft.py"
    render_report([outcome.folder], tmp_path / "report")
    rows = (tmp_path / "report" / "main_results.md").read_text().splitlines()
    assert [row.split("|")[1].strip() for row in rows if row.startswith("| ")][2:5] == ["base", "sft", "raft"]


def test_every_path_that_a_document_names_is_there() -> None:
    root = DOCS.parent
    pages = [*DOCS.glob("*.md"), root / "README.md", root / "CONTRIBUTING.md"]
    named = {
        (page.name, path)
        for page in pages
        for path in re.findall(
            r"`((?:bench|methods|benchmarks|data_curation|tests|docs|experiments|perf|reports/reference)/[\w/.-]+)`",
            page.read_text(),
        )
    }
    missing = sorted((page, path) for page, path in named if not (root / path).exists() and path not in MADE_UP)
    assert not missing


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[tuple[str, str]]:
    """Targets and anchors of a page's links to files and headings of this repository."""
    return re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8"))


def test_every_link_inside_the_documents_leads_somewhere() -> None:
    root = DOCS.parent
    pages = [*DOCS.glob("*.md"), *root.glob("*.md"), root / "perf/README.md", root / "reports/reference/README.md"]
    assert root / "CONTRIBUTING.md" in pages and all(page.exists() for page in pages)
    for page in pages:
        for target, anchor in links(page):
            goal = page.parent / target if target else page
            assert goal.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(goal), f"{page.name}: {target}#{anchor}"


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len((DOCS.parent / "README.md").read_bytes()) <= 8_000


def test_every_folder_says_in_its_first_line_what_it_is() -> None:
    packages = [root / "__init__.py" for root in (DOCS.parent / name for name in PACKAGES)]
    packages += [path for package in packages for path in package.parent.glob("*/**/__init__.py")]
    assert len(packages) > 20
    for path in packages:
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        assert len(first.split()) > 3 and first.endswith("."), path
