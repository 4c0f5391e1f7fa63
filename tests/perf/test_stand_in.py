"""The stand-in of the planned reference comparison is a run that a report can be drawn from."""

from __future__ import annotations

from pathlib import Path

from fake_readings import of_base, trained, write
from fake_run import FakeRun
from stand_in import FRACTIONS, SUBSETS, planned, stand_in

from bench.report.exposure import exposure
from bench.report.study import read_study


def test_it_is_as_large_as_planned_and_its_rows_differ(tmp_path: Path) -> None:
    run = FakeRun(tmp_path / "run")
    run.base()
    write(run, f"base/evaluations/0/probes/{SUBSETS[0]}", of_base)
    for method in ("sft", "soar"):
        trained(run, method, of_base, subset=SUBSETS[0])
    study = read_study([stand_in(run.folder, tmp_path / "out")])
    assert len(study.jobs) == len(planned()) == 153 and tuple(study.fractions) == FRACTIONS
    assert sorted(study.subsets) == sorted(SUBSETS)
    last = [job.evaluations[-1].samples for job in study.jobs]
    scores = {tuple(s.scores["geneval"].score for s in samples if "geneval" in s.scores) for samples in last}
    assert len(scores) == 153
    found = exposure(study)
    assert found is not None and {line.subset for line in found.lines} == set(SUBSETS) and not found.left_out
