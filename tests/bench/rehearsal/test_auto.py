"""``--micro-batch auto``: a number for each row, by what rehearsals of it took."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rehearsals import MIB, TRAINED, part, short, whole

from bench import records
from bench.cli import main
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig, read_experiment
from bench.rehearsal import answers, ask, auto
from bench.rehearsal.fit import largest, needed
from bench.rehearsal.results import Rehearsal, setting_of

ASKED = ExperimentConfig(name="here", methods=("sft", "soar"), micro_batch="auto")
ROOM = needed(2610 * MIB)
"""In which 20 rows fit, by test_fit.py."""


def choose(
    monkeypatch: pytest.MonkeyPatch, folder: Path, found: list[Rehearsal], memory: int = ROOM
) -> tuple[ExperimentConfig, list[tuple[str, ...]]]:
    """What is chosen, and the rows of each rehearsal that was asked for."""
    asked: list[tuple[str, ...]] = []

    def rehearsed(config: ExperimentConfig, *arguments: Any, **options: Any) -> list[Rehearsal]:
        assert (config.micro_batch, options) == (None, {"grid": "own"})
        asked.append(config.methods)
        return found

    monkeypatch.setattr(auto, "rehearsed", rehearsed)
    monkeypatch.setattr(answers, "why_not", lambda: None)
    said: list[str] = []
    config = auto.chosen(ASKED, processes=1, memory=memory, cache=folder, runs=folder, say=said.append)
    assert said
    return config, asked


def of(row: str, stage: str = "", each: int = 50 * MIB) -> list[Rehearsal]:
    """A stage's rehearsal and those of one and two rows, which take ``each`` bytes."""
    made = (whole(), short(1, activations=each), short(2, activations=each))
    return [replace(one, row=row, stage=stage or row) for one in made]


def test_each_row_gets_the_most_that_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, _ = choose(monkeypatch, tmp_path, [*of("sft"), *of("soar", each=100 * MIB)])
    assert config.micro_batches == {"sft": 20, "soar": 10}


def test_a_row_of_several_stages_gets_what_fits_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stages = [*of("sft", "one"), *of("sft", "two", 100 * MIB), *of("soar")]
    config, _ = choose(monkeypatch, tmp_path, stages)
    assert config.micro_batches == {"sft": 10, "soar": 20}


def test_a_job_that_has_begun_keeps_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun = {
        "v": records.VERSION, "job": "sft--high_aesthetic--s0", "method": "sft", "subset": "high_aesthetic", "seed": 0,
        "config": {}, "needs": {}, "traits": {}, "reward": None, "versions": {}, "git": {"commit": None, "dirty": None},
        "subset_hash": None, "subset_count": None, "micro_batch": 3,
    }  # fmt: skip
    records.write_json(tmp_path / "here" / "sft--high_aesthetic--s0" / "job.json", begun)
    config, asked = choose(monkeypatch, tmp_path, of("soar"))
    assert config.micro_batches == {"sft": 3, "soar": 20}
    assert asked == [("soar",)]


def test_what_does_not_fit_or_cannot_be_rehearsed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"sft does not fit 1\.9 GiB with one row at a time"):
        choose(monkeypatch, tmp_path, of("sft"), memory=1900 * MIB)
    broken = [replace(each, problem="here:1: RuntimeError: no") for each in of("sft")]
    with pytest.raises(BenchError, match="sft cannot be rehearsed: here:1: RuntimeError: no; give --micro-batch a num"):
        choose(monkeypatch, tmp_path, broken)


def test_a_machine_without_rehearsals_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(answers, "why_not", lambda: "rehearsals run on Linux")
    with pytest.raises(BenchError, match="--micro-batch auto needs a rehearsal: rehearsals run on Linux; give"):
        auto.chosen(ASKED, processes=1, memory=ROOM, cache=tmp_path, runs=tmp_path, say=print)


def test_a_number_stays_a_number(tmp_path: Path) -> None:
    config = ExperimentConfig(micro_batch=6)
    assert auto.chosen(config, processes=1, memory=1, cache=tmp_path, runs=tmp_path, say=print) is config


def test_the_setting_is_the_rehearsal_s_own() -> None:
    other = [short(1, True, 5 * MIB), short(2, True, 5 * MIB)]
    assert largest(whole(), [short(1), short(2), *other], ROOM) == 20
    assert largest(whole(), other, ROOM) is None


def of_eight(rows: int) -> Rehearsal:
    """Of one of eight processes: DDP's buckets, which are the gradients, are there from the beginning."""
    one = short(rows)
    setup = part("setup", {"setup": {"weights": 400 * MIB, "gradients": 400 * MIB}})
    return replace(one, setting=replace(one.setting, processes=8), parts=(setup, one.parts[1]))


def test_an_adapter_is_held_whole_under_fsdp() -> None:
    setting = replace(whole().setting, processes=8, sharding="fsdp")
    adapter = replace(whole(), setting=setting, parameters=10 * TRAINED)
    assert (adapter.sharding, replace(whole(), setting=setting).sharding) == ("ddp", "fsdp")
    pair = [of_eight(rows) for rows in (1, 2)]
    assert largest(adapter, pair, ROOM) == 20  # the states and the moment of the update are not shares


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("run", "--micro-batch auto asks a GPU for its memory, and this machine has none; give --micro-batch a number"),
        ("run --launcher slurm", "Slurm's jobs run on others"),
        ("tune", "--micro-batch auto is of `bench run`"),
    ],
)
def test_the_command_refuses_where_there_is_no_gpu(call: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = CliRunner().invoke(main, [*call.split(), "--micro-batch", "auto", "--methods", "sft"])
    assert result.exit_code == 1
    assert result.output.startswith("bench: ") and says in result.output and len(result.output.splitlines()) == 1


def test_what_was_rehearsed_of_another_model_or_code_is_not_taken(tiny_pipeline: Path, tmp_path: Path) -> None:
    def place(folder: Path) -> Path:
        given = {"methods": ("sft",), "backbone": str(folder), "suite": "smoke", "resolution": 16}
        config = read_experiment(None, given)
        shared = ask._shared(config, setting_of(config, 1), tmp_path / "cache")
        return ask._place(config, shared, tmp_path / "cache", "sft", grid="own")

    folder = tmp_path / "tiny"
    shutil.copytree(tiny_pipeline, folder)
    before = place(folder)
    transformer = folder / "transformer" / "config.json"
    held = json.loads(transformer.read_text())
    transformer.write_text(json.dumps(held | {"num_layers": held["num_layers"] + 1}))
    assert place(folder) != before
    transformer.write_text(json.dumps(held))
    assert place(folder) == before
