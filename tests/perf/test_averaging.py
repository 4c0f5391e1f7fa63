"""The study of averages adds up what it says, and a study that was cut off goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import averaging
import fakes
import pytest
import torch
from averaging import Evaluated, FreshNoise, Trained

from bench import records
from bench.errors import BenchError
from bench.suite import Suite
from bench.training.budget import Budget
from benchmarks.suites import embedded

BUDGET = Budget.parse("updates=4")


def evaluator(world: fakes.World, suite: Suite | None = None) -> FreshNoise:
    metrics: Any = {"brightness": fakes.Brightness()}
    return FreshNoise(suite or fakes.suite(), world.backbone, metrics, world.engine)


def trained(world: fakes.World, folder: Path, seed: int = 0) -> Trained:
    return averaging.train(
        folder, fakes.small("sft"), world.session(seed=seed), BUDGET, evaluator(world), "sft",
        fractions=(0.5, 1.0), half_lives=(0.25, 0.5),
    )  # fmt: skip


def test_a_step_keeps_half_of_the_average_for_each_half_life_that_it_spends(world: fakes.World) -> None:
    """A quarter of the budget a step: of an average with that half-life the last weights are a half."""
    job = world.job()
    method = averaging.with_averages(fakes.small("sft"), BUDGET, (0.25, 0.5))
    method.setup(job)
    seen = [[p.detach().clone() for p in job.parameters]]
    for _ in range(4):
        method.step(job)
        fakes.finish_step(job)
        seen.append([p.detach().clone() for p in job.parameters])
    shares = [1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2]
    for at, found in enumerate(method.averages[0].values):
        wanted = sum(share * weights[at].double() for share, weights in zip(shares, seen, strict=True))
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-6)
    root = 0.5**0.5
    first, last = method.averages[1].values[0].double(), seen[4][0].double()
    before = sum(
        share * seen[n][0].double()
        for n, share in enumerate([0.25, (1 - root) * root**3, (1 - root) / 2, (1 - root) * root])
    )
    torch.testing.assert_close(first, before + (1 - root) * last, rtol=1e-4, atol=1e-6)


def test_a_job_is_evaluated_late_and_in_each_average_with_noise_of_its_own(world: fakes.World, tmp_path: Path) -> None:
    found = trained(world, tmp_path / "job")
    assert (set(found.late), set(found.averaged), found.updates) == ({"0.5", "1"}, {"0.25", "0.5"}, 4)
    assert found.training > 0 and found.averages > 0 and all(each.seconds > 0 for each in found.late.values())
    paths = (tmp_path / "job").rglob("samples.jsonl")
    early, *end = (
        {row["seed"] for row in records.read_lines(path)}
        for path in sorted(paths, key=lambda path: records.read_json(path.parent / "evaluation.json")["fraction"])
    )
    assert len(end) == 3 and all(noise == end[0] for noise in end) and not early & end[0]


def test_two_methods_of_a_seed_share_noise_and_two_seeds_do_not(world: fakes.World, tmp_path: Path) -> None:
    def noise(name: str) -> set[int]:
        return {
            row["seed"]
            for path in (tmp_path / name / "averages" / "0.25").glob("samples.jsonl")
            for row in records.read_lines(path)
        }

    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        trained(world, tmp_path / name, seed)
    assert noise("one") == noise("again") and not noise("one") & noise("other")


def test_a_study_that_was_cut_off_goes_on_without_training_again(
    world: fakes.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(world, tmp_path / "whole")
    with monkeypatch.context() as patch:
        run = FreshNoise.run

        def cut(self: FreshNoise, painter: Any, folder: Path, **how: Any) -> None:
            if folder.parent.name == "averages":
                raise KeyboardInterrupt
            run(self, painter, folder, **how)

        patch.setattr(FreshNoise, "run", cut)
        with pytest.raises(KeyboardInterrupt):
            trained(world, tmp_path / "cut")
    seconds = records.read_json(next((tmp_path / "cut").glob("evaluations/2/cpu.json")))
    monkeypatch.setattr(type(fakes.small("sft")), "step", lambda *a: pytest.fail("it trains again"))
    found = trained(world, tmp_path / "cut")
    assert found.late["0.5"].seconds == seconds["seconds"]
    for ours, theirs in ((found.late, whole.late), (found.averaged, whole.averaged)):
        assert {name: each.scores for name, each in ours.items()} == {name: e.scores for name, e in theirs.items()}
    assert trained(world, tmp_path / "cut") == found  # read, and nothing is evaluated again


# -- figures -----------------------------------------------------------------------------------------------------------


def job(method: str, seed: int, late: dict[str, float], average: float) -> Trained:
    evaluated = {share: Evaluated({"m": score}, 10.0) for share, score in late.items()}
    return Trained(method, seed, 1, 100.0, 6.0, evaluated, {"0.1": Evaluated({"m": average}, 20.0)})


JOBS = [
    job("a", 0, {"0.7": 0.0, "1": 0.2}, 0.1),
    job("b", 0, {"0.7": 0.2, "1": 0.6}, 0.5),
    job("a", 1, {"0.7": 0.1, "1": 0.1}, 0.1),
    job("b", 1, {"0.7": 0.3, "1": 0.3}, 0.3),
    job("a", 2, {"0.7": 0.1, "1": 0.1}, 0.1),  # b's third seed is not there yet
]


def test_the_table_is_that_of_pencil_and_paper() -> None:
    """Differences of two seeds: 0.4 and 0.2 at the end, 0.3 and 0.2 in the mean, 0.4 and 0.2 of the average."""
    last, late, average = averaging.compare(JOBS, ("a", "b"), cpu_seconds=880.0)
    assert (last.choice, late.choice, average.choice) == (averaging.LAST, averaging.LATE, averaging.averaged(0.1))
    assert (last.difference, last.error) == (pytest.approx(0.3), pytest.approx(0.1))
    assert (late.difference, late.error) == (pytest.approx(0.25), pytest.approx(0.05))
    assert (average.difference, average.error) == (pytest.approx(0.3), pytest.approx(0.1))
    assert (last.seconds, late.seconds, average.seconds) == (220.0, 240.0, 252.0)
    assert last.equal == pytest.approx(0.1 * (2 * 220 / 880) ** 0.5)  # 880 seconds pay for four seeds instead of two
    assert late.equal == pytest.approx(0.05 * (2 * 240 / 880) ** 0.5)
    assert "known to 71%" in [*averaging.table([last], ("a", "b"), 2, 880.0)][-1]


def test_one_seed_has_no_standard_error() -> None:
    with pytest.raises(BenchError, match="takes two seeds"):
        averaging.compare(JOBS[:2], ("a", "b"), 1.0)


def test_scenes_are_every_so_many_th_of_each_task() -> None:
    part = averaging.scenes(embedded.suite(), 100)
    (prompts,) = part.prompt_sets
    assert prompts.metrics == averaging.METRICS and part.images() == 96
    assert prompts.prompts == embedded.suite().prompt_sets[1].every(5).prompts
