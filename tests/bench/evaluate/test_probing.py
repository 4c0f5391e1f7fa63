"""Probes of `bench evaluate`: the readings of a run, again, and in one line where there are no pairs to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest

from bench import records
from bench.evaluate import probing
from bench.evaluate.rows import EvaluationConfig, evaluate
from bench.experiment.config import ExperimentConfig
from bench.experiment.run import Outcome, Workspace, run_experiment
from bench.machine.progress import Progress
from bench.probes import reader
from bench.report.exposure import exposure
from bench.report.study import read_study

SETTINGS = {"sft": {"batch_size": 2, "lr": 1e-3}}


class Bench:
    """Commands in one workspace; keeps what they said."""

    def __init__(self, folder: Path, said: list[str]) -> None:
        self.workspace, self.said = Workspace(folder / "cache", folder / "runs"), said

    def train(self, **changes: Any) -> Path:
        values: dict[str, Any] = dict(methods=("sft",), subsets=("all", "half"), budget="steps=2", evaluations=1)
        values |= dict.fromkeys(("backbone", "corpus", "suite"), "fake") | {"method": SETTINGS, "holdout": 3} | changes
        outcome = run_experiment(ExperimentConfig(**values), self.workspace, Progress(quiet=True))
        assert not outcome.failed
        return outcome.folder

    def evaluate(self, *what: Path | str, **options: Any) -> Outcome:
        values = {"suite": "fake", "max_sequence_length": 12, "probes": True} | options
        config = EvaluationConfig(what=tuple(map(str, what)), **values)
        return evaluate(config, self.workspace, Progress(quiet=True))


@pytest.fixture
def bench(world: fakes.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(reader, "SHARE", 20.0)  # four pictures of two steps: a quarter is no pair
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, line: said.append(line))
    with fakes.registered(world.backbone):
        yield Bench(tmp_path, said)


def readings(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.rglob("probes.jsonl")}


def test_a_runs_models_read_as_they_did_in_it(bench: Bench) -> None:
    run = bench.train(name="run")
    folder = bench.evaluate(run).folder
    (base,), *jobs = (sorted(folder.glob(f"evaluated--*{name}")) for name in ("base", "half--s0", "all--s0"))
    assert readings(base) == readings(run / "base") and set(readings(base)) == {"all", "half"}
    for (job,), name in zip(jobs, ("half", "all"), strict=True):
        (own,) = readings(run / f"sft--{name}--s0").values()
        assert readings(job) == {name: own}
    assert not [line for line in bench.said if "no measures" in line]


def test_rows_that_were_drawn_before_are_read_later(bench: Bench) -> None:
    run = bench.train(name="run")
    folder = bench.evaluate(run / "base", probes=False).folder
    assert not readings(folder)
    assert bench.evaluate(run / "base").folder == folder and set(readings(folder)) == {"all", "half"}


def test_all_pairs_are_read_on_demand_whatever_that_costs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.train(name="run")
    monkeypatch.setattr(reader, "SHARE", 0.0)
    assert not readings(bench.evaluate(run, name="none").folder)
    for path in (found := sorted(bench.evaluate(run, name="every", all_pairs=True).folder.rglob("probes.jsonl"))):
        assert {pair for line in records.read_lines(path) for pair in line["pairs"]} == {0, 1, 2}
    assert len(found) == 4  # the base on both subsets, and each job on its own


def test_another_model_is_read_on_the_pairs_of_a_run_that_is_named(bench: Bench) -> None:
    run = bench.train(name="run")
    folder = bench.evaluate("fake", pairs=str(run)).folder
    assert readings(folder) == readings(run / "base")


@pytest.mark.parametrize(
    ("what", "options", "says"),
    [
        ("fake", {}, "fake lies in no run, so it has no held-out pairs; name a run with --pairs"),
        ("fake", {"pairs": "nowhere"}, "nowhere is no run that trained (it has no config.json); name one with --pairs"),
    ],
)
def test_without_pairs_scores_go_on(bench: Bench, what: str, options: dict[str, str], says: str) -> None:
    outcome = bench.evaluate(what, **options)
    assert outcome.failed == {what: f"no measures of exposure bias: {says}"} and not readings(outcome.folder)
    assert f"{what}: no measures of exposure bias: {says}" in bench.said
    (samples,) = outcome.folder.rglob("samples.jsonl")
    assert all("score" in line["scores"]["brightness"] for line in records.read_lines(samples))


def test_a_row_that_no_probe_reads_says_so(bench: Bench) -> None:
    run = bench.train(name="run")
    outcome = bench.evaluate(run / "base", solver=("heun", "euler"))
    (row,) = (path.parents[4].name for path in outcome.folder.rglob("half/probes.jsonl"))
    assert row.endswith("--euler")
    assert "base, heun: no measures of exposure bias: they follow plain Euler steps alone" in bench.said


def test_a_run_whose_methods_saw_every_pair_is_said(bench: Bench) -> None:
    run = bench.train(name="run", holdout=None)
    outcome = bench.evaluate(run / "sft--half--s0")
    assert outcome.failed and not readings(outcome.folder)
    (line,) = (line for line in bench.said if "no measures" in line)
    assert line.endswith("has no held-out pairs of half; it was run without --holdout, so its methods saw every pair")


def test_pairs_that_are_not_those_of_the_training_are_not_called_held_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the corpus has changed since: a pair of training may be among those that are held out now."""
    run = bench.train(name="run")
    usual = probing.cut_subset
    others = {"content_hash": "ab" * 32}
    monkeypatch.setattr(probing, "cut_subset", lambda *given, **named: replace(usual(*given, **named), **others))
    outcome = bench.evaluate(run / "sft--half--s0")
    assert outcome.failed and not readings(outcome.folder)
    (line,) = (line for line in bench.said if "no measures" in line)
    said = f"half holds other pairs than those that {run} trained on (the corpus changed), so none is held out"
    assert line.endswith(said)


def test_images_have_no_model_to_read(bench: Bench) -> None:
    folder = bench.evaluate("fake", probes=False).folder
    (images,) = folder.rglob("images")
    (reason,) = bench.evaluate(images).failed.values()
    assert reason == f"{images} holds images, and probes read a model; leave --probes out"


def test_rows_that_are_evaluated_alone_are_held_against_the_pipeline_among_them(bench: Bench) -> None:
    run = bench.train(name="run")
    folder = bench.evaluate("fake", run / "sft--half--s0", pairs=str(run)).folder
    trained, evaluated = (exposure(read_study([path])) for path in (run, folder))
    assert trained and evaluated
    (line,) = (line for line in trained.last if line.subset == "half")
    (again,) = (line for line in evaluated.last if line.subset == "half")
    assert again.method == "sft--half--s0" and again.measures == line.measures


def test_a_row_with_a_remedy_has_no_readings_of_its_own(bench: Bench) -> None:
    run = bench.train(name="run")
    folder = bench.evaluate(run / "base", remedy=("epsilon_scaling=1.05",), name="remedied").folder
    assert not readings(folder)
