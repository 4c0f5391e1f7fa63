"""Every committed report redraws from the records beside it, to the last character."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.report import render_report

REPORTS = Path(__file__).parents[3] / "reports" / "reference"
COMMITTED = (
    "high_aesthetic", "embedded", "whole_corpus", "exposure", "steps", "guidance", "few_steps",
    "ablation", "levels", "remedies", "repeats",
)  # fmt: skip
TEXT = {".md", ".csv", ".tex"}  # pictures, and the page that holds them, differ with the version of matplotlib


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in TEXT}


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_report_redraws_from_its_records(name: str, tmp_path: Path) -> None:
    render_report([REPORTS / name / "records.tar.xz"], tmp_path)
    committed = texts(REPORTS / name)
    assert {"main_results.md", "guidance.md", "sweep.md"} & committed.keys()
    assert texts(tmp_path) == committed


def test_the_index_lists_what_is_committed() -> None:
    index = (REPORTS / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMITTED if f"[{name}]({name}/" not in index] == []


def test_a_report_of_a_run_leaves_the_checkout_clean_and_a_committed_one_is_seen() -> None:
    root = REPORTS.parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a checkout of git")
    drawn = [path.relative_to(root / "reports") for path in REPORTS.rglob("*") if path.is_file()]
    assert Path("reference/high_aesthetic/index.html") in drawn

    def ignored(paths: list[str]) -> set[str]:
        command = ["git", "-C", str(root), "check-ignore", "--no-index", *paths]
        return set(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())

    assert ignored([f"reports/{path}" for path in drawn]) == set()
    of_a_run = [f"reports/{path.relative_to('reference')}" for path in drawn if len(path.parts) > 2]
    assert ignored(of_a_run) == set(of_a_run)
