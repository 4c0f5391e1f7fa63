"""The report as a whole: every file, the same bytes each time, and whatever state the run is in."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_text import page_text
from PIL import Image

from bench import records
from bench.report import is_of_a_report, plots, render_report
from bench.report.plots import TILE_GREY, dynamics, samples_parts, sheet
from bench.report.stats import make_cell
from bench.report.study import read_study

FILES = {
    "main_results.md",
    "main_results.csv",
    "main_results.tex",
    "paradigms.md",
    "compute.md",
    "compute.csv",
    "differences.csv",
    "differences.md",
    "wins.md",
    "wins.csv",
    "targets.md",
    "targets.csv",
    "pareto.md",
    "pareto.csv",
    "training_dynamics.png",
    "training_dynamics.svg",
    "training_dynamics.csv",
    "samples.png",
    "index.html",
}


def sheet_of(folder: Path) -> bytes | None:
    study = read_study([folder])
    return sheet(study, samples_parts(study, "pretty"))


def test_rendering_twice_gives_identical_files(run: Any, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = render_report([run.folder], one), render_report([run.folder], two)
    assert {path.name for path in first} == FILES == {path.name for path in one.iterdir() if path.is_file()}
    files = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    assert len(files) > len(FILES) and [a.name for a in first] == [b.name for b in second]
    for name in files:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_a_report_removes_what_an_older_one_left_and_nothing_else(make_run: Any, tmp_path: Path) -> None:
    out, two, one = tmp_path / "out", make_run("two"), make_run("one")
    for subset in ("pretty", "matching"):
        for method in ("alpha", "beta"):
            two.job(method, 0.1, subset=subset)
    one.job("alpha", 0.1)
    older = {path.name for path in render_report([two.folder], out, published=True)}
    assert {"samples-matching.png", "differences.md", "differences.csv", "wins.md", "published.md"} <= older
    sheets = {path.name for path in (out / "pictures").iterdir()}
    assert "beta--matching--s0-100-0.webp" in sheets
    strangers = {"notes.md", "records.tar.xz", "samples.txt", "my-samples.png", "main_results.md.bak"}
    for name in strangers:
        (out / name).write_text("not a report's", encoding="utf-8")
    (out / "samples-kept.png").mkdir()
    written = {path.name for path in render_report([one.folder], out)}
    assert {path.name for path in out.iterdir()} == written | strangers | {"samples-kept.png", "pictures"}
    left = {path.name for path in (out / "pictures").iterdir()}
    assert left < sheets and not any(name.startswith("beta") for name in left)


def test_a_report_knows_every_file_that_it_may_leave() -> None:
    reports = Path(__file__).parents[3] / "reports" / "reference"
    committed = {
        path.relative_to(folder).as_posix()
        for folder in reports.iterdir()
        for path in folder.rglob("*")
        if (folder / "index.html").exists() and path.is_file()
    }
    assert committed - {"records.tar.xz"} and all(map(is_of_a_report, committed - {"records.tar.xz"}))
    assert is_of_a_report("samples-guidance-high_clipscore.png") and not is_of_a_report("records.tar.xz")


def test_the_report_does_not_touch_the_run(run: Any, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    render_report([run.folder], tmp_path / "out")
    assert before == {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def test_every_text_says_first_which_world_it_is_from(run: Any, tmp_path: Path) -> None:
    for path in render_report([run.folder], tmp_path / "out"):
        if path.suffix in (".md", ".tex"):
            assert "not SD3.5-Medium's numbers" in path.read_text().splitlines()[0], path.name


def test_the_page_needs_only_files_beside_it_and_escapes_text(run: Any, tmp_path: Path) -> None:
    run.job("omega", 0.1, status="failed", reason="<script>alert(1)</script>", fractions=[])
    render_report([run.folder], tmp_path / "out")
    html = page_text(tmp_path / "out")
    assert "<script" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "tiny-sd3 &lt;embedded&gt;" in html
    beside = re.findall(r'(?:src|href)="(?!#)([^"]*)', html)
    assert beside == ["training_dynamics.svg", "samples.png"]
    assert all((tmp_path / "out" / name).is_file() for name in beside)
    assert not re.findall(r"@import|url\(", html)
    assert 'content: " ★"' in (tmp_path / "out/index.html").read_text()  # the style itself is not escaped


def test_the_svg_is_well_formed_and_undated(run: Any, tmp_path: Path) -> None:
    render_report([run.folder], tmp_path / "out")
    text = (tmp_path / "out/training_dynamics.svg").read_text()
    ET.fromstring(text)
    assert "dc:date" not in text


def test_lines_start_at_the_base(run: Any, tmp_path: Path) -> None:
    render_report([run.folder], tmp_path / "out")
    header, *rows = (line.split(",") for line in (tmp_path / "out/training_dynamics.csv").read_text().splitlines())
    starts = [dict(zip(header, row, strict=True)) for row in rows]
    starts = [row for row in starts if row["metric"] == "ocr" and float(row["share_of_budget"]) == 0]
    assert len(starts) == 3 and len({row["mean"] for row in starts}) == 1


def test_a_curve_compares_the_prompts_that_all_its_points_have(make_run: Callable[..., Any], tmp_path: Path) -> None:
    """Six tasks of four prompts and six words, drawn twice: of the evaluations before the last, two and three."""
    run = make_run()
    run.draw_a_part(2)
    run.job("alpha", 0.1)
    render_report([run.folder], tmp_path / "out")
    header, *lines = (line.split(",") for line in (tmp_path / "out/training_dynamics.csv").read_text().splitlines())
    points = [dict(zip(header, line, strict=True)) for line in lines]
    counts = {metric: {(p["n"], p["N"]) for p in points if p["metric"] == metric} for metric in ("geneval", "ocr")}
    assert counts == {"geneval": {("24", "24")}, "ocr": {("6", "6")}}
    assert "the 15 prompts of every evaluation" in (tmp_path / "out/training_dynamics.svg").read_text()
    table = (tmp_path / "out/main_results.md").read_text()
    assert "48/48" in table and "12/12" in table and "24/24" not in table

    scores: list[float] = []
    for sample in records.read_lines(run.folder / "alpha--pretty--s0" / "evaluations" / "9" / "samples.jsonl"):
        if sample["prompt_set"] == "signs" and int(sample["prompt_id"].removeprefix("sign-")) % 2 == 0:
            scores.append(sample["scores"]["ocr"]["score"])
    (last,) = (p for p in points if p["metric"] == "ocr" and p["fraction"] == "1.0")
    assert float(last["mean"]) == pytest.approx(np.mean(scores))


def test_a_curve_s_intervals_are_for_the_whole_prompt_list(make_run: Callable[..., Any]) -> None:
    """Every third of four scenes a task is a half of them, and of six words a third."""
    run = make_run()
    run.draw_a_part(3)
    for seed in (0, 1):
        run.job("alpha", 0.1, seed=seed)
    study = read_study([run.folder])
    part = study.of_every_evaluation()
    assert [study.listed(metric) for metric in study.metrics] == [1.0] * 4
    assert [part.listed(metric) for metric in part.metrics] == pytest.approx([1 / 2, 1 / 3, 1 / 2, 1 / 2])
    wider = []
    for metric in part.metrics:
        for point in dynamics(part)["pretty", "alpha", metric.name]:
            found = point.cell.estimate
            assert found is not None and found.listed == part.listed(metric)
            jobs = part.start if point.fraction == 0 else part.rows("pretty")[0].jobs
            alone = make_cell(jobs, point.fraction, metric).estimate  # as if these were all the prompts there are
            assert alone is not None
            wider.append(found.high - found.low - (alone.high - alone.low))
    assert min(wider) > -1e-12 and max(wider) > 0.01  # other prompts may add nothing, and take nothing away


def test_several_runs_make_one_report(run: Any, make_run: Callable[..., Any], tmp_path: Path) -> None:
    other = make_run("second")
    other.job("delta", 0.1, subset="matching")
    written = {path.name for path in render_report([run.folder, other.folder], tmp_path / "out")}
    assert written == FILES | {"samples-matching.png"}
    text = (tmp_path / "out/main_results.md").read_text()
    assert "# Main results: demo + second" in text and "| delta |" in text and "| gamma |" in text


def test_a_run_that_has_only_begun(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run()
    run.experiment["jobs"] = ["alpha--pretty--s0"]
    run.save()
    render_report([run.folder], tmp_path / "out")
    assert "missing 0/48" in (tmp_path / "out/main_results.md").read_text()
    for file in run.folder.glob("base/**/*.json*"):
        file.unlink()
    written = {path.name for path in render_report([run.folder], tmp_path / "bare")}
    of_two = {f"{name}.{suffix}" for name in ("differences", "wins", "targets", "pareto") for suffix in ("md", "csv")}
    assert written == FILES - {"samples.png", *of_two}  # one method alone
    assert "No sample is recorded yet" in page_text(tmp_path / "bare")


def test_a_run_without_jobs_shows_what_it_has(make_run: Callable[..., Any], tmp_path: Path) -> None:
    written = {path.name for path in render_report([make_run().folder], tmp_path / "out")}
    assert written == {"main_results.md", "main_results.csv", "main_results.tex", "samples.png", "index.html"}
    html = page_text(tmp_path / "out")
    assert "Training dynamics" not in html and "Budget used" not in html and '<th scope="row">base</th>' in html


def test_a_lost_image_shows_as_a_grey_tile(run: Any) -> None:
    whole = sheet_of(run.folder)
    (run.folder / "gamma--pretty--s0/evaluations/9/images/single-0-0.png").unlink()
    lost = sheet_of(run.folder)
    assert whole and lost

    def grey(picture: bytes) -> int:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        colours = {colour: count for count, colour in image.getcolors(1 << 20) or []}
        return colours.get(tuple(bytes.fromhex(TILE_GREY[1:])), 0)

    assert grey(whole) == 0 and grey(lost) > 0.9 * 128 * 128


BROKEN = {
    "no picture": b"no picture",
    "nothing": b"",
    "an EPS file": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n%%EOF\n",
    "3.6 gigapixels": bytes.fromhex(
        "89504e470d0a1a0a0000000d494844520000ea600000ea6008020000000fb0e215"  # the header of 60,000 x 60,000 px
        "0000000949444154789c630000000100015eff7df90000000049454e44ae426082"
    ),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_damaged_image_costs_its_tile_and_nothing_else(run: Any, tmp_path: Path, content: bytes) -> None:
    name = "gamma--pretty--s0/evaluations/9/images/single-0-0.png"
    whole = {path.name: path.read_bytes() for path in render_report([run.folder], tmp_path / "whole")}
    (run.folder / name).unlink()
    missing = sheet_of(run.folder)
    (run.folder / name).write_bytes(content)
    drawn = {path.name: path.read_bytes() for path in render_report([run.folder], tmp_path / "out")}
    assert {name for name in whole if whole[name] != drawn[name]} == {"samples.png", "index.html"}
    tiles = [np.asarray(Image.open(io.BytesIO(p or b"")).convert("RGB"), int) for p in (missing, drawn["samples.png"])]
    differs = np.abs(tiles[0] - tiles[1]).max(2) > 0
    assert 0 < differs.sum() < 64 * 16  # the word alone: it is grey as a lost one's tile, and says another word


@pytest.mark.parametrize(("side", "tile"), [(64, 128), (128, 256), (200, 200), (512, 512), (1024, 512)])
def test_tiles_have_the_size_of_their_pictures_or_twice_it(run: Any, side: int, tile: int) -> None:
    assert tile_side(run, side) == tile


def test_tiles_are_halved_where_a_sheet_would_be_huge(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study = read_study([run.folder])
    tiles = sum(len(lines) * len(columns) for lines, columns, _ in samples_parts(study, "pretty"))
    monkeypatch.setattr(plots, "MOST_PIXELS", tiles * 256**2)
    assert tile_side(run, 512) == 256
    monkeypatch.setattr(plots, "MOST_PIXELS", tiles * 256**2 - 1)
    assert tile_side(run, 512) == 128


def tile_side(run: Any, side: int) -> int:
    run.experiment["suite"]["sampler"]["resolution"] = side
    run.save()
    study = read_study([run.folder])
    return plots.tile_of(study, samples_parts(study, "pretty"))


def test_a_folder_in_the_place_of_an_image_costs_its_tile(run: Any, tmp_path: Path) -> None:
    path = run.folder / "gamma--pretty--s0/evaluations/9/images/single-0-0.png"
    path.unlink()
    path.mkdir()
    assert (tmp_path / "out/samples.png") in render_report([run.folder], tmp_path / "out")


def test_an_image_that_was_exchanged_is_not_shown(run: Any) -> None:
    folder = run.folder / "gamma--pretty--s0/evaluations/9"
    whole = sheet_of(run.folder)
    rows = list(records.read_lines(folder / "samples.jsonl"))
    hashed = [row | {"sha256": hashlib.sha256((folder / row["image"]).read_bytes()).hexdigest()} for row in rows]
    records.write_lines(folder / "samples.jsonl", hashed)
    assert sheet_of(run.folder) == whole
    shutil.copyfile(folder / "images/single-1-0.png", folder / "images/single-0-0.png")
    exchanged = sheet_of(run.folder)
    assert exchanged != whole
    shutil.copyfile(folder / "images/two-1-0.png", folder / "images/single-0-0.png")
    assert exchanged == sheet_of(run.folder)
    (folder / "images/single-0-0.png").write_bytes(b"no picture")
    assert exchanged != sheet_of(run.folder) != whole
