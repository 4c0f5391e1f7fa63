"""The paper's numbers: as the paper prints them, beside measured ones with their differences, and never ranked."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.report import render_published, render_report
from bench.report.published import alone, data
from bench.report.published.compare import ABOUT, Value, compare, comparison_csv, comparison_markdown
from bench.report.study import read_study
from bench.report.tables import main_sections

PAPER = Path(__file__).parents[4] / "shared" / "seeds"
SHARED = Path(__file__).parents[4] / "shared" / "data"
SD35 = "stabilityai/stable-diffusion-3.5-medium"


def values(table: str, row: str, subset: str | None = None) -> dict[str, str]:
    (found,) = (
        match
        for known in data.tables()
        for match in known.rows
        if known.name == table and match.name == row and subset in (None, match.subset) and match.iterations != 1000
    )
    return dict(found.values)


def follow_the_paper(run: Any, backbone: str = SD35, **sampler: Any) -> Any:
    """Give the fake suite the paper's name and metrics: GenEval, OCR, ClipScore and Aesthetic, scores unchanged."""
    suite = run.experiment["suite"]
    suite["name"] = "paper"
    suite["sampler"] = {"steps": 40, "guidance_scale": 4.5, "resolution": 512} | sampler
    names = {"geneval": "geneval", "ocr": "ocr_rapid", "clip": "clipscore", "style": "brightness"}
    for metric in suite["metrics"]:
        metric["name"] = names[metric["name"]]
    for file in run.folder.glob("*/evaluations/*/samples.jsonl"):
        text = file.read_text()
        for old, new in names.items():
            text = text.replace(f'"{old}": {{', f'"{new}": {{')
        file.write_text(text)
    run.experiment["backbone"] = backbone
    run.save()
    return run


def compared(run: Any) -> Any:
    study = read_study([run.folder])
    return compare(study, main_sections(study))


def test_the_tables_are_the_papers() -> None:
    assert list(values("main", "SD3.5-M").values()) == ["0.63", "0.59", "22.34", "0.285", "0.279", "5.36", "0.85"]
    assert list(values("main", "SD3.5-M + SOAR").values()) == [
        "0.78",
        "0.67",
        "22.86",
        "0.295",
        "0.289",
        "5.46",
        "1.09",
    ]
    assert values("ablation", "+ random noise per path")["pickscore"] == "22.89"
    assert values("dynamics", "Flow-GRPO", "high_aesthetic") == {"clipscore": "0.277", "aesthetic": "5.87"}
    assert [(table.source, len(table.rows)) for table in data.tables()] == [
        ("Table 2", 6),
        ("Table 3", 3),
        ("Figure 3", 9),
    ]


@pytest.mark.skipif(not PAPER.is_dir(), reason="the paper's text is not shipped")
def test_every_number_stands_in_the_papers_text() -> None:
    text = next(PAPER.glob("000_*")).read_text()
    lines = [[cell.strip(" ‡†") for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    numbers = [row[-7:] for row in lines if len(row) >= 8]
    main, ablation, dynamics = data.tables()
    for row in (*main.rows, *ablation.rows):
        assert list(row.values.values()) in numbers, row.name
    section = text.partition("3.3 Reward-Specific")[2].partition("3.4 Ablation")[0]
    for row in dynamics.rows:
        for value in row.values.values():
            assert re.search(rf"(?<![\d.]){re.escape(value)}(?!\d)", section), (row.name, value)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the collected facts are not shipped")
def test_the_files_agree_with_the_collected_facts() -> None:
    for name, table in zip(("main", "ablation"), data.tables(), strict=False):
        facts = list(csv.DictReader((SHARED / f"published_{name}.csv").open()))
        assert [[fact[metric] for metric in data.METRICS] for fact in facts] == [
            [*r.values.values()] for r in table.rows
        ]
    facts = {
        (fact["subset"], fact["method"], fact["step"], fact["metric"]): fact["value"]
        for fact in csv.DictReader((SHARED / "published_dynamics.csv").open())
    }
    assert facts == {
        (row.subset, row.measured_as, str(row.iterations), metric): value
        for row in data.tables()[2].rows
        for metric, value in row.values.items()
    }


def test_published_numbers_need_no_run(tmp_path: Path) -> None:
    one, two = render_published(tmp_path / "one"), render_published(tmp_path / "two")
    assert [path.name for path in one] == ["published.md", "main.csv", "ablation.csv", "dynamics.csv", "index.html"]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))
    text = one[0].read_text()
    assert text.splitlines()[0] == alone.NOTICE and "Nothing here was measured" in alone.NOTICE
    assert "| SD3.5-M + SOAR | all | 512 px | 10,000 | 0.78 | 0.67 | 22.86 | 0.295 | 0.289 | 5.46 | 1.09 |" in text
    html = one[-1].read_text()
    assert html.index(alone.NOTICE) < html.index("<h1>") < html.index("<td>22.86</td>")
    assert not re.findall(r'(?:src|href)="(?!data:|#)|<script', html)
    rows = list(csv.DictReader(io.StringIO(one[3].read_text())))
    assert {row["source"] for row in rows} == {"arXiv 2604.12617, Figure 3"}


def test_measured_rows_stand_beside_their_published_ones(make_run: Callable[..., Any]) -> None:
    run = make_run()
    run.job("sft", 0.1, subset="all")
    run.job("soar_sde", 0.2, subset="all")
    run.job("mine", 0.2, subset="all")
    run.context("sd-xl", "stable-diffusion-xl-base-1.0", 0.1, resolution=1024)
    comparison = compared(follow_the_paper(run))
    found = {pair.name: (pair.published.source, pair.published.name) for pair in comparison.pairs}
    assert found == {
        "base": ("Table 2", "SD3.5-M"),
        "stable-diffusion-xl-base-1.0": ("Table 2", "SD-XL"),
        "sft on all": ("Table 2", "SD3.5-M + SFT"),
        "soar_sde on all": ("Table 3", "+ SDE branch"),
    }
    geneval = next(pair for pair in comparison.pairs if pair.name == "sft on all").values[0]
    assert geneval.measured.cell.estimate and geneval.published == "0.70"
    assert geneval.difference == pytest.approx(geneval.measured.cell.estimate.mean - 0.70, abs=1e-12)
    text = " ".join(comparison.notes)
    assert "Without a published counterpart: mine." in text and "sft on all: 90 updates here, 10,000 published." in text
    assert "the engine differs. RapidOCR reads here" in text and "resolution 1024" in text
    assert [value.measured.metric.name for value in comparison.pairs[0].values] == ["geneval", "ocr_rapid", "clipscore"]


def test_a_curated_subset_is_set_beside_figure_3(make_run: Callable[..., Any]) -> None:
    run = make_run()
    run.job("sft", 0.1, subset="high_clipscore")
    run.job("flow_grpo", 0.2, subset="high_aesthetic", reward="clipscore")
    run.job("soar", 0.2, subset="posters")
    comparison = compared(follow_the_paper(run))
    base, sft, grpo = comparison.pairs
    assert (base.published.source, sft.published.source) == ("Table 2", "Figure 3")
    assert (sft.published.iterations, [value.published for value in sft.values]) == (5000, ["", "", "0.297"])
    assert [value.published for value in grpo.values] == ["", "", "0.277"]
    assert any(note.startswith("† The method was trained on this metric") for note in comparison.notes)
    rows = list(csv.DictReader(io.StringIO(comparison_csv(comparison))))
    assert [(row["method"], row["metric"]) for row in rows[3:]] == [("sft", "clipscore"), ("flow_grpo", "clipscore")]
    last = rows[-1]
    assert float(last["measured_minus_published"]) == pytest.approx(float(last["measured"]) - 0.277)
    assert (last["n"], last["N"], last["source"], last["apart"]) == ("48", "48", "Figure 3", "1")


@pytest.mark.parametrize(
    ("low", "high", "published", "apart"),
    [
        (0.60, 0.62, "0.63", True),
        (0.60, 0.6251, "0.63", False),  # 0.6250 prints as 0.63
        (0.60, 0.6249, "0.63", True),
        (0.6351, 0.64, "0.63", True),
        (0.60, 0.66, "0.63", False),
        (0.60, 0.62, "", False),
    ],
)
def test_apart_allows_for_rounding(run: Any, low: float, high: float, published: str, apart: bool) -> None:
    from dataclasses import replace

    study = read_study([run.folder])
    cell = main_sections(study)[0].rows[0].cells[0]
    assert cell.cell.estimate
    estimate = replace(cell.cell.estimate, low=low, high=high)
    assert Value(replace(cell, cell=replace(cell.cell, estimate=estimate)), published).apart is apart


def test_another_backbone_is_not_compared(make_run: Callable[..., Any]) -> None:
    run = make_run()
    run.job("sft", 0.1, subset="all")
    comparison = compared(follow_the_paper(run, backbone="tiny-sd3"))
    assert comparison.pairs == [] and "SD3.5-Medium: nothing is compared" in comparison.about
    run.experiment["backbone"] = "/models/stable-diffusion-3.5-medium/"
    run.save()
    assert len(compared(run).pairs) == 2


@pytest.mark.parametrize(
    ("label", "kind", "backbone", "found"),
    [
        ("soar", "transformer", SD35, ["Table 2"]),
        ("SD3.5-M + SFT", "lora", SD35, ["Table 2"]),
        ("soar", "transformer", "tiny-sd3", []),
        ("flow_grpo high_clipscore", "images", "", ["Figure 3"]),
        ("flow_grpo", "images", "", []),  # which of the two?
        ("stable-diffusion-3.5-medium", "base", "", ["Table 2"]),
        ("my soar", "transformer", SD35, []),
    ],
)
def test_an_evaluated_row_is_known_by_its_label(
    make_run: Callable[..., Any], label: str, kind: str, backbone: str, found: list[str]
) -> None:
    run = make_run()
    run.evaluated("x", label, 0.1, kind=kind)
    pairs = compared(follow_the_paper(run, backbone=backbone)).pairs
    assert [pair.published.source for pair in pairs if pair.measured.kind == "evaluated"] == found


@pytest.mark.parametrize(("study", "own", "found"), [("", SD35, 1), ("tiny-sd3", SD35, 1), (SD35, "tiny-sd3", 0)])
def test_a_loras_own_backbone_decides_whether_the_paper_stands_beside_it(
    make_run: Callable[..., Any], study: str, own: str, found: int
) -> None:
    run = make_run()
    run.evaluated("x", "soar", 0.1, kind="lora", backbone=own)
    pairs = compared(follow_the_paper(run, backbone=study)).pairs
    assert len([pair for pair in pairs if pair.measured.kind == "evaluated"]) == found


def test_another_sampler_is_said(make_run: Callable[..., Any]) -> None:
    notes = compared(follow_the_paper(make_run(), steps=28)).notes
    assert "This suite samples with 28 steps, CFG 4.5 and 512 px, and the differences contain that." in notes
    assert not any("This suite" in note for note in compared(follow_the_paper(make_run("other"))).notes)


def test_the_report_keeps_the_two_apart(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run()
    run.job("soar", -0.4, subset="all")  # below its published number, which ranks nobody
    follow_the_paper(run)
    written = {path.name for path in render_report([run.folder], tmp_path / "out")}
    assert {"published.md", "published.csv"} <= written
    main = (tmp_path / "out/main_results.md").read_text()
    assert "0.78" not in main and "published" not in main.lower()
    study = read_study([run.folder])
    text = comparison_markdown(study, compare(study, main_sections(study)))
    assert text == (tmp_path / "out/published.md").read_text()
    assert text.splitlines()[0] == run.experiment["notice"].replace("<", "&lt;") and "**" not in text
    html = (tmp_path / "out/index.html").read_text()
    assert html.index('id="results"') < html.index('id="published"') < html.index("<td>0.78</td>")
    assert "<td>0.78</td>" not in html[: html.index('id="published"')]
    without = {path.name for path in render_report([run.folder], tmp_path / "without", published=False)}
    assert written - without == {"published.md", "published.csv"}


def test_an_incomplete_cell_has_no_difference(make_run: Callable[..., Any]) -> None:
    run = follow_the_paper(make_run())
    run.experiment["suite"]["metrics"][0]["images"] += 1
    run.save()
    study = read_study([run.folder])
    text = comparison_markdown(study, compare(study, main_sections(study)))
    assert "| base | measured | missing 48/49 |" in text and "|  | difference | – |" in text
    row = next(csv.DictReader(io.StringIO(comparison_csv(compare(study, main_sections(study))))))
    assert (row["measured"], row["measured_minus_published"], row["published"]) == ("", "", "0.63")


def test_the_embedded_world_is_never_compared(run: Any, tmp_path: Path) -> None:
    assert "published.md" not in {path.name for path in render_report([run.folder], tmp_path / "out")}
    written = {path.name for path in render_report([run.folder], tmp_path / "asked", published=True)}
    assert "published.md" in written and "published.csv" not in written
    text = (tmp_path / "asked/published.md").read_text()
    assert "none of its numbers compares with a published one" in text
    assert ABOUT not in text and "0.63" not in text and "Table 2" not in text
