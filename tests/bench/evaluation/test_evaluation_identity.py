"""An evaluation belongs to a configuration and to a state of the weights: no picture of another one is kept for it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch
from fake_run import FakeRun
from trained import transformer

from bench import records
from bench.errors import BenchError
from bench.evaluate.config import EvaluationConfig
from bench.evaluate.rows import evaluate
from bench.evaluation import PolicyPainter, scoring
from bench.experiment.config import ExperimentConfig
from bench.experiment.loop import JobRun
from bench.experiment.run import Outcome, Workspace, run_experiment
from bench.machine.progress import Progress
from bench.report.study import read_study
from bench.training.budget import Budget

QUIET = Progress(quiet=True)
LATE, EARLY = {"lr": 1e-2, "batch_size": 4}, {"lr": 3e-4, "batch_size": 4}


@pytest.fixture
def experiment(world: fakes.World, tmp_path: Path) -> Iterator[Callable[..., Outcome]]:
    """Runs SFT on the fakes with given settings, under a name."""

    def run(name: str, sft: dict[str, Any], **changes: Any) -> Outcome:
        given = dict.fromkeys(("backbone", "corpus", "suite"), "fake")
        values: dict[str, Any] = dict(methods=("sft",), subsets=("half",), budget="steps=2", evaluations=1) | given
        config = ExperimentConfig(**values | {"name": name, "method": {"sft": sft}} | changes)
        return run_experiment(config, Workspace(tmp_path / "cache", tmp_path / "runs"), QUIET)

    with fakes.registered(world.backbone):
        yield run


def left(job: Path) -> dict[str, bytes]:
    """Every file of a job's evaluations."""
    files = (path for path in job.glob("evaluations/**/*") if path.is_file())
    return {path.relative_to(job).as_posix(): path.read_bytes() for path in files}


def full(at: int, drawn: list[Any], ours: Any) -> Any:
    """A painter's draw whose device is full at its ``at``-th batch."""

    def draw(self: Any, prompts: Any, seeds: Any) -> Any:
        drawn.append(seeds)
        if len(drawn) == at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ours(self, prompts, seeds)

    return draw


def test_pictures_that_a_failed_job_began_are_not_those_of_other_settings(
    experiment: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory in the first evaluation at one learning rate, then the same command at another."""
    with monkeypatch.context() as patch:
        # two batches of two for the base, one for the job, and the fourth is one too many
        patch.setattr(PolicyPainter, "draw", full(4, [], PolicyPainter.draw))
        failed = experiment("r", LATE, evaluation_batch=2)
    assert "out of memory" in failed.failed["sft--half--s0"]
    job = failed.folder / "sft--half--s0"
    assert len([name for name in left(job) if name.endswith(".png")]) == 2 and not (job / "checkpoint.pt").exists()
    assert experiment("r", EARLY, evaluation_batch=2).failed == {}
    whole = experiment("whole", EARLY, evaluation_batch=2).folder / "sft--half--s0"
    assert left(job) == left(whole)


def test_pictures_that_a_failed_job_finished_are_not_those_of_other_settings(
    experiment: Callable[..., Outcome], world: fakes.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pictures are drawn, and scoring dies. The other settings reach the fraction after another number of steps."""
    probe = job_run(world, tmp_path / "probe", 0)
    probe.run()
    budget = f"flops={probe.session.job.meter.flops!r}"  # of two steps on batches of four
    with monkeypatch.context() as patch:
        read = scoring.read_picture
        patch.setattr(scoring, "read_picture", lambda path, *a: read(path, *a) if "base" in path.parts else 1 / 0)
        failed = experiment("r", LATE, budget=budget)
    job = failed.folder / "sft--half--s0"
    assert failed.failed and [path.name for path in (job / "evaluations").iterdir()] == ["2"]
    assert experiment("r", EARLY | {"batch_size": 2}, budget=budget).failed == {}
    assert [path.name for path in (job / "evaluations").iterdir()] == ["4"]
    whole = experiment("whole", EARLY | {"batch_size": 2}, budget=budget).folder / "sft--half--s0"
    assert left(job) == left(whole)


def job_run(world: fakes.World, folder: Path, seed: int) -> JobRun:
    session = fakes.session_of(world.job(seed=seed))
    return JobRun(
        folder, fakes.small("sft"), session, Budget.parse("steps=2"), (1.0,), world.evaluator, configuration="c"
    )


@pytest.mark.parametrize(("owner", "where"), [(scoring, "read_picture"), (PolicyPainter, "draw")])
def test_pictures_of_other_weights_are_drawn_anew_whatever_else_is_equal(
    world: fakes.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, where: str
) -> None:
    """One configuration, step and spending. Other code, or a device that rounds otherwise, leaves other weights."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, where, lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            job_run(world, tmp_path / "a", 0).run()
    job_run(world, tmp_path / "a", 1).run()
    job_run(world, tmp_path / "b", 1).run()
    job_run(world, tmp_path / "c", 0).run()
    assert left(tmp_path / "a") == left(tmp_path / "b") != left(tmp_path / "c")


def test_an_evaluation_says_which_weights_were_drawn(world: fakes.World, tmp_path: Path) -> None:
    """SHA-256 over each tensor's name, type, shape and bytes, in the order of names."""
    run = job_run(world, tmp_path, 0)
    run.run()
    found = records.read_json(tmp_path / "evaluations/2/evaluation.json")
    whole = hashlib.sha256()
    for name, tensor in sorted(run.session.job.policy.transformer.state_dict().items()):
        whole.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\n".encode() + tensor.numpy().tobytes())
    assert (found["configuration"], found["weights"]) == ("c", whole.hexdigest())


def test_an_evaluation_that_is_of_these_weights_is_kept(
    world: fakes.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_run(world, tmp_path, 0).run()
    before = left(tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    monkeypatch.setattr(PolicyPainter, "draw", lambda *a: pytest.fail("drawn again"))
    job_run(world, tmp_path, 0).run()
    assert left(tmp_path) == before


def test_what_an_earlier_start_began_does_not_stay(world: fakes.World, tmp_path: Path) -> None:
    job_run(world, tmp_path, 0).run()
    (tmp_path / "checkpoint.pt").unlink()
    evaluations = tmp_path / "evaluations"
    shutil.copytree(evaluations / "2", evaluations / ".7.partial")
    shutil.copytree(evaluations / "2", evaluations / "7")
    dead = evaluations / "2" / f".samples.jsonl.{__import__('platform').node()}.{2**22 + 1}.partial"  # no such process
    dead.write_text("{")
    job_run(world, tmp_path, 0).run()
    assert sorted(path.name for path in evaluations.iterdir()) == ["2"]
    assert not list(evaluations.rglob("*.partial"))


# -- rows that nothing is trained for --------------------------------------------------------------------------------


def test_a_context_row_is_of_the_model_that_its_name_stands_for(
    experiment: Callable[..., Outcome], tiny_pipeline: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_pipeline, model)
    once = dict(sft=EARLY, context=(str(model),))
    folder = experiment("r", **once).folder
    before = left(next(folder.glob("context--*")))
    assert experiment("r", **once).failed == {} and left(next(folder.glob("context--*"))) == before
    transformer(tiny_pipeline, 0.2).save_pretrained(model / "transformer")
    with pytest.raises(BenchError, match=r"context--.*model holds images of another model than the present .*/model "):
        experiment("r", **once)


def test_a_context_row_is_of_one_name(
    experiment: Callable[..., Outcome], tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names whose folders are called alike, here by their case."""
    monkeypatch.chdir(tmp_path)
    for name in ("Model", "model"):
        shutil.copytree(tiny_pipeline, tmp_path / name)
    experiment("r", EARLY, context=("Model",))
    with pytest.raises(
        BenchError, match=r"context--model holds images of another model than the present model \(then: Model"
    ):
        experiment("r", EARLY, context=("model",))


def evaluated(what: Path, pipeline: Path, runs: Path, **options: Any) -> dict[str, str]:
    values: dict[str, Any] = {"suite": "fake", "max_sequence_length": 12, "backbone": str(pipeline)} | options
    return evaluate(EvaluationConfig(what=(str(what),), **values), Workspace(runs, runs), QUIET).failed


def test_old_images_are_not_scored_as_those_of_a_changed_checkpoint(
    world: fakes.World, tiny_pipeline: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    with fakes.registered(world.backbone):
        transformer(tiny_pipeline, 0.1).save_pretrained(tuned / "transformer")
        assert evaluated(tuned, tiny_pipeline, tmp_path, passes="generate") == {}
        transformer(tiny_pipeline, 0.2).save_pretrained(tuned / "transformer")
        (line,) = evaluated(tuned, tiny_pipeline, tmp_path, passes="score").values()
        assert "holds an evaluation of something else" in line
        transformer(tiny_pipeline, 0.1).save_pretrained(tuned / "transformer")
        assert evaluated(tuned, tiny_pipeline, tmp_path, passes="score") == {}


def test_images_that_no_record_names_are_drawn_anew(world: fakes.World, tiny_pipeline: Path, tmp_path: Path) -> None:
    """A damaged ``job.json`` is to be deleted, says its error; the images beside it are then of nobody knows what."""
    tuned = tmp_path / "tuned"
    with fakes.registered(world.backbone):
        for name, step in (("a", 0.1), ("a", 0.2), ("b", 0.2)):
            transformer(tiny_pipeline, step).save_pretrained(tuned / "transformer")
            assert evaluated(tuned, tiny_pipeline, tmp_path, name=name) == {}
            (record,) = (tmp_path / name).glob("*/job.json")
            record.unlink()
    a, b = (left(next((tmp_path / name).glob("evaluated--*"))) for name in "ab")
    assert a == b


# -- what a report shows -----------------------------------------------------------------------------------------------


def test_two_evaluations_at_one_fraction_are_not_chosen_from(tmp_path: Path) -> None:
    run = FakeRun(tmp_path / "demo")
    run.base()
    job = run.job("alpha", 0.1)
    run.evaluation(job, 5, 1.0, 0.9, seed=0)  # beside the one at step 9
    with pytest.raises(BenchError, match=r"evaluations/9 is of the fraction of .*evaluations/5, too: an earlier start"):
        read_study([run.folder])


def test_an_evaluation_of_another_configuration_is_not_shown(tmp_path: Path) -> None:
    run = FakeRun(tmp_path / "demo")
    run.base()
    folder = run.folder / run.job("alpha", 0.1)
    path = folder / "evaluations/9/evaluation.json"
    own = records.configuration(records.read_json(folder / "job.json"))
    records.write_json(path, records.read_json(path) | {"configuration": own})
    assert len(read_study([run.folder]).jobs[0].evaluations) == 3
    job = records.read_json(folder / "job.json")
    records.write_json(folder / "job.json", job | {"config": {"lr": 1.0}})
    with pytest.raises(BenchError, match=r"evaluations/9 is of another configuration than job\.json's"):
        read_study([run.folder])
