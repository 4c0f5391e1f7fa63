"""Each method at the suite's scale of guidance and at the one that was tuned for it."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from bench.report import guidance, method_inputs, own_scales
from bench.report.study import read_study
from bench.report.text import digits

ROW = {"trials": 6, "confirmed": 3, "median": 0.41, "default_median": 0.38, "guidance_scale": 4.5}


def tuned_run(make_run: Any) -> Any:
    run = make_run("demo")
    name = run.job("alpha", 0.1, tuned={"alpha": {"lr": 3e-4}})
    run.job("beta", 0.1)
    record = json.loads((run.folder / name / "job.json").read_text())
    record["tuned"]["rows"] = {"alpha": ROW}
    run.write(f"{name}/job.json", record)
    for scale in (3.0, 4.5):
        for method, shift in (("alpha", scale / 50), ("beta", 0.0)):
            run.swept(f"{method}--pretty--s0", scale, shift, method=method)
    return run


def test_a_method_stands_at_both_scales_with_its_trials(make_run: Any) -> None:
    study = read_study([tuned_run(make_run).folder])
    made = guidance.sweep(study)
    found = own_scales.own_scales(study, made)
    assert [(r.method, r.scale, r.own, r.trials) for r in found] == [("alpha", 3.0, False, 6), ("alpha", 4.5, True, 6)]
    rows = list(csv.DictReader(io.StringIO(own_scales.own_scales_csv(made, found))))
    clip = {row["guidance_scale"]: row for row in rows if row["metric"] == "clip"}
    [alpha] = [model for model in made.models if model.name == "alpha"]
    for scale, row in clip.items():
        assert row["mean"] == digits(alpha.cells["clip", float(scale)].cell.estimate.mean)
    assert [row["of_the_suite"] for row in clip.values()] == ["1", "0"]
    text = own_scales.own_scales_markdown(study, made, found)
    assert "| alpha | 6 | 3 (the suite's) |" in text and "| alpha | 6 | 4.5 (its own) |" in text


def test_a_scale_that_was_not_drawn_is_said(make_run: Any) -> None:
    run = tuned_run(make_run)
    path = run.folder / "alpha--pretty--s0" / "job.json"
    record = json.loads(path.read_text())
    record["tuned"]["rows"]["alpha"]["guidance_scale"] = 7.0
    path.write_text(json.dumps(record))
    study = read_study([run.folder])
    made = guidance.sweep(study)
    text = own_scales.own_scales_markdown(study, made, own_scales.own_scales(study, made))
    assert "| alpha | 6 | 7 (its own) | not drawn |" in text


def test_what_a_method_was_given_says_its_trials_and_medians(make_run: Any) -> None:
    study = read_study([tuned_run(make_run).folder])
    tuned = {row[0]: row[-1] for row in method_inputs.inputs(study).rows}
    assert tuned == {
        "alpha": "lr 0.0003 (6 trials on validation; 3 run again on fresh seeds, median +0.410, before tuning +0.380, "
        "own guidance scale 4.5)",
        "beta": "no",
    }
