"""A job stays within its budget, and killed at any moment and resumed it leaves the records of an unbroken one."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from threading import Event

import fakes
import numpy as np
import pytest
import torch
from fakes import Brightness
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError

from bench import evaluation, records, registry
from bench.backbone import loading
from bench.backbone.policy import Policy
from bench.backbone.weights import find_weights
from bench.errors import BenchError, JobFailure
from bench.evaluation import Evaluator
from bench.experiment import loop
from bench.experiment.config import ExperimentConfig
from bench.experiment.jobs import Rows
from bench.experiment.loop import JobRun
from bench.experiment.run import Workspace, run_experiment
from bench.job import Job
from bench.machine import locks
from bench.machine.progress import Progress
from bench.records import saved
from bench.records.status import read_status, write_status
from bench.training.budget import Budget

HELPER = Path(__file__).parents[2] / "support" / "kill_and_resume.py"
POINTS = (
    "first-step",
    "mid-step",
    "mid-step-without-checkpoint",
    "between-logs",
    "half-a-line",
    "half-a-checkpoint",
    "first-checkpoint",
    "mid-evaluation",
    "between-images",
    "between-scores",
    "after-evaluation",
    "last-evaluation",
    "export",
    "three-times",
    "soar-mid-step",
    "soar-evaluation",
    "before-a-stage",
    "in-a-stage",
    "after-a-stage",
)
METHODS = ("sft", "soar", "flow_grpo")
EVERY = (*registry.BUILT_IN["methods"], *fakes.PIPELINES)
THIRDS = (1 / 3, 2 / 3, 1.0)


def job_run(world, folder: Path, name: str = "sft", budget: str = "steps=6", fractions=THIRDS, **overrides) -> JobRun:
    if hasattr(fakes, name):
        method = getattr(fakes, name)(fakes.NoConfig())
        return JobRun(folder, method, world.session(), Budget.parse(budget), fractions, world.evaluator)
    return fakes.job_run(world, folder, name, budget, fractions, **overrides)


def checkpoint_every_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    patch.setattr(loop, "CHECKPOINT_SHARE", -1)


def records_of(folder: Path) -> dict[str, bytes]:
    """Everything a job leaves but for clocks, and the checkpoint, which holds one."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in files.items() if name not in ("clock.jsonl", "checkpoint.pt")}


def rows(folder: Path, name: str) -> list[dict]:
    return list(records.read_lines(folder / f"{name}.jsonl"))


def evaluations(folder: Path) -> list[dict]:
    found = [records.read_json(path) for path in (folder / "evaluations").glob("*/evaluation.json")]
    return sorted(found, key=lambda e: e["step"])


# -- a whole job -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_job_leaves_its_records(world, tmp_path, name):
    run = job_run(world, tmp_path, name)
    run.run()
    train, meter, clock = (rows(tmp_path, file) for file in ("train", "meter", "clock"))
    assert [row["step"] for row in train] == [row["step"] for row in meter] == [1, 2, 3, 4, 5, 6]
    assert all(row["v"] == records.VERSION for row in train + meter + clock)
    assert {key: meter[-1][key] for key in run.session.job.meter.counts()} == run.session.job.meter.counts()
    assert meter[-1]["steps"] == 6 and all(a["flops"] < b["flops"] for a, b in itertools.pairwise(meter))
    assert [(e["step"], round(e["fraction"], 3)) for e in evaluations(tmp_path)] == [(2, 0.333), (4, 0.667), (6, 1.0)]
    assert [e["spent"]["flops"] for e in evaluations(tmp_path)] == [meter[i]["flops"] for i in (1, 3, 5)]
    for folder in (tmp_path / "evaluations").iterdir():
        samples = rows(folder, "samples")
        assert len(samples) == 4 and all((folder / row["image"]).is_file() for row in samples)
        assert len({row["seed"] for row in samples}) == 4
    expected = "weights/pytorch_lora_weights.safetensors" if name == "flow_grpo" else "weights/transformer/config.json"
    assert (tmp_path / expected).exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_evaluations_before_the_last_draw_the_suites_part_and_say_so(world, tmp_path):
    run = job_run(world, tmp_path)
    run.evaluator = Evaluator(
        replace(fakes.suite(), on_the_way=2), world.backbone, {"brightness": fakes.Brightness()}, world.engine
    )
    run.run()
    assert [e.get("every") for e in evaluations(tmp_path)] == [2, 2, None]
    drawn = [rows(tmp_path / "evaluations" / str(step), "samples") for step in (2, 4, 6)]
    assert [[(row["prompt_id"], row["repeat"]) for row in found] for found in drawn] == [
        [("0", 0), ("0", 1)],
        [("0", 0), ("0", 1)],
        [("0", 0), ("0", 1), ("1", 0), ("1", 1)],
    ]
    assert [row["seed"] for row in drawn[0]] == [row["seed"] for row in drawn[2][:2]]
    assert all("score" in row["scores"]["brightness"] for found in drawn for row in found)


def test_all_methods_are_evaluated_from_the_same_noise(world, tmp_path):
    seeds = []
    for name in METHODS:
        job_run(world, tmp_path / name, name, "steps=1", (1.0,)).run()
        seeds.append([row["seed"] for row in rows(tmp_path / name / "evaluations" / "1", "samples")])
    assert seeds[0] == seeds[1] == seeds[2]


def test_two_equal_jobs_leave_equal_bytes_and_another_seed_others(world, tmp_path):
    for folder in ("a", "b"):
        job_run(world, tmp_path / folder).run()
    other = job_run(world, tmp_path / "c")
    other.session = world.session(seed=1)
    other.run()
    assert records_of(tmp_path / "a") == records_of(tmp_path / "b")
    assert (tmp_path / "a" / "train.jsonl").read_bytes() != (tmp_path / "c" / "train.jsonl").read_bytes()


def test_clock_readings_live_in_a_file_of_their_own(world, tmp_path):
    job_run(world, tmp_path, "soar", "steps=1", (1.0,)).run()
    for row in rows(tmp_path, "train") + rows(tmp_path, "meter"):
        assert not {"seconds", "peak_memory"} & row.keys()
    assert rows(tmp_path, "clock")[0]["seconds"] > 0


def test_evaluating_is_not_charged_and_changes_nothing(world, tmp_path):
    job_run(world, tmp_path / "one", "flow_grpo", fractions=(1.0,)).run()
    job_run(world, tmp_path / "many", "flow_grpo", fractions=(0.2, 0.4, 0.6, 0.8, 1.0)).run()
    for name in ("train.jsonl", "meter.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_exported_lora_weights_are_the_evaluated_ones(world, tmp_path):
    from safetensors.torch import load_file

    run = job_run(world, tmp_path, "flow_grpo", "steps=2", (1.0,))
    run.run()
    exported = load_file(tmp_path / "weights" / "pytorch_lora_weights.safetensors")
    kept = {tuple(v.flatten().tolist()) for v in exported.values()}
    assert kept == {tuple(v.flatten().tolist()) for v in run.session.model.learner.ema}


# -- budget ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("steps", "share"), [(1, 1.0), (4, 0.5), (3, 0.0), (3, 0.999)])
def test_a_job_stops_before_the_step_that_would_overshoot(world, tmp_path, name, steps, share):
    probe = job_run(world, tmp_path / "probe", name, "steps=1", (1.0,))
    probe.run()
    budget = probe.session.job.meter.flops * (steps + (0 if share == 1.0 else share))
    run = job_run(world, tmp_path / "run", name, f"flops={budget!r}", (1.0,))
    run.run()
    assert run.session.job.meter.steps == steps
    assert run.session.job.meter.flops <= budget
    assert run.session.job.meter.flops == pytest.approx(steps * probe.session.job.meter.flops)


def test_steps_that_grow_overshoot_by_less_than_they_grow(world, tmp_path):
    """As docs/architecture.md admits: a step is taken to cost as much as the dearest before it."""
    probe = job_run(world, tmp_path / "probe", "Growing", "steps=1", (1.0,))
    probe.run()
    cost = probe.session.job.meter.flops
    run = job_run(world, tmp_path / "run", "Growing", f"flops={5.8 * cost!r}", (1.0,))
    run.run()
    assert [row["flops"] / cost for row in rows(tmp_path / "run", "meter")] == pytest.approx([1, 3, 6])  # 3 + 2 <= 5.8
    assert run.session.job.meter.flops - 5.8 * cost < cost


def test_a_step_that_costs_far_more_than_those_before_it_overspends(world, tmp_path):
    """More than twice: Flow-GRPO's steps differ by less where rewards are 0 or 1, and its jobs must not end of it."""
    probe = job_run(world, tmp_path / "probe", "Growing", "steps=1", (1.0,))
    probe.run()
    cost = probe.session.job.meter.flops
    with pytest.raises(JobFailure, match=r"overspent: step 3 cost .*; 143% of the budget is spent"):
        job_run(world, tmp_path / "run", "Leaping", f"flops={7 * cost!r}", (1.0,)).run()
    slow = job_run(world, tmp_path / "slow", "Growing", f"flops={5 * cost!r}", (1.0,))  # 3 instead of 2 at most
    slow.run()
    assert slow.session.job.meter.flops == 6 * cost


@pytest.mark.parametrize(("steps", "at"), [(3, [1, 2, 3]), (6, [2, 4, 6])])
def test_thirds_of_a_budget_are_evaluated_at_their_steps(experiment, steps, at):
    """An experiment's shares are rounded, and 0.666667 is more than two thirds."""
    folder = experiment(budget=f"steps={steps}", evaluations=3).folder / "sft--half--s0" / "evaluations"
    assert sorted(int(path.name) for path in folder.iterdir()) == at


def test_a_checkpoint_holds_a_methods_own_tensors_as_they_were(world, tmp_path, monkeypatch):
    """A thread writes it beside the steps that follow; on a GPU, what lies on the host is no copy yet."""
    run = job_run(world, tmp_path, "sft", "steps=1", (1.0,))
    run._set_up()
    baseline, held = torch.zeros(1), []
    monkeypatch.setattr(run.method, "state_dict", lambda: {"baseline": baseline})
    monkeypatch.setattr(run._writer, "write", held.append)
    monkeypatch.setattr(run.session.engine, "device", torch.device("cuda:0"))
    run.save()
    baseline += 1
    assert held[0]["method"]["baseline"].item() == 0


def test_a_clock_ends_no_job(world, tmp_path, monkeypatch):
    run = job_run(world, tmp_path, "sft", "device-seconds=4", (1.0,))
    finish = run.session.ledger.finish_step
    seconds = iter([1.0, 1.0, 7.0])
    monkeypatch.setattr(run.session.ledger, "finish_step", lambda _, memory: finish(next(seconds), memory))
    run.run()
    assert run.session.job.meter.steps == 3 and run.session.job.meter.seconds == 9.0


def test_a_method_that_never_updates_fails_the_job(world, tmp_path):
    run = job_run(world, tmp_path, budget="steps=4", fractions=(1.0,))
    run.method.step = lambda job: job.policy.velocity(world.data.latents[:1], 0.5, world.text(1))
    with pytest.raises(JobFailure, match=r"never called job\.update\(\) in its 4 steps"):
        run.run()


def test_a_method_that_makes_no_update_ends_long_before_its_budget(world, tmp_path):
    run = job_run(world, tmp_path, budget="steps=60", fractions=(1.0,))
    run.method.step = lambda job: job.policy.velocity(world.data.latents[:1], 0.5, world.text(1))
    with pytest.raises(JobFailure, match=r"^the method did not call job\.update\(\) in its first 10 steps"):
        run.run()


def test_a_first_gradient_that_is_lost_is_not_blamed_on_the_learning_rate(world, tmp_path):
    run = job_run(world, tmp_path)
    accumulate = run.session.job.accumulate
    run.session.job.accumulate = lambda loss, items: accumulate(loss + (loss - loss.detach()).sqrt(), items)
    with pytest.raises(JobFailure, match=r"^the gradient norm is nan at step 1$"):
        run.run()


# -- stages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fakes.PIPELINES)
def test_a_stage_starts_from_what_the_one_before_would_be_evaluated_with(world, tmp_path, name):
    """An adapter's change is in the weights that are handed on; so is its moving average."""
    first = name.partition("+")[0]
    alone = job_run(world, tmp_path / "alone", first, "steps=3", (1.0,))
    alone.run()
    with alone.method.evaluation_weights(alone.session.job), torch.no_grad():
        noise, text = torch.ones(2, 4, 4, 4), world.text(2)
        expected = alone.session.job.policy.velocity(noise, 0.5, text)
    run = job_run(world, tmp_path / "both", name, "steps=6", (0.5, 1.0))
    seen = []
    step = run.then[0][0].step

    def spy(job):
        if not seen:
            with torch.no_grad():
                seen.append(job.policy.velocity(noise, 0.5, text))
        step(job)

    run.then[0][0].step = spy
    run.run()
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-6)
    assert [(e["step"], e["fraction"]) for e in evaluations(tmp_path / "both")] == [(3, 0.5), (6, 1.0)]
    halves = [rows(folder / "evaluations" / "3", "samples") for folder in (tmp_path / "both", tmp_path / "alone")]
    assert halves[0] == halves[1]  # the first half is the same job
    whole = find_weights(tmp_path / "both")
    assert whole.kind == "transformer"
    with run.method.evaluation_weights(run.session.job), torch.no_grad():
        expected = run.session.job.policy.velocity(noise, 0.5, text)
    run.session.job.policy.transformer = None
    loaded = loading.load_transformer(whole.path, torch.float32, torch.device("cpu"), part=None)
    policy = Policy(loaded, world.backbone.scheduler(), world.null)
    with torch.no_grad():
        torch.testing.assert_close(policy.velocity(noise, 0.5, text), expected, rtol=1e-5, atol=1e-6)


def test_a_fraction_that_a_stages_last_step_reaches_is_evaluated_before_the_next_stage(world, tmp_path):
    """Half of four steps is past the first third, and no fraction ends there."""
    job_run(world, tmp_path, "sft+soar", "steps=4").run()
    found = [(e["step"], round(e["fraction"], 3)) for e in evaluations(tmp_path)]
    assert found == [(2, 0.333), (3, 0.667), (4, 1.0)]


def price(world, folder, name):
    """FLOPs of one step of a method, as a job of its own spends them."""
    probe = job_run(world, folder / f"price-{name}", name, "steps=1", (1.0,))
    probe.run()
    return probe.session.job.meter.flops


def test_stages_share_one_budget_and_one_meter(world, tmp_path):
    """What the first leaves of its half is the second's; the steps of both are charged."""
    costs = {name: price(world, tmp_path, name) for name in ("sft", "soar")}
    budget = 2 * 13.9 * costs["sft"]
    run = job_run(world, tmp_path / "both", "sft+soar", f"flops={budget!r}", (1.0,))
    run.run()
    second = int((budget - 13 * costs["sft"]) / costs["soar"] * (1 + 1e-9))
    assert second > 1 and run.session.job.meter.steps == 13 + second
    assert run.session.job.meter.flops == 13 * costs["sft"] + second * costs["soar"]


def test_a_stage_whose_share_pays_for_no_step_fails_the_job(world, tmp_path):
    run = job_run(world, tmp_path / "run", "soar+sft", f"flops={1.5 * price(world, tmp_path, 'soar')!r}", (1.0,))
    with pytest.raises(JobFailure, match=r"the first 50% of the budget .* is too small for one step"):
        run.run()


def test_a_last_stage_that_cannot_pay_its_first_step_says_what_is_left(world, tmp_path):
    costs = {name: price(world, tmp_path, name) for name in ("sft", "soar")}
    budget = 1.5 * costs["soar"]
    run = job_run(world, tmp_path / "run", "sft+soar", f"flops={budget!r}", (1.0,))
    left = budget - int(budget / 2 / costs["sft"]) * costs["sft"]
    said = rf"what is left for stage 2 \({left:.3g} flops\) of the budget .* is too small for one step, .*; split the"
    with pytest.raises(JobFailure, match=said.replace("+", r"\+")):
        run.run()


def test_a_stage_has_the_doors_that_it_declared_and_no_other(world, tmp_path):
    run = job_run(world, tmp_path, "sft+flow_grpo", "steps=4", (1.0,))
    run.then[0][0].step = lambda job: list(job.pairs(2))
    with pytest.raises(JobFailure, match=r"did not declare needs\.pairs"):
        run.run()


def test_a_resumed_stage_is_set_up_as_it_was(world, tmp_path, monkeypatch):
    """Where the job stood, so that what a setup draws and keeps out of its state is the same again."""
    checkpoint_every_step(monkeypatch)
    seen = []

    def stand(run):
        setup = run.then[0][0].setup

        def spy(job):
            seen.append((job.step, run.session.position()["cursors"], job.rng("x").initial_seed()))
            setup(job)

        run.then[0][0].setup = spy
        return run

    broken = stand(job_run(world, tmp_path, "sft+soar", "steps=6", (1.0,)))
    update = broken.session.job.update

    def killed(*arguments):
        update(*arguments)
        if broken.session.job.step == 4:
            raise Killed

    broken.session.job.update = killed
    with pytest.raises(Killed):
        broken.run()
    stand(job_run(world, tmp_path, "sft+soar", "steps=6", (1.0,))).run()
    assert len(seen) == 2 and seen[0] == seen[1] and seen[0][0] == 3


def test_a_first_stage_that_learns_nothing_fails_the_job(world, tmp_path):
    run = job_run(world, tmp_path, "sft+soar", "steps=4", (1.0,))
    run.method.step = lambda job: job.policy.velocity(world.data.latents[:1], 0.5, world.text(1))
    with pytest.raises(JobFailure, match=r"never called job\.update"):
        run.run()


def test_a_budget_too_small_for_one_step_says_what_one_costs(world, tmp_path):
    probe = job_run(world, tmp_path / "probe", budget="steps=1", fractions=(1.0,))
    probe.run()
    cost = probe.session.job.meter.flops
    with pytest.raises(JobFailure, match="too small for one step, which costs") as caught:
        job_run(world, tmp_path / "run", budget=f"flops={0.99 * cost!r}").run()
    assert f"{cost:.3g} flops" in str(caught.value)
    assert not (tmp_path / "run" / "evaluations").exists()


def test_every_fraction_is_evaluated_once_and_the_last_is_all_of_the_budget(world, tmp_path):
    job_run(world, tmp_path, budget="steps=7.5", fractions=tuple((i + 1) / 5 for i in range(5))).run()
    assert {e["step"]: e["fraction"] for e in evaluations(tmp_path)} == {2: 0.2, 3: 0.4, 5: 0.6, 6: 0.8, 7: 1.0}


@pytest.mark.parametrize("budget", ["steps=1", "steps=2.5"])
def test_few_steps_still_end_in_an_evaluation_of_the_whole_budget(world, tmp_path, budget):
    job_run(world, tmp_path, budget=budget).run()
    found = evaluations(tmp_path)
    assert found[-1]["fraction"] == 1.0 and found[-1]["step"] == len(rows(tmp_path, "train"))


# -- broken methods ----------------------------------------------------------------------------------------------------


def test_a_nan_loss_fails_the_job_and_keeps_what_is_recorded(world, tmp_path):
    with pytest.raises(JobFailure, match=r"^the loss is nan at step 3; lower the learning rate$"):
        job_run(world, tmp_path, "NaNLoss").run()
    assert [row["step"] for row in rows(tmp_path, "train")] == [1, 2]
    assert [e["step"] for e in evaluations(tmp_path)] == [2]


def test_a_logged_nan_fails_the_job(world, tmp_path):
    run = job_run(world, tmp_path)
    run.method.step = lambda job: job.log("loss", float("nan"))
    with pytest.raises(JobFailure, match="logged loss = nan at step 1"):
        run.run()


def test_a_setup_that_trains_nothing_fails_the_job(world, tmp_path):
    run = job_run(world, tmp_path)
    run.method.setup = lambda job: None
    with pytest.raises(JobFailure, match="chose nothing to train"):
        run.run()


def test_a_method_that_stops_learning_ends_after_steps_that_spend_nothing(world, tmp_path):
    run = job_run(world, tmp_path)
    step = run.method.step
    run.method.step = lambda job: step(job) if job.step == 0 else None
    run.budget = Budget.parse("updates=6")
    with pytest.raises(JobFailure, match=r"100 steps in a row spent none of the budget updates=6") as caught:
        run.run()
    assert "\n" not in str(caught.value) and run.session.job.meter.updates == 1


# -- killed and resumed ------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: no code of the harness may clean up after it."""


@pytest.mark.parametrize(("name", "step"), [("sft", 0), ("sft", 5), *((name, 3) for name in EVERY)])
def test_a_job_stopped_inside_a_step_resumes_byte_for_byte(world, tmp_path, monkeypatch, name, step):
    checkpoint_every_step(monkeypatch)
    job_run(world, tmp_path / "whole", name).run()
    broken = job_run(world, tmp_path / "broken", name)
    update = broken.session.job.update

    def killed(*arguments):
        update(*arguments)
        if broken.session.job.step == step:
            raise Killed

    broken.session.job.update = killed
    with pytest.raises(Killed):
        broken.run()
    resumed = job_run(world, tmp_path / "broken", name)
    resumed.run()
    assert resumed.session.job.meter.steps == 6
    assert records_of(tmp_path / "broken") == records_of(tmp_path / "whole")


@pytest.fixture(scope="module")
def killed(tiny_pipeline, tmp_path_factory) -> Path:
    """Folders of runs that were killed with SIGKILL at several points and resumed."""
    out = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, str(HELPER), str(tiny_pipeline), str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("point", POINTS)
def test_a_job_killed_and_resumed_leaves_the_same_bytes(killed, point):
    stage = "flow_grpo+soar" if point.endswith("a-stage") else "flow_grpo"
    method = "soar" if point.startswith("soar") else stage
    expected, found = records_of(killed / f"reference-{method}"), records_of(killed / point)
    found = {name: data for name, data in found.items() if not name.endswith(".partial")}
    assert {"train.jsonl", "meter.jsonl", "evaluations/2/samples.jsonl"} < expected.keys()
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_a_resume_clears_what_a_kill_left_half_written(killed):
    assert [str(p.relative_to(killed)) for p in killed.rglob("*.partial")] == []


def test_the_helper_kills_where_this_file_says(killed):
    assert {p.name for p in killed.iterdir()} == {
        *POINTS,
        "reference-flow_grpo",
        "reference-soar",
        "reference-flow_grpo+soar",
    }


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def _interruptible():
    """A test run started in the background ignores SIGINT; these tests send it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize("where", ["update", "evaluation"])
def test_ctrl_c_leaves_a_resumable_state(world, tmp_path, monkeypatch, presses, where):
    """The first press waits for the step to be whole; the second stops at once. Neither changes a record."""
    job_run(world, tmp_path / "whole", "flow_grpo").run()
    broken = job_run(world, tmp_path / "broken", "flow_grpo")
    done = []

    def press(original):
        def pressed(*arguments, **options):
            if not done and (where == "evaluation" or broken.session.job.step == 2):
                done.append(True)
                for _ in range(presses):
                    interrupt()
            return original(*arguments, **options)

        return pressed

    with monkeypatch.context() as patch:
        if where == "update":
            patch.setattr(broken.session.job, "update", press(broken.session.job.update))
        else:
            patch.setattr(evaluation, "score_suite", press(evaluation.score_suite))
        with pytest.raises(KeyboardInterrupt):
            broken.run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if presses == 1:
        state = torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=True)
        assert state["job"]["step"] == len(rows(tmp_path / "broken", "train")) == (3 if where == "update" else 2)
    job_run(world, tmp_path / "broken", "flow_grpo").run()
    assert records_of(tmp_path / "broken") == records_of(tmp_path / "whole")


def test_a_checkpoint_holds_the_step_that_it_was_made_at_whatever_the_next_one_does(world, tmp_path, monkeypatch):
    """The first file is begun only after the second update."""
    checkpoint_every_step(monkeypatch)
    run, save, second = job_run(world, tmp_path, "sft", "steps=2", (1.0,)), saved.save, Event()
    update, written, weights = run.session.job.update, [], []

    def updated() -> None:
        update()
        weights.append([p.detach().clone() for p in run.session.job.parameters])
        if len(weights) == 2:
            second.set()

    def late(state, path) -> None:
        assert second.wait(30)
        written.append(state["job"])
        save(state, path)

    run.session.job.update = updated
    monkeypatch.setattr(saved, "save", late)
    run.run()
    assert [state["step"] for state in written] == [1, 2, 2]  # the last with the last evaluation
    for state, values in zip(written, weights, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(state["parameters"], values, strict=True))


def test_a_damaged_checkpoint_ends_in_one_line(world, tmp_path):
    job_run(world, tmp_path).run()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BenchError, match=r"checkpoint\.pt is damaged; delete it to start the job again"):
        job_run(world, tmp_path).run()


def flip(path: Path, place: int) -> None:
    """Turn one bit of a file over."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_in_a_checkpoint_is_told(world, tmp_path):
    """In the values of any tensor, the optimizer's and the average's among them, and in what says where they belong."""
    job_run(world, tmp_path, "flow_grpo").run()
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = [(archive.read(info), info) for info in archive.infolist() if info.file_size]
    places = [whole.index(content, info.header_offset + 30) + len(content) // 2 for content, info in members]
    assert len(places) > 20
    for place in places[:: len(places) // 12]:
        path.write_bytes(whole)
        flip(path, place)
        with pytest.raises(BenchError, match=r"checkpoint\.pt is damaged; delete it to start the job again"):
            job_run(world, tmp_path, "flow_grpo").run()
    path.write_bytes(whole)
    job_run(world, tmp_path, "flow_grpo").run()


@pytest.mark.parametrize("name", ["sft", "flow_grpo"])
def test_a_flipped_bit_in_weights_is_told(world, tmp_path, name):
    job_run(world, tmp_path, name).run()
    file = next((tmp_path / "weights").rglob("*.safetensors"))
    find_weights(tmp_path)
    flip(file, file.stat().st_size - 100)
    with pytest.raises(BenchError, match=f"{file.name} is damaged .its content is not what the job wrote"):
        find_weights(tmp_path)
    file.unlink()
    with pytest.raises(BenchError, match=r"is not there; delete its job's folder|holds no"):
        find_weights(tmp_path)


def test_a_flipped_bit_in_weights_that_a_stage_hands_on_is_told(world, tmp_path):
    job_run(world, tmp_path, "sft+flow_grpo").run()
    (file,) = (tmp_path / "stages" / "1").rglob("*.safetensors")
    flip(file, file.stat().st_size - 100)
    with pytest.raises(BenchError, match=r"stages/1/transformer/.*safetensors is damaged"):
        job_run(world, tmp_path, "sft+flow_grpo").run()


def test_a_full_disk_under_the_weights_is_told(world, tmp_path, monkeypatch):
    """safetensors says it in words of its own."""

    def full(*arguments, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    import huggingface_hub
    import safetensors.torch

    monkeypatch.setattr(huggingface_hub, "save_torch_state_dict", full)
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    for name in ("sft", "flow_grpo"):
        with pytest.raises(records.DiskFull, match=f"the disk is full: could not write {tmp_path / name / 'weights'};"):
            job_run(world, tmp_path / name, name).run()


def test_a_checkpoint_of_a_release_without_stages_ends_in_one_line(world, tmp_path):
    job_run(world, tmp_path, budget="steps=1", fractions=(1.0,)).run()
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "stage"}, path)
    with pytest.raises(BenchError, match=r"checkpoint\.pt was left by an older release; delete it to start the job"):
        job_run(world, tmp_path, budget="steps=1", fractions=(1.0,)).run()


def test_status_round_trips(tmp_path):
    assert read_status(tmp_path)["status"] == "new"
    write_status(tmp_path, "failed", "why")
    assert read_status(tmp_path) == {"v": records.VERSION, "status": "failed", "reason": "why"}


# -- a whole experiment ------------------------------------------------------------------------------------------------


@pytest.fixture
def experiment(world, tmp_path, monkeypatch):
    """Runs an experiment on the fakes; every method of the registry is made small."""
    method = {"sft": {"batch_size": 4}, "soar": {"batch_size": 2}, "flow_grpo": fakes.TINY_GRPO}

    def run(**changes):
        values = dict(methods=("sft",), subsets=("half",), budget="steps=3")
        values |= dict.fromkeys(("backbone", "corpus", "suite"), "fake") | changes
        values["method"] = {m: method[m] for m in values["methods"] if m in method} | changes.get("method", {})
        return run_experiment(
            ExperimentConfig(**values), Workspace(tmp_path / "cache", tmp_path / "runs"), Progress(quiet=True)
        )

    with fakes.registered(world.backbone):
        yield run


def status(folder: Path, job: str) -> dict:
    return read_status(folder / job)


def test_an_experiment_runs_every_method_on_every_subset_with_every_seed(experiment):
    outcome = experiment(methods=METHODS, subsets=("half", "all"), seeds=(0, 1), evaluations=1)
    jobs = [f"{m}--{sub}--s{seed}" for seed in (0, 1) for sub in ("half", "all") for m in METHODS]
    assert outcome.failed == {} and records.read_json(outcome.folder / "experiment.json")["jobs"] == jobs
    assert all(status(outcome.folder, job)["status"] == "finished" for job in ["base", *jobs])
    assert [e["fraction"] for e in evaluations(outcome.folder / "base")] == [0.0]
    first = records.read_json(outcome.folder / "flow_grpo--half--s0" / "job.json")
    assert first["reward"] == "brightness" and first["subset_count"] == 6
    assert records.read_json(outcome.folder / "sft--half--s0" / "job.json")["reward"] is None


def test_a_nan_loss_fails_its_job_and_the_others_go_on(experiment):
    outcome = experiment(methods=("nan", "sft"))
    assert outcome.failed == {"nan--half--s0": "the loss is nan at step 3; lower the learning rate"}
    failed = status(outcome.folder, "nan--half--s0")
    assert (failed["status"], failed["reason"]) == ("failed", outcome.failed["nan--half--s0"])
    assert status(outcome.folder, "sft--half--s0")["status"] == "finished"
    assert len(rows(outcome.folder / "nan--half--s0", "train")) == 2


def test_a_crash_in_a_method_fails_its_job_and_leaves_a_traceback(experiment, monkeypatch):
    def step(self, job):
        raise ZeroDivisionError("oh no")

    monkeypatch.setattr(fakes.NaNLoss, "step", step)
    outcome = experiment(methods=("nan", "sft"))
    assert outcome.failed == {"nan--half--s0": "ZeroDivisionError: oh no (see traceback.txt)"}
    assert "oh no" in (outcome.folder / "nan--half--s0" / "traceback.txt").read_text()
    assert status(outcome.folder, "sft--half--s0")["status"] == "finished"


def test_out_of_memory_says_what_lowers_it_and_keeps_the_state(experiment, monkeypatch):
    step = registry.load("methods", "sft").step

    def full(self, job):
        if job.step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(registry.load("methods", "sft"), "step", full)
        checkpoint_every_step(patch)
        outcome = experiment(methods=("sft", "soar"))
    (reason,) = outcome.failed.values()
    assert "out of memory on cpu at step 3" in reason and "--micro-batch (now the whole share)" in reason
    assert "--gradient-checkpointing" in reason and "goes on from the last checkpoint" in reason
    assert "--adam-8bit" not in reason  # the checkpoint holds another optimizer's states
    assert torch.load(outcome.folder / "sft--half--s0" / "checkpoint.pt")["job"]["step"] == 2
    assert experiment(methods=("sft",), micro_batch=2).failed == {}


def test_a_micro_batch_that_auto_chose_is_used_and_recorded(experiment, monkeypatch):
    sizes, usual = [], Job.pairs

    def pairs(self, count):
        for each in usual(self, count):
            sizes.append(len(each))
            yield each

    monkeypatch.setattr(Job, "pairs", pairs)
    outcome = experiment(methods=("sft",), micro_batch="auto", micro_batches={"sft": 3})
    assert max(sizes) == 3
    assert records.read_json(outcome.folder / "sft--half--s0" / "job.json")["micro_batch"] == 3


def test_auto_without_a_number_is_refused(experiment):
    with pytest.raises(BenchError, match="is chosen by `bench run`"):
        experiment(methods=("sft",), micro_batch="auto")


def test_a_budget_too_small_for_one_method_fails_that_one(experiment, world, tmp_path):
    budget = f"flops={1.5 * price(world, tmp_path, 'sft')!r}"
    outcome = experiment(methods=("sft", "soar"), budget=budget, method={"soar": {"batch_size": 8}})
    assert list(outcome.failed) == ["soar--half--s0"]
    assert "too small for one step" in outcome.failed["soar--half--s0"]


def test_a_broken_reward_fails_its_job(experiment, monkeypatch):
    rollout = fakes.TINY_GRPO["prompts"] * fakes.TINY_GRPO["group_size"]  # an evaluation has 4 images
    score = lambda self, images, prompts: [float("nan") if len(images) == rollout else 0.5] * len(images)  # noqa: E731
    monkeypatch.setattr(Brightness, "score", score)
    outcome = experiment(methods=("flow_grpo", "sft"), subsets=("all",))
    assert list(outcome.failed) == ["flow_grpo--all--s0"]
    assert "returned NaN or infinity" in outcome.failed["flow_grpo--all--s0"]


def test_finished_jobs_are_kept_and_new_ones_added(experiment):
    folder = experiment(methods=("sft",)).folder
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (folder / "sft--half--s0").rglob("*") if p.is_file()}
    base = (folder / "base" / "evaluations" / "0" / "evaluation.json").stat().st_mtime_ns
    outcome = experiment(methods=("soar",))
    assert outcome.folder == folder
    assert records.read_json(folder / "experiment.json")["jobs"] == ["sft--half--s0", "soar--half--s0"]
    experiment(methods=("sft", "soar"))
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (folder / "sft--half--s0").rglob("*") if p.is_file()}
    assert after == before
    assert (folder / "base" / "evaluations" / "0" / "evaluation.json").stat().st_mtime_ns == base


def test_a_failed_job_is_tried_again(experiment, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Job, "reward_later", lambda *arguments: 1 / 0)
        assert list(experiment(methods=("flow_grpo",)).failed) == ["flow_grpo--half--s0"]
    outcome = experiment(methods=("flow_grpo",))
    assert outcome.failed == {} and status(outcome.folder, "flow_grpo--half--s0")["status"] == "finished"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"budget": "steps=4"}, "other budget"),
        ({"evaluations": 3}, "other fractions"),
        ({"method": {"sft": {"batch_size": 3}}}, "other settings"),
    ],
)
def test_a_run_directory_of_another_configuration_is_refused(experiment, changes, named):
    folder = experiment().folder
    before = records_of(folder)
    with pytest.raises(BenchError, match=rf"was run with another configuration \({named}\); .*--name"):
        experiment(**changes)
    assert records_of(folder) == before


def test_a_failed_job_is_recorded_by_the_command_that_trains_it(experiment, monkeypatch):
    """Another command with other settings begins while the job waits for its turn."""
    rates = {rate: {"sft": {"batch_size": 4, "lr": rate}} for rate in (1e30, 2e-3, 1e-3)}
    folder = experiment(method=rates[1e30]).folder / "sft--half--s0"
    assert read_status(folder)["status"] == "failed" and not (folder / "checkpoint.pt").exists()
    do = Rows.do

    def late(self, *arguments):
        monkeypatch.setattr(Rows, "do", lambda *_: None)
        experiment(method=rates[2e-3])
        return do(self, *arguments)

    monkeypatch.setattr(Rows, "do", late)
    experiment(method=rates[1e-3])
    monkeypatch.setattr(Rows, "do", do)
    assert records.read_json(folder / "job.json")["config"]["lr"] == 1e-3
    with pytest.raises(BenchError, match=r"another configuration \(other settings\)"):
        experiment(method=rates[2e-3])


def test_a_job_that_another_command_did_with_other_settings_is_not_taken_for_this_one(experiment, monkeypatch):
    rates = {rate: {"sft": {"batch_size": 4, "lr": rate}} for rate in (1e30, 2e-3, 1e-3)}
    experiment(method=rates[1e30])
    do = Rows.do

    def overtaken(self, *arguments):
        monkeypatch.setattr(Rows, "do", do)
        experiment(method=rates[2e-3])
        return do(self, *arguments)

    monkeypatch.setattr(Rows, "do", overtaken)
    with pytest.raises(BenchError, match=r"another configuration \(other settings\)"):
        experiment(method=rates[1e-3])


class Dark(Brightness):
    """A reward that is no column of the suite."""

    name, label, version = "dark", "Dark", 1

    def score(self, images, prompts):
        return [1 - score for score in super().score(images, prompts)]


class Darker(Dark):
    version = 2


def test_another_version_of_a_reward_is_refused(experiment, monkeypatch):
    monkeypatch.setattr(fakes, "Dark", Dark, raising=False)
    monkeypatch.setitem(registry.BUILT_IN["metrics"], "dark", "fakes:Dark")
    registry.table.cache_clear()
    given = dict(methods=("flow_grpo",), reward="dark")
    folder = experiment(**given).folder
    assert records.read_json(folder / "flow_grpo--half--s0" / "job.json")["reward_metric"]["version"] == 1
    assert experiment(**given).failed == {}
    monkeypatch.setattr(fakes, "Dark", Darker)
    with pytest.raises(BenchError, match=r"another configuration \(another version of the reward\)"):
        experiment(**given)
    monkeypatch.undo()
    registry.table.cache_clear()


def test_another_optimizer_of_a_job_is_refused(experiment):
    experiment()
    with pytest.raises(BenchError, match=r"another configuration \(the optimizer's states in other precision\)"):
        experiment(adam_8bit=True)


def test_a_corpus_may_be_spelled_in_another_way_when_a_run_goes_on(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pics" / f"{number}.png")
        (tmp_path / "pics" / f"{number}.txt").write_text("a red circle")
    folder = experiment(corpus="pics", subsets=("all",)).folder
    before = (folder / "experiment.json").read_bytes()
    for spelled in ("pics/", "./pics", str(tmp_path / "pics")):
        assert experiment(corpus=spelled, subsets=("all",)).failed == {}
        assert (folder / "experiment.json").read_bytes() == before
    (tmp_path / "pics").rename(tmp_path / "others")
    with pytest.raises(BenchError, match=r"another configuration \(other corpus\)"):
        experiment(corpus="others", subsets=("all",))


@pytest.mark.parametrize("row", ["base", "sft--half--s0"])
def test_what_another_command_works_on_is_waited_for_and_kept(experiment, monkeypatch, tmp_path, row):
    """Two commands of one experiment share its base: neither may draw over the other's images."""
    folder = experiment().folder
    shutil.move(folder / row, tmp_path / "done")
    other = FileLock(folder / locks.FOLDER / row)
    other.acquire()

    def the_other_ends() -> None:
        shutil.rmtree(folder / row, ignore_errors=True)  # a job's record, written before any job begins
        shutil.move(tmp_path / "done", folder / row)
        other.release()

    monkeypatch.setattr(locks, "pause", the_other_ends)
    monkeypatch.setattr(Evaluator, "run", lambda *_, **__: pytest.fail("the other command did it"))
    assert experiment().failed == {}
    assert status(folder, row)["status"] == "finished"


def test_a_base_without_its_scores_is_evaluated_again(experiment):
    folder = experiment().folder
    evaluation = folder / "base" / "evaluations" / "0" / "evaluation.json"
    before = evaluation.read_bytes()
    evaluation.unlink()
    experiment()
    assert evaluation.read_bytes() == before


def test_a_command_that_names_every_job_of_a_folder_sets_their_order(experiment):
    experiment(name="r", subsets=("all",), evaluations=1)
    folder = experiment(name="r", subsets=("half",), evaluations=1).folder
    jobs = lambda: records.read_json(folder / "experiment.json")["jobs"]  # noqa: E731
    assert jobs() == ["sft--all--s0", "sft--half--s0"]
    experiment(name="r", subsets=("half", "all"), evaluations=1)
    assert jobs() == ["sft--half--s0", "sft--all--s0"]


def test_another_suite_version_is_refused(experiment, monkeypatch):
    from dataclasses import replace

    experiment()
    newer = replace(fakes.suite(), version=2)
    monkeypatch.setattr(fakes, "suite", lambda: newer)
    with pytest.raises(BenchError, match=r"another configuration \(other suite\)"):
        experiment()


def test_a_mistyped_setting_is_refused_before_anything_is_written(experiment, tmp_path):
    with pytest.raises(BenchError, match="did you mean 'batch_size'"):
        experiment(method={"sft": {"batchsize": 3}})
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_marks_the_job_and_the_same_command_resumes_it(experiment, monkeypatch):
    whole = experiment(name="whole").folder / "sft--half--s0"
    step = registry.load("methods", "sft").step

    def pressed(self, job):
        if job.step == 1:
            interrupt()
        return step(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(registry.load("methods", "sft"), "step", pressed)
        with pytest.raises(KeyboardInterrupt):
            experiment(name="broken")
    broken = whole.parents[1] / "broken" / "sft--half--s0"
    assert status(broken.parent, broken.name)["status"] == "interrupted"
    experiment(name="broken")
    assert status(broken.parent, broken.name)["status"] == "finished"
    for name in ("train.jsonl", "meter.jsonl", "evaluations/3/samples.jsonl"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_a_full_disk_stops_the_experiment_with_one_line_and_keeps_the_records(experiment, monkeypatch):
    append = records.Log.append

    def full(self, row):
        if self.path.name == "meter.jsonl" and row["step"] == 2:
            raise records.DiskFull("the disk is full: could not write meter.jsonl")
        append(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(records.Log, "append", full)
        with pytest.raises(BenchError, match="the disk is full"):
            experiment(name="broken")
    broken = experiment(name="broken").folder / "sft--half--s0"
    whole = experiment(name="whole").folder / "sft--half--s0"
    for name in ("train.jsonl", "meter.jsonl"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_a_metric_that_fails_on_an_image_costs_that_image_only(world, tmp_path):
    class Picky(Brightness):
        def score(self, images, prompts):
            if prompts[0].id == "1" or len(images) > 1:
                raise RuntimeError("cannot read it")
            return super().score(images, prompts)

    run = job_run(world, tmp_path, budget="steps=1", fractions=(1.0,))
    run.evaluator = Evaluator(fakes.suite(), world.backbone, {"brightness": Picky()})
    run.run()
    cells = [row["scores"]["brightness"] for row in rows(tmp_path / "evaluations" / "1", "samples")]
    assert [sorted(cell) for cell in cells] == [["score", "version"]] * 2 + [["error", "version"]] * 2
    assert cells[2]["error"] == "RuntimeError: cannot read it"
    assert json.dumps(cells)


def test_any_metric_can_reward(experiment):
    """One that the suite does not show, too; its calls are counted and its name is recorded."""
    outcome = experiment(name="rewarded", methods=("flow_grpo",), subsets=("all",), reward="contrast")
    assert outcome.failed == {}
    job = outcome.folder / "flow_grpo--all--s0"
    assert records.read_json(job / "job.json")["reward"] == "contrast"
    assert rows(job, "meter")[-1]["reward_calls"] > 0 and all(0 < row["reward"] < 0.5 for row in rows(job, "train"))


@pytest.mark.parametrize(
    ("reward", "says"), [("world_geneval", "checks facts"), ("world_vendi", "compares a prompt's pictures")]
)
def test_a_reward_that_cannot_be_given_ends_in_one_line(experiment, reward, says):
    with pytest.raises(BenchError, match=f"{reward} cannot be the reward: it {says}"):
        experiment(name="rewarded", methods=("flow_grpo",), subsets=("all",), reward=reward)


def test_what_the_cache_holds_is_encoded_once(experiment, world, monkeypatch):
    experiment(name="a")

    def encode(*arguments, **options):
        raise AssertionError("encoded again")

    monkeypatch.setattr(type(world.backbone), "encode_images", encode)
    assert experiment(name="b").failed == {}
