"""Probes in a whole experiment: at every evaluation, on pairs that were not trained on, and never charged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest

from bench import records
from bench.experiment.config import ExperimentConfig
from bench.experiment.run import Outcome, Workspace, run_experiment
from bench.machine.progress import Progress
from bench.probes import reader
from bench.probes.records import probe_pairs
from bench.records import archive

Run = Callable[..., Outcome]
SETTINGS = {"sft": {"batch_size": 2, "lr": 1e-3}}


@pytest.fixture
def experiment(world: fakes.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(reader, "SHARE", 20.0)  # four pictures of two steps: a quarter is no pair

    def run(**changes: Any) -> Outcome:
        values: dict[str, Any] = dict(methods=("sft",), subsets=("all",), budget="steps=2", evaluations=2)
        values |= dict.fromkeys(("backbone", "corpus", "suite"), "fake") | {"method": SETTINGS, "holdout": 3} | changes
        workspace = Workspace(tmp_path / "cache", tmp_path / "runs")
        return run_experiment(ExperimentConfig(**values), workspace, Progress(quiet=True))

    with fakes.registered(world.backbone):
        yield run


def readings(run: Path) -> dict[str, bytes]:
    return {path.relative_to(run).parent.as_posix(): path.read_bytes() for path in run.rglob("probes.jsonl")}


def test_every_evaluation_has_readings_of_the_same_pairs(experiment: Run) -> None:
    outcome = experiment(subsets=("all", "half"), name="run")
    assert not outcome.failed
    found = readings(outcome.folder)
    assert set(found) == {
        "base/evaluations/0/probes/all", "base/evaluations/0/probes/half",
        *(f"sft--{name}--s0/evaluations/{step}" for name in ("all", "half") for step in (1, 2)),
    }  # fmt: skip
    heads = {name: records.read_json(outcome.folder / name / "probes.json") for name in found}
    for name in ("all", "half"):
        same = [
            heads[f"base/evaluations/0/probes/{name}"],
            *(heads[f"sft--{name}--s0/evaluations/{i}"] for i in (1, 2)),
        ]
        assert same[0] == same[1] == same[2] and same[0]["pairs"]["count"] == 3
    training = {name: heads[f"base/evaluations/0/probes/{name}"]["training"] for name in ("all", "half")}
    assert {about["count"] for about in training.values()} == {3} and training["all"] != training["half"]
    assert heads["base/evaluations/0/probes/all"] != heads["base/evaluations/0/probes/half"]
    assert len(set(found.values())) == len(found)  # models differ, and so do their readings


def test_they_are_not_trained_on_and_change_nothing_else(experiment: Run) -> None:
    probed = experiment(name="probed").folder
    silent = experiment(name="silent", probes=False).folder
    assert not readings(silent)
    job = records.read_json(probed / "sft--all--s0" / "job.json")
    assert job["subset_count"] == 9
    for name in ("train.jsonl", "meter.jsonl", "evaluations/2/samples.jsonl", "evaluations/2/evaluation.json"):
        assert (probed / "sft--all--s0" / name).read_bytes() == (silent / "sft--all--s0" / name).read_bytes(), name
    assert (
        records.read_json(experiment(name="all", holdout=None).folder / "sft--all--s0/job.json")["subset_count"] == 12
    )


def test_a_run_that_was_killed_in_them_leaves_the_same(experiment: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, left = readings(experiment(name="whole").folder), [1]

    def kill(*arguments: Any, **options: Any) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        probe_pairs(*arguments, **options)

    monkeypatch.setattr(reader, "probe_pairs", kill)
    with pytest.raises(KeyboardInterrupt):
        experiment(name="cut")
    monkeypatch.undo()
    monkeypatch.setattr(reader, "SHARE", 20.0)
    assert readings(experiment(name="cut").folder) == whole


def test_a_base_that_was_read_on_one_subset_is_read_on_another(experiment: Run) -> None:
    experiment(name="run")
    assert "base/evaluations/0/probes/half" in readings(experiment(name="run", subsets=("all", "half")).folder)


def test_too_few_fresh_pairs_cost_the_measures_and_not_the_run(
    experiment: Run, world: fakes.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, line: said.append(line))
    monkeypatch.setattr(fakes.FakeCorpus, "holdout", "fake", raising=False)
    outcome = experiment(name="few", holdout=40)
    assert not outcome.failed and not readings(outcome.folder)
    assert (
        "all: no measures of exposure bias: fake has 0 held-out pairs of all, and 40 are asked for; give a smaller "
        in ("".join(said))
    )


def test_an_archive_holds_them(experiment: Run, tmp_path: Path) -> None:
    run = experiment(name="run").folder
    archive.pack(run, tmp_path / "run.tar.xz", ())
    with archive.unpacked([tmp_path / "run.tar.xz"]) as (folder,):
        assert readings(folder) == readings(run)
        assert len([*folder.rglob("probes.json")]) == 3
