"""Runs jobs that are killed with SIGKILL and resumed, for test_runner.py. Usage: kill_and_resume.py PIPELINE OUT

Every run is a forked child, so that torch is imported once. ``OUT/reference-<method>`` is never killed; ``OUT/<point>``
is killed at that point (more than once, where it says so) and resumed until it ends.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import torch

from bench import records
from bench.evaluation import Evaluator, scoring
from bench.experiment import loop
from bench.job import Job
from bench.training.model import TrainedModel


def patch(owner: Any, name: str, around: Callable[..., Any]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, lambda *arguments, **options: around(original, *arguments, **options))


def kill_if(condition: bool) -> None:
    if condition:
        os.kill(os.getpid(), signal.SIGKILL)


def in_a_step(step: int) -> None:
    """Right after the optimizer's step, before anything is recorded."""

    def around(original: Any, job: Job, *arguments: Any) -> Any:
        original(job, *arguments)
        kill_if(job.step == step)

    patch(Job, "update", around)


def between_logs(step: int) -> None:
    """The line in train.jsonl is written, the one in meter.jsonl is not."""

    def around(original: Any, log: records.Log, row: dict[str, Any]) -> None:
        kill_if(log.path.name == "meter.jsonl" and row["step"] == step)
        original(log, row)

    patch(records.Log, "append", around)


def in_a_line(step: int) -> None:
    """Half of a line is written."""

    def around(original: Any, log: records.Log, row: dict[str, Any]) -> None:
        original(log, row)
        if log.path.name == "train.jsonl" and row["step"] == step:
            os.truncate(log.path, log.path.stat().st_size - 20)
            kill_if(True)

    patch(records.Log, "append", around)


def in_a_file(number: int, is_one: Callable[[Path], bool]) -> None:
    """The ``number``-th file of a kind is written under its temporary name and not yet moved."""
    seen = 0

    def around(original: Any, source: Path, target: Path) -> None:
        nonlocal seen
        found = is_one(Path(target))
        seen += found
        kill_if(found and seen == number)
        original(source, target)

    patch(os, "replace", around)


def in_a_checkpoint(number: int) -> None:
    in_a_file(number, lambda path: path.name == "checkpoint.pt")


def at_call(owner: Any, name: str, number: int, *, before: bool = False) -> None:
    """Right after the ``number``-th call of a function, or right before it."""
    seen = 0

    def around(original: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        kill_if(before and seen == number)
        result = original(*arguments, **options)
        kill_if(seen == number)
        return result

    patch(owner, name, around)


def in_an_evaluation(number: int) -> None:
    """Images are drawn, samples.jsonl is not there."""
    in_a_file(number, lambda path: path.name == "samples.jsonl" and path.parent.suffix == ".partial")


def between_images(number: int) -> None:
    """Some images of an evaluation are there, the others are not: each evaluation has four."""
    in_a_file(number, lambda path: path.suffix == ".png")


def between_scores(number: int) -> None:
    """An evaluation's images are there, and are not all scored."""
    at_call(scoring, "score_each", number, before=True)


def after_an_evaluation(number: int) -> None:
    """The evaluation is complete, the checkpoint is older."""
    at_call(Evaluator, "run", number)


def before_a_stage(number: int) -> None:
    """The weights that a stage hands on are there, the checkpoint knows nothing of it."""
    at_call(TrainedModel, "save", number)


def at_the_export(_: int) -> None:
    """Everything is done but for the weights."""

    def around(original: Any, model: TrainedModel, folder: Path, *, merge: bool) -> None:
        kill_if(folder.name == "weights")
        original(model, folder, merge=merge)

    patch(TrainedModel, "save", around)


# point → (method, seconds between checkpoints, kills in the order of the runs)
POINTS: dict[str, tuple[str, float, list[tuple[Callable[[int], None], int]]]] = {
    "first-step": ("flow_grpo", -1, [(in_a_step, 0)]),
    "mid-step": ("flow_grpo", -1, [(in_a_step, 3)]),
    "mid-step-without-checkpoint": ("flow_grpo", 1e9, [(in_a_step, 1)]),
    "between-logs": ("flow_grpo", -1, [(between_logs, 4)]),
    "half-a-line": ("flow_grpo", -1, [(in_a_line, 3)]),
    "half-a-checkpoint": ("flow_grpo", -1, [(in_a_checkpoint, 2)]),
    "first-checkpoint": ("flow_grpo", -1, [(in_a_checkpoint, 1)]),
    "mid-evaluation": ("flow_grpo", 1e9, [(in_an_evaluation, 2)]),
    "between-images": ("flow_grpo", 1e9, [(between_images, 6)]),
    "between-scores": ("flow_grpo", 1e9, [(between_scores, 2)]),
    "after-evaluation": ("flow_grpo", 1e9, [(after_an_evaluation, 1)]),
    "last-evaluation": ("flow_grpo", -1, [(in_an_evaluation, 3)]),
    "export": ("flow_grpo", -1, [(at_the_export, 0)]),
    "three-times": ("flow_grpo", -1, [(in_a_step, 1), (between_logs, 3), (in_an_evaluation, 2)]),
    "soar-mid-step": ("soar", -1, [(in_a_step, 3)]),
    "soar-evaluation": ("soar", 1e9, [(after_an_evaluation, 2)]),
    "before-a-stage": ("flow_grpo+soar", 1e9, [(before_a_stage, 1)]),
    "in-a-stage": ("flow_grpo+soar", 1e9, [(in_a_step, 3)]),
    "after-a-stage": ("flow_grpo+soar", -1, [(in_a_step, 2), (at_the_export, 0)]),
}


def job_run(world: fakes.World, row: str, folder: Path) -> loop.JobRun:
    """A job of six steps with three evaluations."""
    return fakes.job_run(world, folder, row, "steps=6", (1 / 3, 2 / 3, 1.0))


def child(world: fakes.World, method: str, folder: Path, seconds: float, kill: Callable[[], None]) -> int:
    """Run a job in a forked child; returns the signal that ended it, 0 for none."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            loop.CHECKPOINT_SECONDS, loop.CHECKPOINT_SHARE = seconds, -1
            kill()
            job_run(world, method, folder).run()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"the run in {folder} broke")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main(pipeline: Path, out: Path) -> None:
    torch.set_num_threads(1)  # a forked child must not wait for threads that it does not have
    world = fakes.World(pipeline)
    for method in sorted({method for method, _, _ in POINTS.values()}):
        child(world, method, out / f"reference-{method}", 1e9, lambda: None)
    for point, (method, seconds, kills) in POINTS.items():
        for kill, at in kills:
            if child(world, method, out / point, seconds, lambda kill=kill, at=at: kill(at)) != signal.SIGKILL:
                sys.exit(f"{point} was not killed")
        if child(world, method, out / point, seconds, lambda: None):
            sys.exit(f"{point} did not end")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
