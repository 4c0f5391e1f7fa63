"""Pipelines in an experiment: what is recorded, refused, planned, reported, exported and evaluated of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from PIL import Image

from bench import plugins, records, registry
from bench.backbone import loading
from bench.backbone.weights import find_weights
from bench.errors import BenchError
from bench.evaluate.config import EvaluationConfig
from bench.evaluate.rows import evaluate
from bench.experiment.config import ExperimentConfig, read_experiment
from bench.experiment.run import Outcome, Workspace, run_experiment
from bench.export.folder import export_job
from bench.machine.progress import Progress
from bench.plan import plan_experiment
from bench.plan.estimates import Assumptions
from bench.records.status import read_status
from bench.report import render_report

SPLIT = "sft+flow_grpo"
Experiment = Callable[..., Outcome]


def tiny(**changes: Any) -> ExperimentConfig:
    """An experiment on the fakes whose methods are small, as far as ``changes`` says nothing else."""
    values: dict[str, Any] = dict(subsets=("half",), budget="steps=4", evaluations=2, trackers=())
    values |= dict.fromkeys(("backbone", "corpus", "suite"), "fake") | changes
    named = {name for row in values["methods"] for name in row.split("+")} & registry.BUILT_IN["methods"].keys()
    values["method"] = {name: fakes.small(name).config.model_dump(exclude_defaults=True) for name in named}
    values["method"] |= changes.get("method", {})
    return ExperimentConfig(**values)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "cache", tmp_path / "runs")


@pytest.fixture
def experiment(world, workspace):
    """Runs a tiny experiment."""
    with fakes.registered(world.backbone):
        yield lambda **changes: run_experiment(tiny(**changes), workspace, Progress(quiet=True))


def job_of(outcome: Outcome, row: str) -> Path:
    return outcome.folder / f"{row}--half--s0"


def record_of(outcome: Outcome, row: str) -> dict[str, Any]:
    return records.read_json(job_of(outcome, row) / "job.json")


def metered(job: Path) -> dict[str, Any]:
    """What a job spent."""
    return list(records.read_lines(job / "meter.jsonl"))[-1]


# -- what is recorded --------------------------------------------------------------------------------------------------


def test_a_pipeline_s_record_is_its_stages_together(experiment):
    outcome = experiment(methods=(SPLIT, "sft", "flow_grpo"))
    assert outcome.failed == {}
    both, *alone = (record_of(outcome, row) for row in (SPLIT, "sft", "flow_grpo"))
    assert both["method"] == SPLIT and both["origin"] is None and both["variant_of"] is None
    assert both["stages"] == [
        {"name": "sft", "end": 0.5, "origin": "built-in"},
        {"name": "flow_grpo", "end": 1.0, "origin": "built-in"},
    ]
    assert both["config"] == {name: record["config"] for name, record in zip(("sft", "flow_grpo"), alone, strict=True)}
    assert both["needs"] == {key: alone[0]["needs"][key] or alone[1]["needs"][key] for key in alone[0]["needs"]}
    assert {key for key, needed in both["needs"].items() if needed} == {"pairs", "prompts", "reward"}
    assert both["reward"] == alone[1]["reward"] == "brightness" and alone[0]["reward"] is None
    assert alone[0]["stages"] is None and alone[0]["origin"] == "built-in"
    for key, value in both["traits"].items():
        one, other = (record["traits"][key] for record in alone)
        assert value == (one if one == other else f"{one}, then {other}")
    assert both["traits"]["paper"].endswith(", then arXiv 2505.05470")


def test_a_variant_is_a_stage_by_its_own_name(experiment):
    variant = {"light": {"method": "soar", "batch_size": 2, "aux_points": 1}, "slow": {"method": "sft", "lr": 1e-5}}
    outcome = experiment(methods=("sft+light", "sft+slow"), variant=variant)
    assert outcome.failed == {}
    light, slow = (record_of(outcome, row) for row in ("sft+light", "sft+slow"))
    assert [stage["name"] for stage in light["stages"]] == ["sft", "light"] == list(light["config"])[::-1]
    assert (light["config"]["light"]["aux_points"], light["config"]["light"]["batch_size"]) == (1, 2)
    assert (slow["config"]["sft"]["lr"], slow["config"]["slow"]["lr"]) == (1e-3, 1e-5)
    assert slow["config"]["slow"]["batch_size"] == slow["config"]["sft"]["batch_size"]  # what its method was given


# -- the split ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "setting", "ends"),
    [
        ("", None, (0.5, 1.0)),
        ('[pipeline."sft+soar"]\nsplit = [0.25, 0.75]\n', None, (0.25, 1.0)),
        ("", "sft+soar.split=[0.75, 0.25]", (0.75, 1.0)),
        ('[pipeline."sft+soar"]\nsplit = [0.25, 0.75]\n', "sft+soar.split=[0.75, 0.25]", (0.75, 1.0)),
    ],
)
def test_the_split_decides_how_long_each_stage_trains(experiment, tmp_path, rule, setting, ends):
    file = tmp_path / "experiment.toml"
    file.write_text(f'methods = ["sft+soar"]\n{rule}')
    read = read_experiment(file, {}, [setting] if setting else [])
    outcome = experiment(methods=read.methods, pipeline=read.pipeline)
    assert [stage["end"] for stage in record_of(outcome, "sft+soar")["stages"]] == list(ends)
    rows = list(records.read_lines(job_of(outcome, "sft+soar") / "train.jsonl"))
    assert ["correction_loss" in row for row in rows] == [step >= 4 * ends[0] for step in range(4)]


def test_three_stages_share_a_budget_in_thirds(experiment):
    outcome = experiment(methods=("sft+soar+flow_grpo",), budget="steps=6", evaluations=3)
    assert outcome.failed == {}
    ends = [stage["end"] for stage in record_of(outcome, "sft+soar+flow_grpo")["stages"]]
    assert ends == pytest.approx([1 / 3, 2 / 3, 1], abs=1e-9)
    rows = list(records.read_lines(job_of(outcome, "sft+soar+flow_grpo") / "train.jsonl"))
    assert ["correction_loss" in row for row in rows] == [False, False, True, True, False, False]
    assert ["reward" in row for row in rows] == [False] * 4 + [True] * 2


NAMED = "the split of sft+soar takes 2 shares above 0 that add up to 1, not "


@pytest.mark.parametrize(
    ("methods", "setting", "says"),
    [
        ("sft+soar", "sft+soar.split=[1.0]", NAMED + "[1.0]"),
        ("sft+soar", "sft+soar.split=[0.2, 0.3, 0.5]", NAMED + "[0.2, 0.3, 0.5]"),
        ("sft+soar", "sft+soar.split=[0.0, 1.0]", NAMED + "[0.0, 1.0]"),
        ("sft+soar", "sft+soar.split=[1.5, -0.5]", NAMED + "[1.5, -0.5]"),
        ("sft+soar", "sft+soar.split=[0.5, 0.4]", NAMED + "[0.5, 0.4]"),
        ("sft+soar", "sft+soar.split=[nan, 0.4]", "--set sft+soar.split is nan; give a finite number"),
        ("sft+soar", "sft+soar.split=half", "split"),
        ("sft+soar", "sft+soar.spilt=[0.5, 0.5]", "spilt"),
        ("sft+soar", "soar+sft.split=[0.5, 0.5]", "unknown pipeline in settings 'soar+sft'; did you mean 'sft+soar'"),
        ("sft", "sft+soar.split=[0.5, 0.5]", "unknown pipeline in settings 'sft+soar'"),
        ("sft+sft", None, "sft+sft trains twice with the same stage; give one of them a name of its own"),
        ("sft+saor", None, "unknown method 'saor'; did you mean 'soar'"),
        ("sft+", None, "unknown method ''"),
        ("sft+soar,sft+soar", None, "methods names something twice"),
    ],
)
def test_a_pipeline_that_cannot_be_is_refused_in_one_line(methods, setting, says):
    with pytest.raises(BenchError) as caught:
        read_experiment(None, {"methods": tuple(methods.split(","))}, [setting] if setting else [])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_finished_pipeline_is_not_taken_up_with_another_split(experiment):
    experiment(methods=("sft+soar",))
    with pytest.raises(BenchError, match=r"another configuration \(other stages\)"):
        experiment(methods=("sft+soar",), pipeline={"sft+soar": {"split": (0.25, 0.75)}})


# -- a plan ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "split"),
    [
        ("steps=7", (0.5, 0.5)),
        ("updates=9", (0.3, 0.7)),
        ("flops", (0.5, 0.5)),
        ("flops", (0.9, 0.1)),
    ],
)
def test_a_dry_run_of_a_pipeline_costs_what_it_then_costs(experiment, workspace, budget, split):
    """What the first stage leaves of its share is the second's, in the plan too. No step of these varies in cost."""
    row = "soar+sft"
    if budget == "flops":
        alone = experiment(name="alone", methods=("soar",), budget="steps=1", evaluations=1)
        budget = f"flops={3.7 * metered(job_of(alone, 'soar'))['flops']!r}"
    given = dict(methods=(row,), budget=budget, evaluations=1, pipeline={row: {"split": split}}, dtype="float32")
    (plan,) = plan_experiment(tiny(**given), workspace, Assumptions()).jobs
    assert plan.problem == ""
    spent = metered(job_of(experiment(**given), row))
    assert (plan.steps, plan.updates, plan.flops) == (spent["steps"], spent["updates"], spent["flops"])


def test_a_share_that_pays_for_no_step_is_a_problem_in_the_plan_and_in_the_run(experiment, workspace):
    alone = experiment(name="alone", methods=("soar",), budget="steps=1", evaluations=1)
    budget = f"flops={3.7 * metered(job_of(alone, 'soar'))['flops']!r}"
    split = {"soar+sft": {"split": (0.1, 0.9)}}
    given = dict(methods=("soar+sft",), budget=budget, evaluations=1, pipeline=split, dtype="float32")
    (plan,) = plan_experiment(tiny(**given), workspace, Assumptions()).jobs
    assert plan.problem == "its share of the budget pays for no step of soar; see --set split"
    (reason,) = experiment(**given).failed.values()
    assert "the first 10% of the budget" in reason and "is too small for one step" in reason


# -- what is made of its records and weights ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory) -> Outcome:
    """A pipeline that ends in an adapter, beside its first stage alone."""
    folder = tmp_path_factory.mktemp("finished")
    with fakes.registered(world.backbone):
        return run_experiment(
            tiny(methods=(SPLIT, "sft")), Workspace(folder / "cache", folder / "runs"), Progress(quiet=True)
        )


def test_a_report_has_the_pipeline_s_row_in_every_table(finished, tmp_path):
    render_report([finished.folder], tmp_path)
    for name in ("main_results.md", "compute.md", "paradigms.md"):
        rows = [line for line in (tmp_path / name).read_text().splitlines() if line.startswith("|")]
        assert any(SPLIT in row for row in rows), name
    assert SPLIT in (tmp_path / "index.html").read_text()
    (given,) = (
        line for line in (tmp_path / "paradigms.md").read_text().splitlines() if line.startswith(f"| {SPLIT} | yes")
    )
    assert given.split(" | ")[1:4] == ["yes", "yes", "Brightness"]


def test_a_pipeline_s_model_card_names_its_stages_and_what_was_spent(finished):
    card = (job_of(finished, SPLIT) / "README.md").read_text()
    config = json.loads(card.partition("```json\n")[2].partition("```")[0])
    assert config == record_of(finished, SPLIT)["config"]
    assert f"trained by {SPLIT} on the subset half" in card and "transformer=transformer" in card


def test_a_kill_between_the_end_of_a_job_and_its_card_costs_nothing(experiment):
    changes = dict(methods=(SPLIT,), subsets=("half",))
    job = job_of(experiment(**changes), SPLIT)
    card = (job / "README.md").read_bytes()
    assert not (job / "stages").exists()
    (job / "README.md").unlink()
    (job / "stages/1/transformer").mkdir(parents=True)
    (job / "stages/1/transformer/config.json").write_text("{}")
    experiment(**changes)
    assert (job / "README.md").read_bytes() == card
    assert not (job / "stages").exists()


def test_an_exported_pipeline_is_a_whole_transformer(finished, tmp_path, tiny_pipeline, world):
    job = job_of(finished, SPLIT)
    export_job(job, tmp_path / "out", backbone=str(tiny_pipeline))
    assert (tmp_path / "out" / "model_index.json").is_file() and (tmp_path / "out" / "README.md").is_file()
    loaded, trained = (
        loading.load_transformer(path, torch.float32, torch.device("cpu"), part=None).state_dict()
        for path in (tmp_path / "out" / "transformer", find_weights(job).path)
    )
    base = world.backbone.transformer().state_dict()
    assert loaded.keys() == trained.keys() == base.keys()  # no adapter is left
    assert all(torch.equal(loaded[key], trained[key]) for key in base)
    assert not all(torch.equal(loaded[key], base[key]) for key in base)


def test_evaluating_a_pipeline_s_job_gives_what_its_last_evaluation_gave(finished, world, workspace):
    job = job_of(finished, SPLIT)
    with fakes.registered(world.backbone):
        config = EvaluationConfig(what=(str(job),), suite="fake", max_sequence_length=12)
        outcome = evaluate(config, workspace, Progress(quiet=True))
    assert outcome.failed == {}
    (found,) = outcome.folder.glob("evaluated--*/evaluations/0/samples.jsonl")
    expected = job / "evaluations" / "4" / "samples.jsonl"
    one, other = (
        {(row["prompt_id"], row["repeat"]): row["scores"]["brightness"]["score"] for row in records.read_lines(path)}
        for path in (found, expected)
    )
    assert one.keys() == other.keys() and len(one) == 4
    assert list(one.values()) == pytest.approx([other[key] for key in one], abs=1e-6)
    (label,) = (records.read_json(path)["evaluated"] for path in outcome.folder.glob("evaluated--*/job.json"))
    assert label["kind"] == "transformer"


# -- bad input: one line, and the other jobs go on ---------------------------------------------------------------------


def check_one_failed(outcome: Outcome, row: str, says: str) -> None:
    """One job failed with one line that says this, left no traceback, and the others finished."""
    (name,) = outcome.failed
    reason = outcome.failed[name]
    assert name == job_of(outcome, row).name and says in reason and "\n" not in reason
    assert read_status(outcome.folder / name) == {"v": 1, "status": "failed", "reason": reason}
    assert not (outcome.folder / name / "traceback.txt").exists()
    jobs = records.read_json(outcome.folder / "experiment.json")["jobs"]
    assert len(jobs) > 1
    for other in {*jobs} - {name}:
        assert read_status(outcome.folder / other)["status"] == "finished"


@pytest.mark.parametrize("row", ["leap_align", "sft+leap_align"])
def test_a_reward_without_a_gradient_fails_the_job_that_needs_one(experiment, row):
    outcome = experiment(methods=(row, "sft", "flow_grpo"), reward="contrast", evaluations=1)
    check_one_failed(
        outcome, row, "it needs a reward with a gradient, and contrast has none; give another with --reward"
    )


@pytest.mark.parametrize("row", ["dpo", "sft+dpo"])
def test_without_preference_data_the_job_that_needs_it_fails(experiment, row):
    outcome = experiment(methods=("sft", row), evaluations=1)
    check_one_failed(outcome, row, "no preference pairs go with the corpus fake; give some with --preferences")


def preferences(folder: Path, captions: tuple[str, ...], **tags: tuple[object, ...]) -> Path:
    """A folder of noise pictures, two of a pair after each other, the first of which is preferred."""
    folder.mkdir()
    for number, caption in enumerate(captions):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        row = {"file_name": f"{number}.png", "text": caption, "pair": number // 2, "preferred": 1 - number % 2}
        row |= {key: values[number] for key, values in tags.items()}
        with (folder / "metadata.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    return folder


@pytest.mark.parametrize(
    ("captions", "tags", "says"),
    [
        (("a red circle", "a blue square"), {}, "is of different prompts: 'a blue square' and 'a red circle'"),
        (("a red circle",) * 2, {"preferred": (1, 1)}, "liked holds no preference pair"),
        (("a red circle",) * 2, {"preferred": (1, "x")}, "1.png of liked is not half of a preference pair"),
        (("a red circle",) * 3, {"pair": (0, 0, 0)}, "has 3 pictures; a pair has two"),
    ],
)
def test_preference_data_that_is_none_fails_the_job_that_needs_it(experiment, tmp_path, captions, tags, says):
    folder = preferences(tmp_path / "liked", captions, **tags)
    outcome = experiment(methods=("dpo", "sft"), preferences=str(folder), evaluations=1)
    check_one_failed(outcome, "dpo", says)


def test_preference_data_that_is_not_there_fails_the_job_that_needs_it(experiment, tmp_path):
    outcome = experiment(methods=("dpo", "sft"), preferences=str(tmp_path / "nowhere"), evaluations=1)
    check_one_failed(outcome, "dpo", "unknown corpus (or path)")


def test_preference_pairs_reach_the_jobs_that_declared_them_and_no_other(experiment, tmp_path):
    folder = preferences(tmp_path / "liked", ("a red circle",) * 2 + ("a blue square",) * 4)
    outcome = experiment(methods=("dpo", "sft+dpo", "sft"), preferences=str(folder), evaluations=1)
    assert outcome.failed == {}
    for row in ("dpo", "sft+dpo"):
        told = record_of(outcome, row)["preferences"]
        assert (told["corpus"], told["pairs"]) == (str(folder), 3) and len(told["hash"]) == 64
    assert record_of(outcome, "sft")["preferences"] is None
    again = preferences(tmp_path / "other", ("a red circle",) * 2 + ("a blue square",) * 2)
    outcome = experiment(name="other", methods=("dpo",), preferences=str(again), evaluations=1)
    assert record_of(outcome, "dpo")["preferences"]["hash"] != told["hash"]


GROUPED = [name for name in registry.BUILT_IN["methods"] if "group_size" in plugins.load(name).Config.model_fields]


@pytest.mark.parametrize("name", GROUPED)
def test_a_group_of_one_is_refused_before_anything_is_sampled(experiment, name):
    with pytest.raises(BenchError, match=r"^\w+Config: group_size: Input should be greater than 1 \(got 1\)$"):
        experiment(methods=("sft", name), method={name: {"group_size": 1}}, evaluations=1)
