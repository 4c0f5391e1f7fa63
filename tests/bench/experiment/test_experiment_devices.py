"""What a device keeps from one job to the next: nothing; and what ends with a device that is lost."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch

from bench import job as jobs
from bench import records
from bench.errors import BenchError, DeviceLost
from bench.experiment import loop
from bench.experiment.config import ExperimentConfig
from bench.experiment.run import Outcome, Workspace, run_experiment
from bench.machine import memory
from bench.machine.progress import Progress
from methods.sft import SFT

SMALL = {"batch_size": 2, "lr": 1e-3}
ASSERT = "CUDA error: device-side assert triggered"


@pytest.fixture
def experiment(world: fakes.World, tmp_path: Path):
    def run(**changes: Any) -> Outcome:
        values: dict[str, Any] = dict(methods=("sft", "soar"), subsets=("half",), budget="steps=1", evaluations=1)
        values |= {"method": {"sft": SMALL, "soar": SMALL}}
        values |= dict.fromkeys(("backbone", "corpus", "suite"), "fake") | changes
        return run_experiment(
            ExperimentConfig(**values), Workspace(tmp_path / "cache", tmp_path / "runs"), Progress(quiet=True)
        )

    with fakes.registered(world.backbone):
        yield run


def statuses(folder: Path) -> dict[str, str]:
    return {
        path.parent.name.partition("--")[0]: records.read_json(path)["status"]
        for path in folder.glob("*--*/status.json")
    }


def breaking(error: Exception) -> Callable[..., None]:
    def step(*given: object) -> None:
        raise error

    return step


def test_no_job_runs_in_a_process_that_has_lost_its_device(
    experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SFT, "step", breaking(RuntimeError(ASSERT)))
    with pytest.raises(BenchError, match=r"sft--half--s0 failed, .* the same command goes on with the other jobs$"):
        experiment()
    [folder] = (tmp_path / "runs").iterdir()
    assert statuses(folder) == {"sft": "failed"}
    assert ASSERT in records.read_json(folder / "sft--half--s0/status.json")["reason"]
    with pytest.raises(DeviceLost):  # the job fails in the same way again, but no longer before the others
        experiment()
    assert statuses(folder) == {"sft": "failed", "soar": "finished"}


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), torch.OutOfMemoryError("CUDA out of memory")])
def test_other_errors_end_one_job(
    experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(SFT, "step", breaking(error))
    assert list(experiment().failed) == ["sft--half--s0"]
    [folder] = (tmp_path / "runs").iterdir()
    assert statuses(folder) == {"sft": "failed", "soar": "finished"}


def test_a_jobs_model_is_gone_before_the_next_one_is_made(experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[weakref.ref[torch.nn.Module]] = []
    alive: list[int] = []
    make = jobs.Job.__init__

    def init(self: jobs.Job, *parts: Any) -> None:
        alive.append(sum(model() is not None for model in models))
        make(self, *parts)
        models.append(weakref.ref(self.policy.transformer))

    monkeypatch.setattr(jobs.Job, "__init__", init)
    assert experiment().failed == {}
    assert alive == [0, 0]


def test_the_peak_of_training_holds_no_evaluation(
    world: fakes.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_use, peak = 10, [0]

    def reset() -> None:
        peak[0] = in_use

    evaluate = type(world.evaluator).run

    def draw(*given: Any, **options: Any) -> None:
        peak[0] = 1000
        evaluate(*given, **options)

    monkeypatch.setattr(loop, "reset_peak_memory", reset)
    monkeypatch.setattr(loop, "peak_memory", lambda: peak[0])
    monkeypatch.setattr(type(world.evaluator), "run", draw)
    run = fakes.job_run(world, tmp_path, "sft", "steps=4", (0.5, 1.0))
    run.run()
    assert run.session.job.meter.peak_memory == in_use


def test_a_peak_begins_when_what_is_no_longer_used_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: done.append("a new peak"))
    monkeypatch.setattr(memory, "release_memory", lambda: done.append("freed"))
    memory.reset_peak_memory()
    assert done == ["freed", "a new peak"]
