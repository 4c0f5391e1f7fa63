"""A sweep over guidance scales: one line for each model, nothing ranked across scales."""

from __future__ import annotations

import csv
import io
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import FakeRun
from page_text import page_text

from bench.errors import BenchError
from bench.report import guidance, render_report
from bench.report.looks import looks as looks_of
from bench.report.study import read_study
from bench.report.text import digits

SCALES = (1.0, 3.0, 4.5)
FILES = {"guidance.md", "guidance.csv", "guidance.png", "guidance.svg", "samples-guidance.png", "index.html"} | {
    "guidance_differences.csv"
}


@pytest.fixture
def swept(tmp_path: Path) -> FakeRun:
    """The base and two methods of two seeds at three scales; the suite's is 3."""
    run = FakeRun(tmp_path / "swept")
    for key in ("corpus", "budget", "fractions"):
        del run.experiment[key]
    run.save()
    for scale in SCALES:
        run.swept("base", scale, -0.1 / scale)
        for seed in (0, 1):
            run.swept(f"alpha--pretty--s{seed}", scale, 0.25 - 0.4 / scale, method="alpha", seed=seed)
            run.swept(f"beta--pretty--s{seed}", scale, 0.1 - 0.1 / scale, method="beta", seed=seed, reward="style")
    return run


def lines(run: FakeRun) -> list[dict[str, str]]:
    study = read_study([run.folder])
    return list(csv.DictReader(io.StringIO(guidance.guidance_csv(guidance.sweep(study)))))


def line(run: FakeRun, model: str, metric: str, scale: float) -> dict[str, str]:
    (found,) = (
        row
        for row in lines(run)
        if (row["model"], row["metric"], float(row["guidance_scale"])) == (model, metric, scale)
    )
    return found


def table(run: FakeRun, metric: str) -> dict[str, list[str]]:
    study = read_study([run.folder])
    (grid,) = (grid for grid in guidance.grids(guidance.sweep(study), "**{}**") if grid.headers[0].startswith(metric))
    return {"": grid.headers} | {row[0]: row[1:] for row in grid.rows}


def values(run: FakeRun, name: str, metric: str) -> list[float]:
    path = run.folder / name / "evaluations/0/samples.jsonl"
    rows = map(json.loads, path.read_text().splitlines())
    return [row["scores"][metric]["score"] for row in rows if metric in row["scores"]]


def test_seeds_of_a_method_are_pooled(swept: FakeRun) -> None:
    for scale in SCALES:
        both = [values(swept, f"evaluated--alpha--pretty--s{seed}--cfg{scale:g}", "clip") for seed in (0, 1)]
        row = line(swept, "alpha", "clip", scale)
        assert row["mean"] == digits(float(np.mean(both)))
        assert float(row["low"]) < float(row["mean"]) < float(row["high"])
        assert (row["n"], row["N"], row["seeds"], row["of_the_suite"]) == ("96", "96", "2", str(int(scale == 3)))
        base = np.mean(values(swept, f"evaluated--base--cfg{scale:g}", "clip"))
        assert row["minus_base"] == digits(float(np.mean(both) - base))


def test_scales_are_ranked_apart(swept: FakeRun) -> None:
    """Without guidance alpha is the worst, with it the best; beta is not ranked where it was trained."""
    found = table(swept, "ClipScore")
    assert found[""] == ["ClipScore ↑", "Seeds", "CFG 1", "CFG 3 (the suite's)", "CFG 4.5"]
    assert list(found)[1:] == ["base", "alpha", "beta"]
    bold = {name: ["**" in cell for cell in cells] for name, cells in found.items() if name}
    assert bold["alpha"] == [False, False, True, True]
    assert bold["beta"] == [False, True, False, False]
    assert [cell[-1] for cell in found["alpha"]] == ["2", "▼", "▲", "▲"]
    style = table(swept, "Aesthetic")
    assert "beta †" in style and "**" not in "".join(style["beta †"])
    assert ["**" in cell for cell in style["base"]][1]


def test_a_drift_is_neither_better_nor_worse(swept: FakeRun) -> None:
    swept.experiment["suite"]["metrics"][3]["ranked"] = False
    swept.save()
    found = table(swept, "Aesthetic")
    assert "**" not in str(found) and [cell[-1] for cell in found["alpha"]] == ["2", "↓", "↑", "↑"]


def test_a_method_of_one_seed_gets_no_mark(swept: FakeRun) -> None:
    """Not even where it tops a column; the others are ranked without it."""
    for scale in SCALES:
        swept.swept("lone--pretty--s0", scale, 0.9, method="lone")
    found = table(swept, "ClipScore")
    assert not any(mark in str(found["lone"]) for mark in ("**", "▲", "▼"))
    assert ["**" in cell for cell in found["alpha"]] == [False, False, True, True]
    assert [line(swept, "lone", "clip", scale)["best"] for scale in SCALES] == ["0"] * 3
    study = read_study([swept.folder])
    (note,) = (text for text in guidance.notes(study, guidance.sweep(study)) if "Seed variance unknown" in text)
    assert note.startswith("Seed variance unknown for lone:")


def test_seeds_are_counted_at_each_scale(swept: FakeRun) -> None:
    shutil.rmtree(swept.folder / "evaluated--alpha--pretty--s1--cfg3")
    found = table(swept, "ClipScore")["alpha"]
    assert [cell[-1] for cell in found] == ["2", "▼", "]", "▲"]
    assert ["**" in cell for cell in found] == [False, False, False, True]


def test_a_report_of_a_sweep_alone(swept: FakeRun, tmp_path: Path) -> None:
    one, two = render_report([swept.folder], tmp_path / "one"), render_report([swept.folder], tmp_path / "two")
    assert {path.name for path in one} == FILES
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))
    text = (tmp_path / "one/guidance.md").read_text()
    assert "not SD3.5-Medium's numbers" in text.splitlines()[0]
    assert "| Sampler | 20 steps, CFG 1, 3 and 4.5, 64 px |" in text
    html = page_text(tmp_path / "one")
    assert "<p>alpha, base and beta, scored by the suite embedded v1 (20 sampling steps, guidance 1, 3 and 4.5" in html
    assert "Leaderboard" not in html and "★" in html and "**" not in html
    assert 'src="guidance.svg"' in html and 'src="samples-guidance.png"' in html
    ET.fromstring((tmp_path / "one/guidance.svg").read_text())


def test_beside_trained_rows_a_sweep_stands_apart_and_changes_none(run: Any, swept: FakeRun, tmp_path: Path) -> None:
    render_report([run.folder], tmp_path / "alone")
    written = {path.name for path in render_report([run.folder, swept.folder], tmp_path / "both")}
    assert {"guidance.md", "main_results.md", "training_dynamics.svg"} <= written
    alone, both = (list(csv.reader((tmp_path / name / "main_results.csv").open())) for name in ("alone", "both"))
    assert alone == both
    assert "CFG 3, in the sweep 1, 3 and 4.5" in (tmp_path / "both/main_results.md").read_text()
    study = read_study([run.folder, swept.folder])
    looks = guidance.sweep(study).looks(study)
    assert {name: looks[name] for name in study.methods} == looks_of(study.methods)  # as in the dynamics


def test_what_is_not_drawn_yet_is_missing(swept: FakeRun) -> None:
    (swept.folder / "evaluated--alpha--pretty--s1--cfg3/evaluations/0/evaluation.json").unlink()
    found = table(swept, "ClipScore")["alpha"]
    assert found[2] == "missing 48/96" and found[1][0] == "0"
    study = read_study([swept.folder])
    guidance.guidance_figures(study, guidance.sweep(study))


def test_metrics_without_any_score_are_left_out_and_said(swept: FakeRun) -> None:
    for path in swept.folder.glob("*/evaluations/0/samples.jsonl"):
        rows = [json.loads(text) for text in path.read_text().splitlines()]
        for row in rows:
            row["scores"].pop("geneval", None)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = read_study([swept.folder])
    made = guidance.sweep(study)
    assert [metric.name for metric in made.metrics] == ["ocr", "clip", "style"]
    assert "Not scored for any of these: GenEval." in guidance.notes(study, made)


def test_one_training_counts_once(swept: FakeRun) -> None:
    """Drawn twice under two spellings of its path, it would be two seeds, and their variance nothing."""
    again = {"run": "demo", "method": "alpha", "subset": "pretty", "seed": 1, "reward": None}
    for scale in SCALES:
        swept.swept("home-alpha", scale, 0.3, sweep={"name": "alpha--pretty--s1", **again}, kind="transformer")
    with pytest.raises(BenchError, match="are both seed 1 of alpha in a run called demo, so they are no two trainings"):
        guidance.sweep(read_study([swept.folder]))


def test_models_of_one_name_are_told_apart(swept: FakeRun) -> None:
    other = {"run": "second", "method": "alpha", "subset": "pretty", "seed": 0, "reward": None}
    for scale in SCALES:
        swept.swept("second-alpha", scale, 0.3, sweep={"name": "alpha--pretty--s0", **other}, kind="transformer")
    names = [model.name for model in guidance.sweep(read_study([swept.folder])).models]
    assert sorted(names) == ["base", "beta", "demo: alpha", "second: alpha"]


def test_other_lengths_of_text_are_not_ranked(swept: FakeRun) -> None:
    for scale in SCALES:
        swept.swept("long", scale, 0.5, max_sequence_length=256, backbone_hash="77")
    study = read_study([swept.folder])
    made = guidance.sweep(study)
    assert not any(c.best for model in made.models for c in model.cells.values())
    assert "Models that read different numbers of T5 tokens are not ranked." in guidance.notes(study, made)


def test_a_crowd_is_named_once_beside_the_panels(swept: FakeRun) -> None:
    def texts() -> list[str]:
        study = read_study([swept.folder])
        svg = guidance.guidance_figures(study, guidance.sweep(study))["guidance.svg"]
        return [part.partition("-->")[0].strip() for part in svg.decode().split("<!--")[1:]]

    few = texts()
    assert few.count("beta") == 3 and few.count("beta †") == 1  # at each line's end
    for name in ("delta", "epsilon", "zeta", "eta"):
        for scale in SCALES:
            swept.swept(f"{name}--pretty--s0", scale, 0.1, method=name)
    many = texts()
    assert many.count("beta") == 1 and "beta †" not in many and many.count("†") == 1


def test_a_key_that_says_whiskers_says_it_of_every_panel(swept: FakeRun) -> None:
    def drawn() -> str:
        study = read_study([swept.folder])
        return guidance.guidance_figures(study, guidance.sweep(study))["guidance.svg"].decode()

    few = drawn()
    assert "bands: 95" in few and "FillBetween" in few
    more = [(name, "pretty") for name in ("delta", "epsilon", "zeta", "eta", "theta")] + [("delta", "plain")]
    for method, subset in more:
        for scale in SCALES:
            swept.swept(f"{method}--{subset}--s0", scale, 0.1, method=method, subset=subset)
    many = drawn()
    assert "whiskers: 95" in many and "LineCollection" in many and "FillBetween" not in many
