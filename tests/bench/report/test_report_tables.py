"""What the tables print: marks, gaps, shares, costs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_text import page_text

from bench.report import method_inputs, method_settings, paradigms, render_report, tables
from bench.report.study import read_study
from bench.report.text import Grid, duration, listed, memory, scientific, tex


def line_of(markdown: str, method: str) -> list[str]:
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {method} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def main(run: Any) -> str:
    study = read_study([run.folder])
    return tables.main_markdown(study, tables.main_sections(study))


def test_the_trained_reward_is_marked_and_not_ranked(ranked: Any) -> None:
    text = main(ranked)
    geneval, ocr, clip, style = line_of(text, "gamma")[3:]
    assert all(cell.startswith("**") for cell in (geneval, ocr, clip))
    assert style.endswith("†") and "**" not in style
    assert line_of(text, "beta_long")[-1].startswith("**")  # best of those that are ranked
    assert "† The method was trained on this metric" in text


def test_a_metric_that_preference_pairs_encode_is_marked_and_not_ranked(ranked: Any) -> None:
    for seed in (0, 1):
        path = ranked.folder / f"beta_long--pretty--s{seed}" / "job.json"
        preferences = {"corpus": "liked", "pairs": 5, "encodes": ["style"]}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"preferences": preferences}))
    text = main(ranked)
    assert line_of(text, "beta_long")[-1].endswith("†") and not line_of(text, "beta_long")[-2].endswith("†")
    assert line_of(text, "alpha")[-1].startswith("**")  # best of those that are left


def test_the_base_is_never_the_best_in_diversity(make_run: Callable[..., Any]) -> None:
    run = make_run()
    for seed in (0, 1):
        run.job("alpha", -0.2, seed=seed)
    run.experiment["suite"]["metrics"][2]["per_prompt"] = True
    run.write("experiment.json", run.experiment)
    assert [cell.startswith("**") for cell in line_of(main(run), "base")[3:]] == [True, True, False, True]


def test_nothing_is_bold_without_a_clear_difference(make_run: Callable[..., Any]) -> None:
    run = make_run()
    for seed in (0, 1):
        run.job("alpha", 0.0001, seed=seed)
        run.job("beta", 0.0, seed=seed)
    assert "**" not in main(run)


def test_the_base_can_be_best(make_run: Callable[..., Any]) -> None:
    run = make_run()
    for seed in (0, 1):
        run.job("alpha", -0.2, seed=seed)
    assert all(cell.startswith("**") for cell in line_of(main(run), "base")[3:])


def test_with_one_seed_nothing_is_called_better_or_best(run: Any, tmp_path: Path) -> None:
    """The rows differ by far more than their intervals, which say nothing of a second training."""
    paths = render_report([run.folder], tmp_path / "out")
    for path in (path for path in paths if path.suffix in (".md", ".csv", ".tex", ".html")):
        text = page_text(path.parent) if path.suffix == ".html" else path.read_text()
        assert not any(mark in text for mark in "▲▼★"), path.name
    text = (tmp_path / "out/main_results.md").read_text()
    assert "**" not in text and r"\textbf" not in (tmp_path / "out/main_results.tex").read_text()
    rows = list(csv.DictReader((tmp_path / "out/main_results.csv").open()))
    assert {row[f"{name}_best"] for row in rows for name in ("geneval", "ocr", "clip", "style")} == {"0"}
    page = page_text(tmp_path / "out")
    assert "value best" not in page and "chip better" not in page and "chip worse" not in page
    assert "badge clear" not in page and "badge level" not in page
    for name in ("main_results.md", "main_results.tex", "index.html"):
        told = (tmp_path / "out" / name).read_text().replace(r"\_", "_")
        assert "Seed variance unknown for alpha on pretty, beta_long on pretty and gamma on pretty" in told, name
        assert "and so which method is better" in told and "the same command with --seeds 0,1,2" in told, name


def test_a_row_of_one_seed_stands_beside_the_ranking(ranked: Any, tmp_path: Path) -> None:
    ranked.job("lone", 0.9)
    render_report([ranked.folder], tmp_path / "out")
    text = (tmp_path / "out/main_results.md").read_text()
    assert "**" not in "".join(line_of(text, "lone"))
    assert line_of(text, "gamma")[3].startswith("**")
    assert "Seed variance unknown for lone on pretty, of one seed. What it can tell is how the model" in text
    page = page_text(tmp_path / "out").split('class="main"')[1].split("</table>")[0]
    lines = re.findall(r'<tr class="method"[^>]*>(.*?)</tr>', page, re.S)
    assert [line.count("▲") for line in lines] == [4, 4, 4, 0]


def test_a_row_that_used_less_of_its_budget_is_not_the_best(ranked: Any) -> None:
    for seed in (0, 1):
        ranked.job("delta", 0.6, seed=seed, share=0.95 if seed else 0.998)
    text = main(ranked)
    assert line_of(text, "delta")[2] == "95.0 % ‡" and "**" not in "".join(line_of(text, "delta"))
    assert all(cell.startswith("**") for cell in line_of(text, "gamma")[3:6])
    assert "not compared at equal compute, and not ranked" in text


def test_a_short_row_is_flagged(run: Any) -> None:
    text = main(run)
    assert line_of(text, "gamma")[2] == "95.0 % ‡"
    assert line_of(text, "alpha")[2] == "99.8 %"
    assert "‡ Used less than" in text


def test_marks_that_do_not_occur_are_not_explained(make_run: Callable[..., Any]) -> None:
    run = make_run()
    run.job("alpha", 0.1)
    text = main(run)
    assert "†" not in text and "‡" not in text and "missing" not in text


def test_unfinished_jobs_print_how_much_is_there(make_run: Callable[..., Any]) -> None:
    run = make_run()
    run.job("alpha", 0.1, fractions=[0.333], status="failed", reason="NaN")
    run.job("beta", 0.1, fractions=[0.333], status="interrupted")
    for seed in (0, 1):
        run.job("gamma", 0.1, seed=seed, status="failed", reason="disk")  # its last evaluation is complete all the same
    text = main(run)
    assert line_of(text, "alpha")[3] == "failed 0/48"
    assert line_of(text, "beta")[3] == "missing 0/48"
    assert line_of(text, "gamma")[3].startswith("0.")  # not bold: the others might be the best
    assert "has no score yet has no best" in text


def test_the_base_is_repeated_in_every_subset(make_run: Callable[..., Any]) -> None:
    run = make_run()
    run.job("alpha", 0.1, subset="pretty")
    run.job("alpha", 0.1, subset="matching")
    text = main(run)
    assert text.count("| base |") == 2
    assert text.index("## Subset: pretty") < text.index("## Subset: matching")


def test_the_csv_holds_numbers(ranked: Any) -> None:
    study = read_study([ranked.folder])
    rows = list(csv.DictReader(io.StringIO(tables.main_csv(study, tables.main_sections(study)))))
    assert [row["method"] for row in rows] == ["base", "alpha", "beta_long", "gamma"]
    base, _, beta, gamma = rows
    assert float(beta["geneval_minus_base"]) == pytest.approx(float(beta["geneval_mean"]) - float(base["geneval_mean"]))
    assert float(beta["ocr_low"]) < float(beta["ocr_mean"]) < float(beta["ocr_high"])
    assert (beta["ocr_n"], beta["ocr_N"], base["ocr_minus_base"]) == ("24", "24", "")
    assert (gamma["style_trained_on"], gamma["style_best"], gamma["clip_best"]) == ("1", "0", "1")


def test_the_latex_escapes_what_it_must(run: Any) -> None:
    study = read_study([run.folder])
    text = tables.main_tex(study, tables.main_sections(study))
    assert r"beta\_long" in text and r"Rendered shapes \& tiny-sd3 $<$embedded$>$" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    assert tex("50 % of {a} ~ b\\c ‡") == r"50 \% of \{a\} \textasciitilde{} b\textbackslash{}c $^\ddagger$"


def test_paradigms_print_what_is_declared_and_what_is_measured(make_run: Callable[..., Any]) -> None:
    run = make_run()
    run.job("alpha", 0.1, updates=90)
    run.job("gamma", 0.1, updates=9, reward="style")
    run.experiment["jobs"].append("late--pretty--s0")
    run.save()
    grid = paradigms.paradigms(read_study([run.folder]))
    alpha, gamma, late = (dict(zip(grid.headers, row, strict=True)) for row in grid.rows)
    assert alpha["Training signal"] == "training signal of alpha"
    assert (alpha["Reward model"], gamma["Reward model"], late["Reward model"]) == ("no", "yes", "–")
    assert alpha["Training cost (measured)"].startswith("1.0× per update")
    assert gamma["Training cost (measured)"].startswith("10.0× per update (1.11e11 FLOPs), 9 updates in 99.8 %")
    assert late["Training cost (measured)"] == "–"


def test_what_each_method_was_given_is_named(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run()
    run.job("alpha", 0.1)
    run.job("gamma", 0.1, reward="style")
    run.job("gamma", 0.1, reward="style", subset="matching")
    run.job("delta", 0.1, reward="style")
    run.job("delta", 0.1, reward="other", subset="matching")
    run.job("omega", 0.1, preferences=1200, tuned={"omega": {"lr": 3e-4, "passes": 2}})
    run.job("a+b", 0.1, tuned={"a": {"lr": 1e-3}, "b": {"lr": 2e-5}})
    run.experiment["jobs"].append("late--pretty--s0")
    run.save()
    assert method_inputs.inputs(read_study([run.folder])).rows == [
        ["alpha", "yes", "no", "no", "no", "no"],
        ["gamma", "yes", "no", "Aesthetic", "no", "no"],
        ["delta", "yes", "no", "Aesthetic on pretty; other on matching", "no", "no"],
        ["omega", "no", "no", "no", "liked, 1,200 pairs", "lr 0.0003, passes 2 (6 trials on validation)"],
        ["a+b", "yes", "no", "no", "no", "a: lr 0.001; b: lr 2e-05 (6 trials on validation)"],
        ["late", "–", "–", "–", "–", "–"],
    ]
    render_report([run.folder], tmp_path / "out")
    assert "| omega | no | no | no | liked, 1,200 pairs | lr 0.0003" in (tmp_path / "out/paradigms.md").read_text()
    assert "<td>liked, 1,200 pairs</td>" in (tmp_path / "out/index.html").read_text()


def test_the_settings_and_the_origin_of_each_row_are_told(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run()
    for method in ("alpha", "gamma", "mine", "a+b"):
        run.job(method, 0.1)
    run.job("gamma", 0.1, subset="matching")

    def record(job: str, **changes: Any) -> None:
        path = run.folder / job / "job.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    record("alpha--pretty--s0", config={"lr": 3e-4, "betas": [0.9, 0.999], "guard": False}, origin="built-in")
    for subset, lr in (("pretty", 1e-3), ("matching", 2e-3)):
        record(f"gamma--{subset}--s0", config={"lr": lr}, origin={"package": "far", "version": "1.2"})
    record("mine--pretty--s0", config={}, origin={"file": "<b>.py", "sha256": "0123456789abcdef"})
    stages = [{"name": "a", "end": 0.5, "origin": "built-in"}, {"name": "b", "end": 1.0, "origin": "built-in"}]
    record("a+b--pretty--s0", config={"a": {"lr": 1.0}, "b": {"lr": 2.0}}, origin=None, stages=stages)
    run.experiment["jobs"].append("late--pretty--s0")
    run.save()
    assert method_settings.settings(read_study([run.folder])).rows == [
        ["alpha", "built-in", "lr 0.0003, betas [0.9, 0.999], guard false"],
        ["gamma", "far 1.2", "lr 0.001 on pretty; lr 0.002 on matching"],
        ["mine", "<b>.py (SHA-256 0123456789ab…)", "–"],
        ["a+b", "built-in", "a (to 50 % of the budget): lr 1; b (to 100 % of the budget): lr 2"],
        ["late", "–", "–"],
    ]
    render_report([run.folder], tmp_path / "out")
    assert "| alpha | built-in | lr 0.0003, betas" in (tmp_path / "out/paradigms.md").read_text()
    assert "<td>&lt;b&gt;.py (SHA-256 0123456789ab…)</td>" in (tmp_path / "out/index.html").read_text()


def test_compute_is_readable_and_exact(run: Any) -> None:
    study = read_study([run.folder])
    text = dict(zip(tables.compute(study).headers, tables.compute(study).rows[0], strict=True))
    assert (text["FLOPs"], text["Time"], text["Peak memory"]) == ("9.98e11", "1 min 26 s", "1.2 GiB")
    row = next(csv.DictReader(io.StringIO(tables.compute_csv(study))))
    assert (row["updates"], row["seconds"], row["peak_memory_bytes"]) == ("90", "85.5", "1300000000")


def test_jobs_say_why_they_failed(run: Any) -> None:
    run.job("omega", 0.1, status="failed", reason="the loss is NaN", fractions=[])
    job = tables.jobs(read_study([run.folder])).rows[-1]
    assert job == ["omega--pretty--s0", "failed", "0/3", "the loss is NaN", "none"]


def test_numbers_and_lists_as_text() -> None:
    assert [scientific(x) for x in (0, 1.234e13, 5)] == ["0", "1.23e13", "5.00e0"]
    assert [duration(x) for x in (9.6, 61, 3720)] == ["10 s", "1 min 01 s", "1 h 02 min"]
    assert [memory(x) for x in (0, 2048, 3 << 20, 5 << 30)] == ["–", "2.0 KiB", "3.0 MiB", "5.0 GiB"]
    assert [listed(x) for x in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]
    assert Grid(["a"], [["x|y\n<b>"]]).markdown() == "| a |\n| --- |\n| x\\|y &lt;b> |\n"


SETTINGS = {"steps": 50, "guidance_scale": 3.5, "resolution": 1024, "fingerprint": "ab" * 32, "dtype": None}


def a_run_with_context(make_run: Callable[..., Any]) -> Any:
    """Two methods, and two other models that would top every column if they were ranked."""
    run = make_run()
    for seed in (0, 1):
        run.job("alpha", 0.0, seed=seed)
        run.job("beta", 0.1, seed=seed)
    run.context("sd-xl", "SD-XL | <b>", 0.5, steps=30)
    run.context("flux", "FLUX.1 & 50%", 0.4, **SETTINGS)
    return run


def test_context_rows_stand_between_rules_and_are_not_ranked(make_run: Callable[..., Any]) -> None:
    text = main(a_run_with_context(make_run))
    table = text.partition("## Conditions")[0]
    first = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert first == ["Method", "---", "base", "———", "FLUX.1 & 50%", "SD-XL \\", "———", "alpha", "beta"]
    flux = line_of(text, "FLUX.1 & 50%")
    assert flux[1:3] == ["–", "–"] and flux[3].startswith("1.0") and "**" not in "".join(flux)
    assert all(cell.startswith("**") for cell in line_of(text, "beta")[3:])
    said = "FLUX.1 & 50% (steps 50, guidance scale 3.5, resolution 1024, fingerprint abababababab)"
    assert f"neither trained nor ranked: {said}; SD-XL \\| &lt;b> (steps 30)." in text


def test_context_rows_are_the_same_in_every_format(make_run: Callable[..., Any], tmp_path: Any) -> None:
    study = read_study([a_run_with_context(make_run).folder])
    sections = tables.main_sections(study)
    rows = list(csv.DictReader(io.StringIO(tables.main_csv(study, sections))))
    assert [row["kind"] for row in rows] == ["base", "context", "context", "method", "method"]
    flux = rows[1]
    assert (flux["method"], flux["share_of_budget"], flux["backbone"]) == ("FLUX.1 & 50%", "", "")
    assert (flux["geneval_best"], flux["geneval_minus_base"]) == ("0", "")
    assert flux["settings"].startswith("steps 50, guidance scale 3.5")
    assert float(flux["geneval_mean"]) > float(rows[-1]["geneval_mean"])
    tex_lines = tables.main_tex(study, sections).splitlines()
    rules = [i for i, line in enumerate(tex_lines) if line == r"\midrule"]
    assert [tex_lines[i + 1].split(" & ")[0] for i in rules] == ["base", r"FLUX.1 \& 50\%", "alpha"]
    assert r"FLUX.1 \& 50\% (steps 50" in "\n".join(tex_lines)
    render_report([tmp_path / study.experiment.name], tmp_path / "out")
    html = page_text(tmp_path / "out")
    bodies = re.findall(r"<tbody>(.*?)</tbody>", html.split('class="main"')[1].split("</table>")[0], re.S)
    assert [re.findall(r'<tr class="(\w+)"', body) for body in bodies] == [["base"], ["context"] * 2, ["method"] * 2]
    assert "FLUX.1 &amp; 50% (steps 50" in html and "SD-XL | &lt;b&gt;" in html
    assert "best" not in bodies[1] and "chip" not in bodies[1]
    assert "flux" not in (tmp_path / "out/training_dynamics.csv").read_text()
    assert "FLUX" not in (tmp_path / "out/training_dynamics.svg").read_text()
    assert ["context--flux", "finished", "1/1"] in [job[:3] for job in tables.jobs(study).rows]


def test_without_context_there_is_no_rule(run: Any) -> None:
    study = read_study([run.folder])
    text = main(run)
    assert "———" not in text and "For context" not in text
    assert tables.main_tex(study, tables.main_sections(study)).count(r"\midrule") == 1


def test_context_rows_of_several_runs_are_shown_once(make_run: Callable[..., Any]) -> None:
    one, two = make_run("one"), make_run("two")
    one.context("flux", None, 0.1)
    two.context("flux", "FLUX.1", 0.1)
    (one.folder / "context--flux/status.json").write_text('{"v": 1, "status": "started", "reason": null}')
    (context,) = read_study([one.folder, two.folder]).context
    assert (context.label, context.status) == ("FLUX.1", "finished")
    assert read_study([one.folder]).context[0].label == "context--flux"
    (one.folder / "context--flux/evaluations/0/samples.jsonl").unlink()
    assert line_of(main(one), "context--flux")[3] == "missing 0/48"
