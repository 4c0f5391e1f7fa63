"""The control of a base: how far GenEval moves in a run, worked out by hand, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_run import FRACTIONS, TASKS, FakeRun

from bench.errors import BenchError
from benchmarks.backbone_quality import GATES, control

BACKBONE: Any = SimpleNamespace(fingerprint="0123456789abcdef", folder=Path("tiny_sd3"))


def give(run: FakeRun, job: str, *scores: float | None) -> None:
    """Every image of a task the score of its task, in the last evaluation of a job."""
    path = max(run.folder.glob(f"{job}/evaluations/*"), key=lambda folder: int(folder.name)) / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["group"] in TASKS:
            score = scores[TASKS.index(row["group"])]
            row["scores"] = {"world_geneval": {"version": 1, "score": score}}
            row["scores"]["world_geneval"] |= {"error": "no picture"} if score is None else {}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    run = FakeRun(tmp_path / "control")
    run.base()
    give(run, "base", 0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # mean 0.5
    return run


def test_the_control_is_how_far_the_mean_over_tasks_and_seeds_moved(run: FakeRun) -> None:
    give(run, run.job("alpha", 0.0), 0.0, 0.2, 0.4, 0.6, 0.8, 0.4)  # mean 0.4
    assert control(run.folder, BACKBONE) == pytest.approx(0.1)
    give(run, run.job("alpha", 0.0, seed=1), 0.3, 0.5, 0.4, 0.6, 0.8, 1.0)  # mean 0.6
    assert control(run.folder, BACKBONE) == pytest.approx(0.0)
    assert GATES["control"] == (0.0, 0.05)


def test_a_run_that_is_not_finished_is_no_control(run: FakeRun) -> None:
    run.job("alpha", 0.0, fractions=FRACTIONS[:2])
    with pytest.raises(BenchError, match="alpha--pretty--s0 has no evaluation at 100% of its budget; finish the run"):
        control(run.folder, BACKBONE)


def test_a_run_of_other_weights_is_no_control(run: FakeRun) -> None:
    give(run, run.job("alpha", 0.0), *[0.5] * 6)
    with pytest.raises(BenchError, match="control is a run of other weights than tiny_sd3; delete it"):
        control(run.folder, SimpleNamespace(fingerprint="f" * 16, folder=Path("tiny_sd3")))


def test_an_image_without_a_score_is_not_left_out(run: FakeRun) -> None:
    give(run, run.job("alpha", 0.0), 0.5, None, 0.5, 0.5, 0.5, 0.5)
    with pytest.raises(BenchError, match="an image without a score of world_geneval; run `bench score` first"):
        control(run.folder, BACKBONE)
