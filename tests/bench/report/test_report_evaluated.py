"""Weights and images that are only evaluated: their rows, with or without a base, beside jobs or alone."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_run import FakeRun
from page_text import page_text

from bench.errors import BenchError
from bench.report import render_report, tables
from bench.report.study import read_study

SUITE = {"steps": 20, "guidance_scale": 3.0, "resolution": 64}
ALONE = {"main_results.md", "main_results.csv", "main_results.tex", "samples.png", "index.html"}


def only_evaluated(folder: Path) -> FakeRun:
    """A run as `bench evaluate` leaves it: no job, no base, and nothing that only jobs have."""
    run = FakeRun(folder)
    for key in ("corpus", "budget", "fractions"):
        del run.experiment[key]
    run.save()
    return run


def main(run: Any) -> str:
    study = read_study([run.folder])
    return tables.main_markdown(study, tables.main_sections(study))


def names(markdown: str) -> list[str]:
    table = markdown.partition("## Conditions")[0]
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][2:]


def line_of(markdown: str, name: str) -> list[str]:
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def edit(run: Any, change: Callable[[dict[str, Any]], None], rows: str = "*") -> None:
    """Apply a change to every sample of the rows."""
    for file in run.folder.glob(f"{rows}/evaluations/*/samples.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            change(line)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_without_a_base_there_is_no_row_and_no_difference_for_it(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.evaluated("a", "A", 0.1, kind="pipeline", sampler=SUITE)
    run.evaluated("b", "B & <b>", 0.3, kind="lora", sampler=SUITE)
    text = main(run)
    assert names(text) == ["A", "B & &lt;b>"]
    assert "base" not in text.partition("## Conditions")[0] and "Budget" not in text
    assert all("**" in cell for cell in line_of(text, "B & &lt;b>")[1:])  # what is sampled alike is ranked
    study = read_study([run.folder])
    rows = list(csv.DictReader(io.StringIO(tables.main_csv(study, tables.main_sections(study)))))
    assert [(row["kind"], row["ocr_minus_base"], row["ocr_n"]) for row in rows] == [("evaluated", "", "12")] * 2
    one = render_report([run.folder], tmp_path / "one")
    two = render_report([run.folder], tmp_path / "two")
    assert {path.name for path in one} == ALONE
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))
    html = page_text(tmp_path / "one")
    assert '<th scope="row">B &amp; &lt;b&gt;</th>' in html and "chip" not in html


def test_with_a_base_rows_are_paired_with_it(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.base()
    run.evaluated("a", "A", 0.1, kind="lora", source="/weights", identity="cd" * 32, sampler=SUITE)
    text = main(run)
    assert names(text) == ["base", "A"]
    said = "A (kind lora, source /weights, identity cdcdcdcdcdcd, steps 20, guidance scale 3.0, resolution 64)"
    assert f"as it was given: {said}." in text
    study = read_study([run.folder])
    (row,) = (row for row in tables.main_sections(study)[0].rows if row.kind == "evaluated")
    assert all(c.to_base and c.to_base.low > 0.08 for c in row.cells)


@pytest.mark.parametrize(
    ("what", "ranked"),
    [
        ({"kind": "pipeline", "sampler": SUITE | {"steps": 8}}, False),
        ({"kind": "pipeline", "steps": 8}, False),
        ({"kind": "images"}, False),
        ({"kind": "images", "sampler": SUITE}, True),
        ({"kind": "transformer", "sampler": SUITE | {"scheduler": "euler"}}, True),
    ],
)
def test_only_rows_of_the_suites_sampler_are_ranked(tmp_path: Path, what: dict[str, Any], ranked: bool) -> None:
    run = only_evaluated(tmp_path / "run")
    run.base()
    run.evaluated("a", "A", 0.1, kind="lora", sampler=SUITE)
    run.evaluated("b", "B", 0.3, **what)
    text = main(run)
    assert names(text) == (["base", "A", "B"] if ranked else ["base", "A", "———", "B"])
    assert ("**" in "".join(line_of(text, "B"))) is ranked
    assert ("**" in "".join(line_of(text, "A"))) is not ranked
    assert ("not saying how, and so not ranked: B." in text) is not ranked


def test_rows_of_one_label_are_shown_under_their_folders_names(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.base()
    run.evaluated("runs-a-base", "base", 0.1, kind="pipeline", sampler=SUITE)
    run.evaluated("runs-a-lora", "lora", 0.2, kind="lora", identity="1", sampler=SUITE)
    run.evaluated("runs-b-lora", "lora", 0.3, kind="lora", identity="2", sampler=SUITE)
    run.evaluated("other", "other", 0.4, kind="lora", identity="3", sampler=SUITE)
    study = read_study([run.folder])
    sections = tables.main_sections(study)
    assert [row.method for row in sections[0].rows] == ["base", "other", "runs-a-base", "runs-a-lora", "runs-b-lora"]
    (note,) = (line for line in tables.notes(study, sections) if line.startswith("Evaluated on the same suite"))
    assert "identity 1" in note and "identity 2" in note


def test_beside_jobs_evaluated_rows_follow_the_context_and_are_not_ranked(ranked: FakeRun) -> None:
    run = ranked
    run.context("flux", "FLUX.1", 0.4)
    run.evaluated("a", None, 0.5, kind="lora", sampler=SUITE)
    text = main(run)
    assert names(text) == ["base", "———", "FLUX.1", "———", "evaluated--a", "———", "alpha", "beta_long", "gamma"]
    cells = line_of(text, "evaluated--a")
    assert cells[1:3] == ["–", "–"] and "**" not in "".join(cells)
    assert line_of(text, "gamma")[3].startswith("**")
    study = read_study([run.folder])
    row = next(row for row in tables.main_sections(study)[0].rows if row.kind == "evaluated")
    assert row.cells[0].to_base and row.cells[0].to_base.excludes_zero
    assert ["evaluated--a", "finished", "1/1"] in [job[:3] for job in tables.jobs(study).rows]


def test_evaluations_join_a_run_that_trained(run: FakeRun, tmp_path: Path) -> None:
    other = only_evaluated(tmp_path / "other")
    other.experiment |= {"backbone": "another", "backbone_hash": "77"}
    other.save()
    other.evaluated("a", "A", 0.5, kind="pipeline", sampler=SUITE)
    for runs in ([run.folder, other.folder], [other.folder, run.folder]):
        study = read_study(runs)
        assert study.experiment.backbone == "tiny-sd3" and study.base
        assert [job.label for job in study.evaluated] == ["A"] and len(study.jobs) == 3
    other.base()
    with pytest.raises(BenchError, match="differ in backbone"):
        read_study([run.folder, other.folder])


def test_one_label_for_two_models_ends_in_one_line(tmp_path: Path) -> None:
    one, two = only_evaluated(tmp_path / "one"), only_evaluated(tmp_path / "two")
    one.evaluated("a", "A", 0.1, kind="lora", identity="1")
    two.evaluated("a", "A", 0.1, kind="lora", identity="2")
    with pytest.raises(BenchError, match=r"\(they differ in identity\); evaluate one of them under another path, or"):
        read_study([one.folder, two.folder])


def test_jobs_without_a_budget_end_in_one_line(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.experiment["jobs"] = ["a--b--s0"]
    run.save()
    with pytest.raises(BenchError, match="jobs need a backbone"):
        read_study([run.folder])


def test_what_is_not_scored_yet_is_missing_and_nothing_else_is(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.evaluated("a", "A", 0.1, kind="lora")

    def unscored(line: dict[str, Any]) -> None:
        if line["repeat"] == 1:
            line["scores"].pop("clip", None)

    edit(run, unscored)
    geneval, ocr, clip, style = line_of(main(run), "A")[1:]
    assert clip == "missing 24/48"
    assert geneval.endswith(" 48/48") and ocr.endswith(" 12/12") and style.endswith(" 48/48")


def test_a_missing_file_says_once_how_to_get_it(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.base()
    run.evaluated("a", "A", 0.1, kind="lora")
    how = "run `bench assets fetch style` <now>"

    def lacks(line: dict[str, Any]) -> None:
        if "style" in line["scores"]:
            line["scores"]["style"] = {"version": 1, "error": f"missing: {how}"}

    edit(run, lacks)
    text = main(run)
    assert line_of(text, "base")[4] == line_of(text, "A")[4] == "missing 0/48"
    assert text.count("Aesthetic is missing: run `bench assets fetch style` &lt;now>") == 1
    render_report([run.folder], tmp_path / "out")
    html = page_text(tmp_path / "out")
    assert html.count("<li>Aesthetic is missing: run `bench assets fetch style` &lt;now&gt;</li>") == 1

    def breaks(line: dict[str, Any]) -> None:
        if "style" in line["scores"]:
            line["scores"]["style"] = {"version": 1, "error": "RuntimeError: no"}

    edit(run, breaks, rows="base")
    assert line_of(main(run), "base")[4] == "failed 0/48"


def test_an_image_that_is_not_there_is_counted(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.evaluated("a", "A", 0.1, kind="images")

    def lost(line: dict[str, Any]) -> None:
        if line["prompt_id"] == "single-0" and line["repeat"] == 1:
            line.pop("image")
            line["problem"] = "not there"
            line["scores"] = {name: {"version": 1, "error": "not there"} for name in line["scores"]}

    edit(run, lost)
    geneval, ocr, clip, style = line_of(main(run), "A")[1:]
    assert geneval == clip == style == "failed 47/48" and ocr.endswith(" 12/12")
    assert {path.name for path in render_report([run.folder], tmp_path / "out")} == ALONE


def test_what_is_not_ranked_is_read_by_its_difference(run: FakeRun, tmp_path: Path) -> None:
    run.experiment["suite"]["metrics"][2]["ranked"] = False
    run.save()
    text = main(run)
    assert "| ClipScore |" in text and "| GenEval ↑ |" in text
    cells = line_of(text, "beta_long")
    assert "**" not in cells[5] and cells[5].endswith("] to base") and ", +0.1" in cells[5]
    assert "to base" not in cells[3]
    assert "ClipScore: neither direction is better" in text
    study = read_study([run.folder])
    assert "ClipScore &" in tables.main_tex(study, tables.main_sections(study))
    render_report([run.folder], tmp_path / "out")
    row = page_text(tmp_path / "out").split('data-row="beta_long"')[1].split("</tr>")[0]
    (cell,) = re.findall(r'<td class="score drift" data-metric="clip">(.*?)</td>', row, re.DOTALL)
    assert 'class="chip "' in cell and "▲" not in cell and "best" not in cell


def test_nothing_is_there_yet(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    assert {path.name for path in render_report([run.folder], tmp_path / "out")} == ALONE - {"samples.png"}
    assert "No model, scored by the suite embedded v1" in main(run)


def test_many_metrics_are_spread_over_tables(run: FakeRun, tmp_path: Path) -> None:
    run.job("alpha", 0.05, subset="other")
    for number in range(6):
        extra = {**run.experiment["suite"]["metrics"][3], "name": f"extra{number}", "label": f"Extra {number}"}
        run.experiment["suite"]["metrics"].append(extra)
    run.save()
    text = main(run)
    heads = [line.split(" | ") for line in text.splitlines() if line.startswith("| Method |")]
    assert [len(head) - 3 for head in heads] == [5, 5] * 2  # ten metrics, two subsets
    assert heads[1][-1] == "Extra 5 ↑ |"
    study = read_study([run.folder])
    assert tables.main_tex(study, tables.main_sections(study)).count(r"\begin{tabular}{lrrrrrr}") == 4
    render_report([run.folder], tmp_path / "out")
    html = page_text(tmp_path / "out")
    assert html.count('<table class="main"') == 2  # which scroll, and are not spread
    assert html.count('data-metric="extra5">Extra 5 ↑</th>') == 2
    svg = (tmp_path / "out/training_dynamics.svg").read_text()
    titles = re.findall(r"<!-- (Extra \d ↑) -->.*?<!-- (.+?) -->", svg, re.DOTALL)  # the subset is the next line
    assert sorted(titles) == [(f"Extra {n} ↑", subset) for n in range(6) for subset in ("other", "pretty")]
    assert svg.count("<!-- share of budget spent -->") == 4


def test_every_page_of_numbers_says_what_they_were_measured_under(run: FakeRun, tmp_path: Path) -> None:
    run.experiment["suite"]["seed"] = 2604
    run.experiment["suite"]["metrics"][2]["weights"] = {"clip": "ab" * 8}
    run.save()
    render_report([run.folder], tmp_path / "out", published=True)
    facts = ["embedded v1", "20 steps, CFG 3, 64 px", "the suite's seed 2604", "geneval v1, 48 images of scenes"]
    for name in ("main_results.md", "main_results.tex", "published.md", "index.html"):
        text = (tmp_path / "out" / name).read_text().replace("&#39;", "'")
        assert all(fact in text for fact in facts), name
    assert '"clip": "abababababababab"' in (tmp_path / "out/main_results.md").read_text()


def notes(run: FakeRun) -> list[str]:
    study = read_study([run.folder])
    return tables.notes(study, tables.main_sections(study))


def fails(run: FakeRun, metrics: tuple[str, ...], reasons: Callable[[int], str | None], rows: str = "*") -> None:
    """Put an error in place of the scores of images, counted in their order, that have a reason."""
    for row in sorted(path.name for path in run.folder.glob(rows) if path.is_dir()):
        number = -1

        def change(line: dict[str, Any]) -> None:
            nonlocal number
            for name in set(metrics) & line["scores"].keys():
                number += name == metrics[0]
                if reason := reasons(number):
                    line["scores"][name] = {"version": 1, "error": reason}

        edit(run, change, row)


def test_columns_that_lack_one_file_share_a_line(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.evaluated("a", "A", 0.1, kind="lora")
    fails(run, ("geneval",), lambda _: "missing: asset judge is missing; run `bench assets fetch judge`")
    fails(run, ("clip",), lambda _: "missing: asset judge is missing; run `bench assets fetch judge`")
    fails(run, ("style",), lambda _: "missing: asset other is missing")
    assert [line for line in notes(run) if "missing: " in line] == [
        "GenEval and ClipScore are missing: asset judge is missing; run `bench assets fetch judge`",
        "Aesthetic is missing: asset other is missing",
    ]


def test_what_failed_says_where_and_why_once(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.evaluated("sft", "sft", 0.1, kind="images")
    run.evaluated("rl", "rl", 0.1, kind="lora")
    fails(run, ("ocr",), lambda n: "the image signs-3 is not there" if n == 3 else None, "evaluated--sft")
    first = "RuntimeError: no"
    fails(run, ("geneval",), lambda n: [first, None, "one", "two", "two"][n] if n < 5 else None)
    fails(run, ("clip",), lambda n: first if n < 2 else None, "evaluated--rl")
    fails(run, ("style",), lambda n: first if n < 2 else None, "evaluated--rl")
    assert [line for line in notes(run) if "failed on" in line] == [
        f"GenEval failed on 4 of 48 images of rl and 4 of 48 images of sft: {first} (and 2 other reasons)",
        f"ClipScore and Aesthetic failed on 2 of 48 images of rl: {first}",
        "OCR failed on 1 of 12 images of sft: the image signs-3 is not there",
    ]


def test_what_failed_fills_no_page(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    for row in "abcdef":
        run.evaluated(row, row, 0.1, kind="lora")
        fails(run, ("ocr",), lambda _, row=row: f"{row} {'x' * 5000}", f"evaluated--{row}")  # type: ignore[misc]
    fails(run, ("clip",), lambda n: "no" if n < 1 else None)
    told = [line for line in notes(run) if "ailed on" in line or "urther failures" in line]
    assert len(told) == 5 and all(len(line) < 400 for line in told)
    where = "1 of 48 images of a, 1 of 48 images of b, 1 of 48 images of c, 1 of 48 images of d and 2 more rows"
    assert f"ClipScore failed on {where}: no" in told
    assert told[-1] == "Further failures, 3 of them, stand in the runs' samples.jsonl."


def test_a_job_that_failed_has_no_score_that_did(run: FakeRun) -> None:
    run.job("omega", 0.1, status="failed", reason="the loss is NaN", fractions=[])
    assert line_of(main(run), "omega")[3] == "failed 0/48"
    assert not any("failed on" in line or "not scored yet" in line for line in notes(run))
    fails(run, ("ocr",), lambda _: "no", "alpha--*")
    assert "OCR failed on 12 of 12 images of alpha on pretty: no" in notes(run)


def test_columns_not_scored_yet_name_the_command(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.evaluated("a", "A", 0.1, kind="lora")
    assert not any("not scored yet" in line for line in notes(run))
    edit(run, lambda line: line["scores"].pop("clip", None))
    assert "ClipScore is not scored yet, in whole or in part; `bench score RUN` fills it." in notes(run)
    run.experiment["suite"]["metrics"][1]["version"] = 2  # a score of an older version is none
    run.save()
    assert "OCR and ClipScore are not scored yet, in whole or in part; `bench score RUN` fills them." in notes(run)


def test_given_images_have_no_sampler(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.evaluated("a", "A", 0.1, kind="images", sizes={"64x64": 59, "32x48": 1})
    text = main(run)
    assert "v1 (images as given, 32x48 and 64x64 px) at commit" in text
    assert "| Sampler | images as given, 32x48 and 64x64 px |" in text and "| Noise |" not in text
    assert "20 " not in text.partition("## Conditions")[0].partition("Each cell")[0]
    assert "not ranked" not in text and "———" not in text
    run.evaluated("b", "B", 0.1, kind="images", sizes={f"{side}x{side}": 1 for side in range(8)})
    text = main(run)
    assert "(images as given, 10 sizes) at" in text
    assert "and so not ranked: A and B." in text and "———" not in text and "**" not in text
    run.evaluated("c", "C", 0.1, kind="lora", sampler=SUITE)
    text = main(run)
    assert "(20 sampling steps, guidance 3, 64 px; A and B: images as given, 10 sizes) at" in text
    assert "| Sampler | 20 steps, CFG 3, 64 px; A and B: images as given, 10 sizes |" in text
    assert "the same for every row drawn here, another" in text
    assert names(text) == ["C", "———", "A", "B"] and "and so not ranked: A and B." in text


def test_rows_of_other_t5_lengths_are_ranked_apart(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.evaluated("a", "A", 0.1, kind="lora", sampler=SUITE, max_sequence_length=77)
    run.evaluated("b", "B", 0.2, kind="lora", sampler=SUITE)
    text = main(run)
    assert names(text) == ["A", "B"] and "| T5 tokens | 77 |" in text and "ranked apart" not in text
    assert "**" in line_of(text, "B")[1]
    run.evaluated("b", "B", 0.2, kind="lora", sampler=SUITE, max_sequence_length=77)
    run.evaluated("c", "C", 0.3, kind="lora", sampler=SUITE, max_sequence_length=256)
    run.evaluated("d", "D", 0.4, kind="images")
    text = main(run)
    assert names(text) == ["A", "B", "———", "C", "———", "D"] and "| T5 tokens | differs by row |" in text
    assert "Rows that read different numbers of T5 tokens are ranked apart: A and B (77); C (256)." in text
    assert "and so not ranked: D." in text
    assert ["**" in line_of(text, name)[1] for name in "ABCD"] == [False, True, False, False]


def test_a_base_is_ranked_with_rows_of_its_t5_length(tmp_path: Path) -> None:
    run = only_evaluated(tmp_path / "run")
    run.experiment["max_sequence_length"] = 256
    run.save()
    run.base()
    run.evaluated("a", "A", 0.1, kind="lora", sampler=SUITE, max_sequence_length=77)
    run.evaluated("b", "B", 0.2, kind="lora", sampler=SUITE, max_sequence_length=256)
    text = main(run)
    assert names(text) == ["base", "B", "———", "A"]
    assert "ranked apart: base and B (256); A (77)." in text and "| T5 tokens | differs by row |" in text


def test_runs_that_differ_in_added_columns_name_them(tmp_path: Path) -> None:
    one, two = only_evaluated(tmp_path / "one"), only_evaluated(tmp_path / "two")
    one.evaluated("a", "A", 0.1, kind="lora")
    two.evaluated("b", "B", 0.1, kind="lora")
    column = one.experiment["suite"]["metrics"][3] | {"added": True}
    extra = [column | {"name": name, "label": name} for name in ("hps", "dino")]
    one.experiment["suite"]["metrics"] += extra
    one.save()
    for runs in ([one.folder, two.folder], [two.folder, one.folder]):
        with pytest.raises(BenchError) as caught:
            read_study(runs)
        assert str(caught.value) == (
            f"{runs[0]} and {runs[1]} differ in suite, but only in columns added to it: dino, hps; run "
            f"`bench score {two.folder} --metrics hps@scenes,dino@scenes` first"
        )
    two.experiment["suite"]["metrics"] += extra[::-1]  # in whatever order they were added
    two.save()
    assert len(read_study([one.folder, two.folder]).evaluated) == 2
    two.experiment["suite"]["metrics"][-1] = extra[0] | {"weights": "others"}
    two.save()
    with pytest.raises(BenchError, match=r"only in columns added to it: hps, which they did not compute alike; render"):
        read_study([one.folder, two.folder])
    two.experiment["suite"]["metrics"][0]["version"] = 2
    two.save()
    with pytest.raises(BenchError, match="differ in suite and cannot share a report; render them apart"):
        read_study([one.folder, two.folder])


def test_runs_that_were_sampled_at_other_levels_share_no_report(tmp_path: Path) -> None:
    one, two = only_evaluated(tmp_path / "one"), only_evaluated(tmp_path / "two")
    one.evaluated("a", "A", 0.1, kind="lora", sampler=SUITE)
    two.evaluated("a", "A", 0.1, kind="lora", sampler=SUITE | {"levels": "diffusers-0.42"})
    for named, shared in (("diffusers-0.42", True), ("shifted", False)):
        two.experiment["suite"]["sampler"]["levels"] = named
        two.save()
        if shared:  # a record that names no levels is from when there was one list
            assert len(read_study([one.folder, two.folder]).evaluated) == 1
        else:
            with pytest.raises(BenchError, match="differ in suite and cannot share a report; render them apart"):
                read_study([one.folder, two.folder])


def test_of_rows_that_are_only_evaluated_the_weights_are_fixed(tmp_path: Path, make_run: Callable[..., Any]) -> None:
    """A table said that trainings vary, where no interval held another training."""
    run = only_evaluated(tmp_path / "run")
    run.evaluated("a", "A", 0.1, kind="pipeline", sampler=SUITE)
    run.evaluated("b", "B", 0.2, kind="pipeline", sampler=SUITE)
    fixed = "prompts and weights are fixed, and noise varies. What another training would give is not in it."
    assert fixed in main(run) and "trainings vary" not in main(run)
    trained = make_run("trained")
    trained.job("alpha", 0.1)
    assert "the prompts are fixed, and noise and trainings vary." in main(trained) and fixed not in main(trained)


def test_one_prompt_with_one_score_has_an_unknown_interval(tmp_path: Path) -> None:
    """It ended in a traceback of a linear-algebra routine, or in nan."""
    run = only_evaluated(tmp_path / "run")
    run.signs = 1
    for column in run.experiment["suite"]["metrics"]:
        if column["name"] == "ocr":
            column |= {"per_prompt": True, "images": run.repeats}
    run.save()
    for number, slug in enumerate(("a", "b", "c")):
        run.evaluated(slug, slug.upper(), number / 10, kind="pipeline", sampler=SUITE)
    edit(run, lambda line: line["scores"].get("ocr", {}).update(score=0.5 + len(line["prompt_id"]) / 100))
    render_report([run.folder], tmp_path / "out")
    text = (tmp_path / "out/main_results.md").read_text()
    assert re.search(r"\| A \|.* 0\.5\d\d \[unknown\] 2/2", text)
    rows = list(csv.DictReader((tmp_path / "out/main_results.csv").open()))
    assert len(rows) == 3 and all(row["ocr_mean"] and not row["ocr_low"] and not row["ocr_high"] for row in rows)
    assert not any("nan" in path.read_text().lower() for path in (tmp_path / "out").glob("*.csv"))
    assert "[unknown]" in page_text(tmp_path / "out")
