"""Every committed report redraws from the records beside it, to the last character."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.report import render_report

REPORTS = Path(__file__).parents[3] / "reports"
COMMITTED = ("high_aesthetic", "embedded", "embedded_steps", "embedded_main", "embedded_ablation", "embedded_defaults")
COMMITTED += ("embedded_steps_defaults", "guidance", "guidance_defaults")
TEXT = {".md", ".csv", ".tex"}  # pictures, and the page that holds them, differ with the version of matplotlib


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in TEXT}


def drawn_again_here(report: Path) -> bool:
    """Whether a run of one's own has overwritten the report, as `make run` does; without git nobody can tell."""
    command = ["git", "-C", str(REPORTS), "status", "--porcelain", "--", report.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and bool(done.stdout.strip())


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_report_redraws_from_its_records(name: str, tmp_path: Path) -> None:
    if drawn_again_here(REPORTS / name):
        pytest.skip(f"reports/{name} is not the committed one")
    render_report([REPORTS / name / "records.tar.xz"], tmp_path)
    committed = texts(REPORTS / name)
    assert {"main_results.md", "guidance.md"} & committed.keys()
    assert texts(tmp_path) == committed


def test_the_index_lists_what_is_committed() -> None:
    index = (REPORTS / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMITTED if f"[{name}]({name}/" not in index] == []
