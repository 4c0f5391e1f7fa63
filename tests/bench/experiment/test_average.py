"""An average of the weights over the budget: what it is, what shows it, and that a resume goes on with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch
from fake_run import FakeRun
from safetensors.torch import load_file

from bench import records, registry
from bench.errors import BenchError
from bench.experiment import loop
from bench.experiment.config import ExperimentConfig, read_experiment
from bench.experiment.loop import JobRun
from bench.experiment.run import Workspace, run_experiment
from bench.machine.progress import Progress
from bench.plan import plan_experiment
from bench.plan.estimates import Assumptions
from bench.report import render_report
from bench.report.study import read_study

HALF_LIFE = 0.25
"""As much as a step of a budget of four spends."""


def job_run(world: fakes.World, folder: Path, row: str = "sft", half_life: float = HALF_LIFE, **more: Any) -> JobRun:
    run = fakes.job_run(world, folder, row, "steps=4", (0.5, 1.0), **more)
    run.half_life = half_life
    return run


def weights(run: JobRun) -> list[torch.Tensor]:
    """What the method would be evaluated with."""
    with run.method.evaluation_weights(run.session.job):
        return [p.detach().clone() for p in run.session.job.parameters]


def averaged(seen: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """Of weights before each step and after the last, if a step halves the part of what is older."""
    average = [each.double() for each in seen[0]]
    for values in seen[1:]:
        average = [old / 2 + new.double() / 2 for old, new in zip(average, values, strict=True)]
    return average


def watched(run: JobRun) -> list[list[torch.Tensor]]:
    """Filled with the weights after the setup and after each step of the first stage."""
    seen: list[list[torch.Tensor]] = []
    setup, step = run.method.setup, run.method.step

    def set_up(job: Any) -> None:
        setup(job)
        seen.append(weights(run))

    def stepped(job: Any) -> None:
        step(job)
        seen.append(weights(run))

    run.method.setup, run.method.step = set_up, stepped  # type: ignore[method-assign]
    return seen


def left(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.rglob("*.safetensors")
    return load_file(path)


def assert_same(run: JobRun, found: dict[str, torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    trained = [name for name, p in run.session.job.policy.transformer.named_parameters() if p.requires_grad]
    assert len(trained) == len(expected)
    for name, value in zip(trained, expected, strict=True):
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_job_leaves_the_average_of_what_its_method_would_evaluate(world, tmp_path, decay):
    """A method's own average is averaged, if it has one."""
    run = job_run(world, tmp_path, ema_decay=decay)
    seen = watched(run)
    run.run()
    assert len(seen) == 5
    assert_same(run, left(tmp_path / "weights"), averaged(seen))
    assert (averaged(seen)[0] - seen[-1][0].double()).abs().max() > 1e-4  # it is not the last weights


def test_evaluations_show_the_average(world, tmp_path):
    plain, run = job_run(world, tmp_path / "plain", half_life=0.0), job_run(world, tmp_path / "averaged")
    plain.run()
    run.run()
    drawn = {
        kind: {path.parent.name: records.read_json(path) for path in (tmp_path / kind).glob("evaluations/*/*.json")}
        for kind in ("plain", "averaged")
    }
    assert drawn["plain"].keys() == drawn["averaged"].keys() == {"2", "4"}
    for step in ("2", "4"):
        assert drawn["plain"][step]["weights"] != drawn["averaged"][step]["weights"]
    assert (tmp_path / "plain/train.jsonl").read_bytes() == (tmp_path / "averaged/train.jsonl").read_bytes()


def test_a_stage_starts_from_the_average_of_the_one_before(world, tmp_path):
    run = job_run(world, tmp_path, "sft+soar")
    seen, first = watched(run), run.method
    run.run()
    assert run.method is not first and len(seen) == 3  # two steps of SFT, a quarter of the budget each
    assert_same(run, left(tmp_path / "stages" / "1"), averaged(seen))


class Stopped(Exception):
    """In place of a kill."""


@pytest.mark.parametrize("row", ["sft", "flow_grpo"])
def test_a_job_that_was_stopped_leaves_what_an_unbroken_one_leaves(world, tmp_path, monkeypatch, row):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", -1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    job_run(world, whole, row).run()

    def stop(step: int, scalars: dict[str, float]) -> None:
        if step == 4:
            raise Stopped

    run = job_run(world, broken, row)
    run.track = stop
    with pytest.raises(Stopped):
        run.run()
    job_run(world, broken, row).run()
    one, other = left(whole / "weights"), left(broken / "weights")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def config(world: fakes.World) -> Any:
    def make(**more: Any) -> ExperimentConfig:
        parts = dict.fromkeys(("backbone", "corpus", "suite"), "fake")
        values: dict[str, Any] = {"methods": ("sft",), "subsets": ("all",), "budget": "steps=2", "evaluations": 1}
        return ExperimentConfig(**values | parts | {"method": {"sft": {"batch_size": 2}}, "name": "run"} | more)

    with fakes.registered(world.backbone):
        yield make


def test_a_run_records_it_and_its_report_says_it(config, tmp_path):
    places, quiet = Workspace(tmp_path / "cache", tmp_path / "runs"), Progress(quiet=True)
    folder = run_experiment(config(average_half_life=0.1), places, quiet).folder
    assert records.read_json(folder / "experiment.json")["average_half_life"] == 0.1
    with pytest.raises(BenchError, match=r"\(other average_half_life\)"):
        run_experiment(config(), places, quiet)
    render_report([folder], tmp_path / "report")
    said = "| Weights | of every job, an average with a half-life of 10.0 % of the budget |"
    assert said in (tmp_path / "report/main_results.md").read_text(encoding="utf-8")


def test_a_run_that_never_heard_of_it_has_none(config, tmp_path):
    places, quiet = Workspace(tmp_path / "cache", tmp_path / "runs"), Progress(quiet=True)
    folder = run_experiment(config(), places, quiet).folder
    assert "average_half_life" not in records.read_json(folder / "experiment.json")
    assert not run_experiment(config(), places, quiet).failed
    with pytest.raises(BenchError, match=r"\(other average_half_life\)"):
        run_experiment(config(average_half_life=0.1), places, quiet)
    render_report([folder], tmp_path / "report")
    assert "| Weights |" not in (tmp_path / "report/main_results.md").read_text(encoding="utf-8")


def test_a_suite_names_the_half_life_and_an_experiment_another(config):
    suites = {name: registry.load("suites", name)() for name in ("embedded", "embedded_validation")}
    for suite in suites.values():
        assert config().half_life(suite) == 0.1
        assert config(average_half_life=0.2).half_life(suite) == 0.2
        assert config(average_half_life=0).half_life(suite) == 0
    assert config().half_life(None) == 0 and config(average_half_life=0.2).half_life(None) == 0.2


def test_a_run_takes_the_half_life_of_its_suite(config, tmp_path, monkeypatch):
    averaging = replace(fakes.suite(), average_half_life=0.3)
    monkeypatch.setattr(fakes, "suite", lambda: averaging)
    folder = run_experiment(config(), Workspace(tmp_path / "cache", tmp_path / "runs"), Progress(quiet=True)).folder
    assert records.read_json(folder / "experiment.json")["average_half_life"] == 0.3


def test_averaged_and_other_rows_share_no_report(run: FakeRun, make_run: Any) -> None:
    run.job("alpha", 0.1)
    other = make_run("other")
    other.job("beta", 0.1)
    other.experiment["average_half_life"] = 0.1
    other.save()
    with pytest.raises(BenchError, match="differ in average_half_life and cannot share a report"):
        read_study([run.folder, other.folder])


def test_the_dry_run_counts_its_memory(tmp_path):
    """Of SFT it is four bytes of each weight, as a checkpoint of 16 bytes of each weight and weights show."""
    plans = []
    for half_life in (0.0, 0.1):  # of the suite `embedded` it would be 0.1
        config = read_experiment(None, {"methods": ("sft",), "average_half_life": half_life})
        (job,) = plan_experiment(config, Workspace(tmp_path / "cache", tmp_path / "runs"), Assumptions()).jobs
        plans.append(job)
    trained = plans[0].disk / 16  # weights, two states of AdamW, and the weights that are left
    for kind in ("memory", "disk"):
        assert getattr(plans[1], kind) - getattr(plans[0], kind) == pytest.approx(4 * trained, rel=1e-3)
