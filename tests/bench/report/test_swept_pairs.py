"""Methods of a sweep beside each other, at each scale."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fake_run import FakeRun

from bench.report import guidance, render_report, swept_pairs
from bench.report.stats import difference
from bench.report.study import read_study
from bench.report.text import digits

SCALES = (1.0, 3.0)


@pytest.fixture
def swept(tmp_path: Path) -> FakeRun:
    """The base, and three methods at two scales. Beta was trained on the style, and lone has one seed."""
    run = FakeRun(tmp_path / "swept")
    for key in ("corpus", "budget", "fractions"):
        del run.experiment[key]
    run.save()
    for scale in SCALES:
        run.swept("base", scale, 0.0)
        for seed in (0, 1):
            run.swept(f"alpha--pretty--s{seed}", scale, 0.0, method="alpha", seed=seed)
            run.swept(f"beta--pretty--s{seed}", scale, 0.3 * (scale - 1), method="beta", seed=seed, reward="style")
        run.swept("lone--pretty--s0", scale, 0.9, method="lone")
    return run


def made_of(run: FakeRun) -> guidance.Sweep:
    return guidance.sweep(read_study([run.folder]))


def lines(run: FakeRun) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(swept_pairs.csv(made_of(run)))))


def test_every_pair_of_methods_has_a_line_at_every_scale(swept: FakeRun) -> None:
    made = made_of(swept)
    found = {(row["method"], row["minus"], row["metric"], float(row["guidance_scale"])) for row in lines(swept)}
    pairs = (("beta", "alpha"), ("lone", "alpha"), ("lone", "beta"))
    assert found == {(*pair, metric.name, scale) for pair in pairs for metric in made.metrics for scale in SCALES}
    assert len(lines(swept)) == len(found)


def test_a_line_is_the_paired_difference_in_its_family_and_alone(swept: FakeRun) -> None:
    made = made_of(swept)
    cells = {model.name: model.cells["clip", 3.0].cell.estimate for model in made.models}
    assert cells["alpha"] and cells["beta"]
    alone = difference(cells["beta"], cells["alpha"])
    (row,) = (
        row
        for row in lines(swept)
        if (row["method"], row["minus"], row["metric"], row["guidance_scale"]) == ("beta", "alpha", "clip", "3.0")
    )
    assert row["difference"] == digits(alone.mean) and float(row["difference"]) == pytest.approx(0.6, abs=0.1)
    assert (row["pairwise_low"], row["pairwise_high"]) == (digits(alone.low), digits(alone.high))
    assert row["family"] == "2" and float(row["low"]) < alone.low < alone.high < float(row["high"])


def test_marks_need_seeds_and_no_training_on_the_metric(swept: FakeRun) -> None:
    tables = {grid.headers[0]: {row[0]: row[1:] for row in grid.rows} for grid in swept_pairs.grids(made_of(swept))}
    clip, style = tables["ClipScore ↑, minus alpha"], tables["Aesthetic ↑, minus alpha"]
    assert list(clip) == ["beta", "lone"]
    assert clip["beta"][0][-1] == "]" and clip["beta"][1][-1] == "▲"  # no difference without guidance
    assert style["beta"][1][-1] == "†" and "▲" not in style["beta"][1]
    assert all(cell.endswith("]") for cell in clip["lone"])
    notes = " ".join(swept_pairs.notes(made_of(swept), swept_pairs.grids(made_of(swept))))
    assert "▲ better" in notes and "with † is not called" in notes


def test_marks_that_do_not_occur_are_not_explained(swept: FakeRun) -> None:
    for path in swept.folder.glob("evaluated--*--s1--*"):
        shutil.rmtree(path)
    made = made_of(swept)
    plain = replace(made, models=[replace(model, reward=None) for model in made.models])
    (note,) = swept_pairs.notes(plain, swept_pairs.grids(plain))
    assert "▲" not in note and "guidance_differences.csv has every pair" in note


def test_the_first_is_the_first_of_the_registry(swept: FakeRun) -> None:
    """Folders come by letters, and a reader asks what each method adds to plain fine-tuning."""
    for scale in SCALES:
        for seed in (0, 1):
            swept.swept(f"sft--pretty--s{seed}", scale, 0.0, method="sft", seed=seed)
    made = made_of(swept)
    assert [model.name for model in made.models] == ["base", "sft", "alpha", "beta", "lone"]
    assert swept_pairs.grids(made)[0].headers[0].endswith("minus sft")


def test_a_cell_that_is_not_whole_has_no_difference(swept: FakeRun) -> None:
    (swept.folder / "evaluated--beta--pretty--s1--cfg3/evaluations/0/evaluation.json").unlink()
    at = {float(row["guidance_scale"]): row for row in lines(swept) if row["method"] == "beta"}
    assert at[3.0]["difference"] == at[3.0]["pairwise_high"] == "" and at[1.0]["difference"]
    tables = {grid.headers[0]: grid.rows for grid in swept_pairs.grids(made_of(swept))}
    assert tables["ClipScore ↑, minus alpha"][0][2] == "–"


def test_one_method_has_nothing_to_differ_from(swept: FakeRun, tmp_path: Path) -> None:
    for path in swept.folder.glob("evaluated--*"):
        if "beta" in path.name or "lone" in path.name:
            shutil.rmtree(path)
    made = made_of(swept)
    assert swept_pairs.compared(made) == swept_pairs.grids(made) == swept_pairs.notes(made, []) == []
    written = {path.name for path in render_report([swept.folder], tmp_path / "out")}
    assert "guidance.md" in written and "guidance_differences.csv" not in written
    assert "Differences" not in (tmp_path / "out/guidance.md").read_text()
