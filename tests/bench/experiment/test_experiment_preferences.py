"""Preference data in a whole experiment: shared by subsets, pinned in records, and given where it was lacking."""

from __future__ import annotations

import json
from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image

from bench import records
from bench.errors import BenchError
from bench.experiment import data
from bench.experiment.config import ExperimentConfig
from bench.experiment.data import prepare_preferences
from bench.experiment.run import Workspace, run_experiment
from bench.experiment.workbench import Workbench
from bench.machine.engine import Engine
from bench.machine.progress import Progress
from bench.records.status import read_status

CAPTIONS = ("a red circle", "a blue square")
SMALL = {"batch_size": 2, "lora_rank": 2, "lora_alpha": 4.0, "lr": 1e-3}


def write(folder: Path, preferred: tuple[int, int] = (0, 0)) -> str:
    """A folder of two pairs, of which these halves are preferred."""
    folder.mkdir(exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    for pair, caption in enumerate(CAPTIONS):
        for half in (0, 1):
            name = f"{pair}-{half}.png"
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / name)
            told = {"pair": str(pair), "preferred": str(int(half == preferred[pair]))}
            rows.append({"file_name": name, "text": caption} | told)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


@pytest.fixture
def experiment(world, tmp_path):
    def run(**changes):
        values = dict(methods=("dpo",), subsets=("half",), budget="steps=2", evaluations=1, method={"dpo": SMALL})
        values |= dict.fromkeys(("backbone", "corpus", "suite"), "fake") | changes
        return run_experiment(
            ExperimentConfig(**values), Workspace(tmp_path / "cache", tmp_path / "runs"), Progress(quiet=True)
        )

    with fakes.registered(world.backbone):
        yield run


def test_every_subset_learns_from_them_when_captions_are_encoded_ahead(experiment, tmp_path):
    outcome = experiment(subsets=("half", "all"), preferences=write(tmp_path / "p"), text_cache_limit="1B")
    assert outcome.failed == {}


def test_a_full_disk_ends_no_job_but_the_experiment(experiment, tmp_path, monkeypatch):
    given, usual = write(tmp_path / "p"), data._encoded

    def full(workbench, corpus, manifest, name):
        if name == given:
            raise records.DiskFull("the disk is full")
        return usual(workbench, corpus, manifest, name)

    monkeypatch.setattr(data, "_encoded", full)
    with pytest.raises(records.DiskFull):
        experiment(preferences=given)


class OneOfTwo(Engine):
    """One of two processes, which has read what the other has and waits for none."""

    _together = False

    def __init__(self) -> None:
        super().__init__()
        self.world_size = 2


@pytest.mark.parametrize("captions", [None, ("a red circle", "a blue square")])
def test_what_two_processes_find_wrong_alike_ends_the_jobs_that_need_it_alone(world, tmp_path, captions):
    if captions:
        write(tmp_path / "p")
        rows = (tmp_path / "p" / "metadata.jsonl").read_text().replace('"pair": "1"', '"pair": "0"').splitlines()
        (tmp_path / "p" / "metadata.jsonl").write_text("\n".join(rows[1:3]))  # one pair, of two captions
    config = ExperimentConfig(
        methods=("dpo",), **dict.fromkeys(("backbone", "corpus", "suite"), "fake"),
        preferences=str(tmp_path / "p") if captions else "",
    )  # fmt: skip
    suite, quiet = fakes.suite(), Progress(quiet=True)
    with fakes.registered(world.backbone):
        told = prepare_preferences(Workbench(config, tmp_path / "cache", OneOfTwo(), world.backbone, suite, {}, quiet))
    assert isinstance(told, str) and "\n" not in told
    assert ("different prompts" if captions else "no preference pairs go with the corpus fake") in told


def test_they_are_recorded_by_their_pictures_and_by_what_was_preferred(experiment, tmp_path):
    found = []
    for number, preferred in enumerate([(0, 0), (0, 1)]):
        folder = write(tmp_path / "p", preferred)
        outcome = experiment(preferences=folder, name=f"run-{number}")
        found.append(records.read_json(outcome.folder / "dpo--half--s0" / "job.json")["preferences"])
    assert all(record["corpus"] == str(tmp_path / "p") and record["pairs"] == 2 for record in found)
    assert found[0]["hash"] == found[1]["hash"] and found[0]["preferred_hash"] != found[1]["preferred_hash"]


def test_a_run_does_not_go_on_with_other_preferences(experiment, tmp_path):
    experiment(preferences=write(tmp_path / "p"))
    with pytest.raises(BenchError, match=r"another configuration \(other preferences\)"):
        experiment(preferences=write(tmp_path / "p", (1, 0)))
    moved = (tmp_path / "p").rename(tmp_path / "q")
    assert experiment(preferences=write(moved)).failed == {}  # the same ones in another place


def test_a_job_that_lacked_them_trains_when_they_are_given(experiment, tmp_path):
    lacking = experiment()
    assert list(lacking.failed) == ["dpo--half--s0"]
    assert lacking.failed["dpo--half--s0"].startswith("no preference pairs go with the corpus fake; give some with")
    outcome = experiment(preferences=write(tmp_path / "p"))
    assert outcome.failed == {} and read_status(outcome.folder / "dpo--half--s0")["status"] == "finished"
    record = records.read_json(outcome.folder / "dpo--half--s0" / "job.json")
    assert record["preferences"]["corpus"] == str(tmp_path / "p")
