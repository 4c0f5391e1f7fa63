"""Records are read as they are, and what cannot be read or compared ends in one line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from typing import Any

import pytest

from bench.errors import BenchError
from bench.report import tables
from bench.report.stats import make_cell
from bench.report.study import read_study
from bench.report.tables import summary


def test_rows_pool_seeds_in_order_of_appearance(make_run: Callable[..., Any]) -> None:
    run = make_run()
    for seed in (1, 0):
        for method in ("zeta", "alpha"):
            run.job(method, 0.1, seed=seed)
    study = read_study([run.folder])
    assert study.methods == ["zeta", "alpha"]
    (zeta, _) = study.rows("pretty")
    assert [job.seed for job in zeta.jobs] == [0, 1]


def test_share_follows_the_currency_of_the_budget(run: Any) -> None:
    shares = {}
    for budget in ("flops=1e12", "steps=180", "device-seconds=171"):
        run.experiment["budget"] = budget
        run.save()
        study = read_study([run.folder])
        shares[budget] = study.share(study.jobs[0].spent)
    assert shares == pytest.approx({"flops=1e12": 0.998, "steps=180": 0.5, "device-seconds=171": 0.5})


def test_evaluations_carry_the_clock_of_their_step(run: Any) -> None:
    job = read_study([run.folder]).jobs[0]
    assert [e.spent.seconds for e in job.evaluations] == [9.5 * step for step in (3, 6, 9)]


@pytest.mark.parametrize("kept", [0, 4])
def test_the_time_of_a_job_whose_clock_ends_early_is_unknown(ranked: Any, kept: int) -> None:
    name = "alpha--pretty--s0"
    path = ranked.folder / name / "clock.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    study = read_study([ranked.folder])
    (alpha,) = [job for job in study.jobs if job.name == name]
    assert alpha.spent.seconds == 0 and alpha.spent.flops > 0
    (line,) = [line for line in tables.compute(study).markdown().splitlines() if line.startswith(f"| {name} ")]
    assert line.split(" | ")[-2] == "–"
    times = [row["seconds"] for row in csv.DictReader(tables.compute_csv(study).splitlines())]
    assert times[0] == "" and "85.5" in times


def test_a_job_not_begun_is_known_by_its_name(run: Any) -> None:
    run.experiment["jobs"].append("late--pretty--s3")
    run.save()
    late = read_study([run.folder]).jobs[-1]
    assert (late.method, late.subset, late.seed, late.status, late.evaluations) == (
        "late",
        "pretty",
        3,
        "not begun",
        [],
    )


def test_scoring_again_appends_and_the_later_score_counts(run: Any) -> None:
    lines = run.folder / "base/evaluations/0/samples.jsonl"
    again = []
    for line in lines.read_text().splitlines():
        row = json.loads(line)
        if row["prompt_set"] == "signs":
            again.append({**row, "scores": {"ocr": {"version": 1, "score": 1.0}}})
    with lines.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in again)
    study = read_study([run.folder])
    geneval, ocr = (make_cell([study.base], 0.0, metric).estimate for metric in study.metrics[:2])
    assert geneval and ocr and ocr.mean == 1.0


def test_scores_of_another_version_do_not_count(run: Any) -> None:
    run.experiment["suite"]["metrics"][1]["version"] = 2
    run.save()
    study = read_study([run.folder])
    assert make_cell([study.base], 0.0, study.metrics[1]).gap == "missing 0/12"


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("experiment.json", "{", "experiment.json is damaged"),
        ("experiment.json", '{"v": 2}', "not a record this version reads"),
        ("base/job.json", "[]", "base/job.json is not a record"),
        ("base/evaluations/0/samples.jsonl", '{"v": 1\n', "samples.jsonl:1 is damaged"),
        ("base/evaluations/0/samples.jsonl", '{"v": 1}\n', "samples.jsonl is not a record"),
        ("alpha--pretty--s0/meter.jsonl", "[]\n", "meter.jsonl:1 lacks one of"),
        ("alpha--pretty--s0/meter.jsonl", "", "meter.jsonl ends before the step 9 of the job's last evaluation"),
        ("alpha--pretty--s0/meter.jsonl", '{"v": 1, "step": 8, "flops": 5}\n', "meter.jsonl ends before the step 9"),
    ],
)
def test_damaged_records_end_in_one_line(run: Any, path: str, text: str, says: str) -> None:
    (run.folder / path).write_text(text)
    with pytest.raises(BenchError, match=says) as caught:
        read_study([run.folder])
    assert "\n" not in str(caught.value)


def test_a_job_that_goes_on_may_be_evaluated_ahead_of_its_meter(run: Any) -> None:
    job = run.folder / "alpha--pretty--s0"
    (job / "meter.jsonl").write_text("")  # as after a kill, where the log was cut back to the checkpoint
    (job / "status.json").write_text('{"v": 1, "status": "started", "reason": null}')
    assert read_study([run.folder]).jobs[0].status == "started"


def test_a_folder_that_is_no_run(tmp_path: Any) -> None:
    with pytest.raises(BenchError, match=r"experiment\.json is not there"):
        read_study([tmp_path])
    with pytest.raises(BenchError, match="no run to report on"):
        read_study([])


def test_a_misnamed_job(run: Any) -> None:
    run.experiment["jobs"].append("nonsense")
    run.save()
    with pytest.raises(BenchError, match="not named"):
        read_study([run.folder])


@pytest.mark.parametrize("key", ["suite", "backbone_hash", "resolution", "budget"])
def test_runs_that_differ_do_not_share_a_report(run: Any, make_run: Callable[..., Any], key: str) -> None:
    other = make_run("other")
    other.job("delta", 0.1)
    values = {"suite": {**other.experiment["suite"], "version": 9}, "resolution": 512}
    other.experiment[key] = values.get(key, "steps=7")
    other.save()
    with pytest.raises(BenchError, match=f"differ in {key}"):
        read_study([run.folder, other.folder])


def test_a_run_given_twice(run: Any) -> None:
    with pytest.raises(BenchError, match="more than one of the given runs"):
        read_study([run.folder, run.folder])


def test_what_is_not_known_of_the_code_does_not_matter(run: Any) -> None:
    path = run.folder / "base/job.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "git": {"commit": None, "dirty": None}}))
    assert "commit unknown and ffff" in summary(read_study([run.folder]))


def test_a_half_written_evaluation_is_not_read(run: Any) -> None:
    partial = run.folder / "alpha--pretty--s0/evaluations/.9.partial/evaluation.json"
    partial.parent.mkdir()
    partial.write_text("{")
    assert len(read_study([run.folder]).jobs[0].evaluations) == 3


def test_a_metric_that_is_there_twice(run: Any) -> None:
    run.experiment["suite"]["metrics"][1]["name"] = "geneval"
    run.save()
    with pytest.raises(BenchError, match="there twice"):
        read_study([run.folder])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": {"lr": 0.5}}, r"config\.lr"),
        ({"config": {}}, r"config\.lr"),
        ({"subset_hash": "cd" * 32}, "subset_hash"),
        ({"reward": "clip"}, "reward"),
        ({"variant_of": "sft"}, "variant_of"),
        ({"preferences": {"corpus": "liked", "pairs": 7}}, "preferences"),
    ],
)
def test_seeds_of_one_row_are_the_same_training(
    make_run: Callable[..., Any], changes: dict[str, Any], said: str
) -> None:
    """Seeds of two runs count together; with other settings they were pooled in silence."""
    runs = [make_run(name) for name in ("one", "two")]
    for seed, run in enumerate(runs):
        run.job("alpha", 0.1, seed=seed, config={"lr": 0.1})
    folders = [run.folder for run in runs]
    assert [len(row.jobs) for row in read_study(folders).rows("pretty")] == [2]
    path = folders[1] / "alpha--pretty--s1/job.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(
        BenchError, match=f"alpha--pretty--s0 and alpha--pretty--s1 differ in {said}, so they are no two"
    ):
        read_study(folders)
    assert read_study(folders[1:])  # apart they can be drawn
