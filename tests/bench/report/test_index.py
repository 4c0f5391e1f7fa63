"""One page over all reports, made from the pages that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_text import page_text

from bench.errors import BenchError
from bench.report import render_report
from bench.report.index import render_index


def test_it_lists_every_report_with_its_verdicts(ranked: Any, tmp_path: Path) -> None:
    out = tmp_path / "reports"
    render_report([ranked.folder], out / "group" / "ranked")
    (out / "old").mkdir()
    (out / "old/index.html").write_text("<title>old</title>", encoding="utf-8")
    page = render_index(out)
    text = page_text(out)
    assert page == out / "index.html" and 'href="group/ranked/index.html">ranked</a>' in text
    assert "beta_long is the clear best on Aesthetic." in text and "3 methods on pretty, 2 seeds each" in text
    assert "A page without a summary" in text and "2 reports" in text
    assert "tiny-sd3 &lt;embedded&gt;" in text  # the notice is text
    assert render_index(out).read_bytes() == page.read_bytes()  # itself it does not list


def test_a_folder_without_reports_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no report; draw one first"):
        render_index(tmp_path)


@pytest.mark.parametrize("told", ["{", "[]", '{"title": 1}', '{"title": "a", "verdicts": 3}'])
def test_a_damaged_summary_costs_its_own_line_alone(tmp_path: Path, told: str) -> None:
    (tmp_path / "one").mkdir()
    page = f'<script type="application/json" id="summary">{told}</script>'
    (tmp_path / "one/index.html").write_text(page, encoding="utf-8")
    render_index(tmp_path)
    assert "A page without a summary" in page_text(tmp_path)
