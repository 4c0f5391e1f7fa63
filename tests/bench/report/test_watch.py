"""A report that follows a run is drawn when something happened, and ends with the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from page_text import page_text

from bench.report.watch import watch


def test_it_draws_what_is_new_until_every_job_has_ended(make_run: Any, tmp_path: Path) -> None:
    run, out = make_run(per_group=1, signs=1), tmp_path / "out"
    name = run.job("alpha", 0.1, status="started", fractions=[0.333])
    told: list[str] = []
    steps = iter(
        [lambda: None, lambda: run.write(f"{name}/status.json", {"v": 1, "status": "finished", "reason": None})]
    )

    watch([run.folder], out, None, wait=lambda _: next(steps)(), tell=lambda page: told.append(page_text(page.parent)))

    assert len(told) == 2  # a look at which nothing is new draws nothing
    assert "Unfinished: 1 of 2 jobs have ended" in told[0] and "Unfinished" not in told[1]


def test_it_follows_an_evaluation_until_its_rows_are_finished(make_run: Any, tmp_path: Path) -> None:
    run, told = make_run(per_group=1, signs=1), []
    run.evaluated("mine", "Mine", 0.1, kind="images", source="x", sizes={"64x64": 7})
    (row,) = (path.parent.name for path in run.folder.glob("evaluated--*/status.json"))
    run.experiment["jobs"] = []
    run.save()
    run.write(f"{row}/status.json", {"v": 1, "status": "started", "reason": None})
    steps = iter([lambda: run.write(f"{row}/status.json", {"v": 1, "status": "finished", "reason": None})])
    watch([run.folder], tmp_path / "out", None, wait=lambda _: next(steps)(), tell=told.append)
    assert len(told) == 2
