"""A run's backbone is found again from any folder, and a path is never taken for a model of the hub."""

from __future__ import annotations

import json
from pathlib import Path

import fakes
import pytest
from fake_run import FakeRun

from bench import records
from bench.backbone import hub
from bench.backbone.source import Source, read_source
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig
from bench.experiment.run import Workspace, run_experiment
from bench.machine.progress import Progress


@pytest.fixture
def here(tmp_path: Path, tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, with the pipeline in it as ``models/sd3``; nothing may be fetched."""

    def fetched(*names: object, **options: object) -> str:
        raise AssertionError(f"the hub was asked for {names}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "sd3").symlink_to(tiny_pipeline)
    return tmp_path


def write_experiment(run: Path, **about: object) -> None:
    fake = FakeRun(run)
    fake.experiment |= about
    fake.save()


@pytest.mark.parametrize("given", ["models/sd3", "./models/sd3", "models/../models/sd3", "~/sd3"])
def test_a_run_records_the_absolute_path_of_a_folder(
    here: Path, world: fakes.World, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("HOME", str(here / "models"))
    values = dict(backbone=given, corpus="fake", suite="fake", methods=("sft",), subsets=("half",), budget="steps=1")
    with fakes.registered(world.backbone):
        config = ExperimentConfig(
            **values, evaluations=1, trackers=(), max_sequence_length=12, resolution=16, name="demo"
        )
        run_experiment(config, Workspace(here / "cache", here / "runs"), Progress(quiet=True), only=("base",))
    record = records.read_json(here / "runs/demo/config.json")
    assert record["backbone_kind"] == "folder"
    assert Path(record["backbone"]).is_absolute() and Path(record["backbone"]).samefile(here / "models/sd3")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    origin = read_source(here / "runs" / "demo")
    assert origin.folder().samefile(here / "models/sd3")
    assert origin.hash == hub.fingerprint(here / "models/sd3")


def test_a_folder_that_is_gone_is_not_fetched_from_a_stranger(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run of this release, and of one of 0.4.0, which recorded ``models/sd3`` and no commit."""
    for number, config in enumerate(
        ({"backbone": str(here / "gone/sd3"), "backbone_kind": "folder"}, {"backbone": "gone/sd3", "revision": None})
    ):
        run = here / f"run{number}"
        records.write_json(run / "config.json", config)
        write_experiment(run, backbone="sd3", backbone_commit=None)
        monkeypatch.chdir(here / "models")
        origin = read_source(run)
        assert origin.kind == "folder"
        with pytest.raises(BenchError, match=r"there is no folder .*/gone/sd3"):
            origin.folder()


def test_a_model_of_the_hub_stays_one(here: Path) -> None:
    write_experiment(here / "run", backbone="owner/sd3", backbone_commit="c0ffee")
    records.write_json(here / "run/config.json", {"backbone": "owner/sd3", "revision": "v1"})
    assert (read_source(here / "run").kind, read_source(here / "run").revision) == ("hub", "v1")
    assert Source("owner/sd3").record() == {"backbone": "owner/sd3", "backbone_kind": "hub"}
    assert Source("tiny-sd3").record() == {"backbone": "tiny-sd3", "backbone_kind": "registered"}


@pytest.mark.parametrize(
    "name", ["./sd3", "../sd3", "~/sd3", "/sd3", "a/b/c", "models/sd4", ".cache/sd3", "models/sd3/"]
)
def test_a_path_that_is_not_there_is_no_id(here: Path, name: str) -> None:
    (here / "models/sd3").unlink()
    assert Source(name).kind == "folder"
    with pytest.raises(BenchError) as caught:
        hub.resolve(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", []),
        ("config.json", {"backbone": 7}),
        ("config.json", {"backbone": "tiny-sd3", "revision": 7}),
        ("experiment.json", []),
        ("experiment.json", {"jobs": []}),
    ],
)
def test_a_record_that_says_nothing_is_one_line(here: Path, file: str, content: object) -> None:
    write_experiment(here / "run", backbone="tiny-sd3")
    (here / "run" / file).write_text(json.dumps(content))
    with pytest.raises(BenchError, match="run"):
        read_source(here / "run")
