"""The part on exposure bias: a second process makes the same, and what it cannot make is made here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_readings import of_base, trained, write
from fake_run import FakeRun

from bench.errors import BenchError
from bench.report import exposure_part, render_report
from bench.report.exposure_part import ExposurePart, beside
from bench.report.study import read_study


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    made = FakeRun(tmp_path / "demo")
    made.base()
    write(made, "base/evaluations/0/probes/pretty", of_base)
    trained(made, "soar", lambda probe, sigma, pair: of_base(probe, sigma, pair) / 2)
    return made


@pytest.fixture
def much(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were many readings, and two cores."""
    monkeypatch.setattr(exposure_part, "MUCH", 1)
    monkeypatch.setattr(exposure_part, "own_cores", lambda: 2)


def unasked(study: object) -> ExposurePart:
    raise AssertionError("the part was made here")


def test_a_second_process_makes_the_same(run: FakeRun, much: None, monkeypatch: pytest.MonkeyPatch) -> None:
    study = read_study([run.folder])
    here = exposure_part.exposure_part(study)
    monkeypatch.setattr(exposure_part, "exposure_part", unasked)
    with beside([run.folder]) as part:
        there = part(study)
    assert there == here and there.found is not None
    assert set(there.files) == {"exposure.md", "exposure.csv", "exposure.png", "exposure_budget.png"}


def test_a_report_is_the_same_with_it(
    run: FakeRun, much: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render_report([run.folder], tmp_path / "two")
    monkeypatch.setattr(exposure_part, "MUCH", sys.maxsize)
    render_report([run.folder], tmp_path / "one")
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / of).rglob("*.*")} for of in ("one", "two"))
    assert one == two and "exposure.png" in one


def test_little_and_one_core_need_no_second_process(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    with beside([run.folder]) as part:
        assert part is exposure_part.exposure_part
    monkeypatch.setattr(exposure_part, "MUCH", 1)
    monkeypatch.setattr(exposure_part, "own_cores", lambda: 1)
    with beside([run.folder]) as part:
        assert part is exposure_part.exposure_part


def test_damaged_readings_end_in_the_same_line(run: FakeRun, much: None) -> None:
    (path,) = run.folder.glob("base/**/probes.jsonl")
    path.write_text("[]\n")
    with beside([run.folder]) as part, pytest.raises(BenchError, match="is not a record this version reads"):
        part(read_study([run.folder]))


def test_a_process_that_cannot_start_is_made_up_for(run: FakeRun, much: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/nowhere"])  # of the other process: this one has what it imports
    with beside([run.folder]) as part:
        monkeypatch.undo()
        assert part(read_study([run.folder])) == exposure_part.exposure_part(read_study([run.folder]))


def test_it_ends_with_the_report(run: FakeRun, much: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rest of a report ends in an error, nothing is left behind that reads on."""
    started = []
    popen = exposure_part.subprocess.Popen
    monkeypatch.setattr(
        exposure_part.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
    )
    with pytest.raises(KeyError), beside([run.folder]):
        raise KeyError
    assert len(started) == 1 and started[0].returncode is not None
