"""Every key of every record taken away or of another type: a report is drawn, or one line says what is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_run import FakeRun

from bench.errors import BenchError
from bench.report import figure, plots, render_report
from bench.report.page import document
from bench.report.study import read_study

OTHERS: tuple[Any, ...] = (None, 7, -1.5, True, "text", "../../x", [], ["a"], {}, {"a": 1})
ALPHA = "alpha--pretty--s0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """A small run with everything that a record can hold: a pipeline, tuned settings, preferences, a sweep."""
    fake = FakeRun(tmp_path_factory.mktemp("damaged") / "demo", per_group=1, repeats=1, signs=1)
    fake.base()
    fake.job("alpha", 0.1, fractions=[1.0], preferences=9, tuned={"alpha": {"lr": 0.1}}, config={"alpha": {"lr": 0.1}})
    path = fake.folder / ALPHA / "job.json"
    file = {"file": "mine.py", "sha256": "ab" * 32}
    stages = [{"name": "alpha", "end": 1.0, "origin": file}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stages": stages, "origin": file}))
    fake.evaluated("mine", "Mine", 0.1, kind="images", source="x", sizes={"64x64": 7})
    fake.swept("alpha", 2.0, 0.1, method="alpha")
    fake.swept("alpha", 4.0, 0.1, method="alpha")
    return fake


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn holds what the tables hold, and takes a second."""
    monkeypatch.setattr(figure, "rendered", lambda draw, name, formats=(): {})
    monkeypatch.setattr(plots, "sheet", lambda *arguments, **options: b"")
    monkeypatch.setattr(document, "page", lambda *arguments, **options: {})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key and of the first item of every list."""
    yield path
    parts = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def changed(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """The value with another one at a place, or without it for ``...``."""
    if not path:
        return None if other is ... else other
    value = copy.deepcopy(value)
    held = value
    for key in path[:-1]:
        held = held[key]
    if other is ...:
        del held[path[-1]]
    else:
        held[path[-1]] = other
    return value


def attempt(action: Any, what: str, wrong: list[str]) -> None:
    try:
        action()
    except BenchError as error:
        if "\n" in str(error):
            wrong.append(f"{what}: several lines")
    except Exception as error:
        wrong.append(f"{what}: {type(error).__name__}: {error}")


def damaged(file: Path) -> Iterator[tuple[str, bool]]:
    """The file with each of its places damaged in each way, put back at the end: what was done, whether it is gone."""
    text = file.read_text()
    lines = file.suffix == ".jsonl"
    value = json.loads(text.splitlines()[0] if lines else text)
    rest = "".join(line + "\n" for line in text.splitlines()[1:]) if lines else ""
    try:
        for path in places(value):
            for other in (..., *OTHERS):
                new = changed(value, path, other)
                file.write_text(json.dumps(new) + "\n" + rest)
                yield f"{file.name} {'.'.join(map(str, path)) or 'all'} = {other}", other is ...
    finally:
        file.write_text(text)


FILES = (
    "experiment.json",
    f"{ALPHA}/job.json",
    f"{ALPHA}/status.json",
    f"{ALPHA}/meter.jsonl",
    f"{ALPHA}/clock.jsonl",
    "base/job.json",
    "base/evaluations/0/evaluation.json",
    "base/evaluations/0/samples.jsonl",
    "evaluated--mine/job.json",
    "evaluated--alpha--cfg2/job.json",
)


@pytest.mark.parametrize("name", FILES)
def test_a_report_is_drawn_or_one_line_says_what_is_wrong(run: FakeRun, tmp_path: Path, name: str) -> None:
    wrong: list[str] = []
    tried = 0
    for what, gone in damaged(run.folder / name):
        attempt(lambda: read_study([run.folder]), what, wrong)
        if gone:  # what is read is drawn as well
            attempt(lambda: render_report([run.folder], tmp_path / "out"), what, wrong)
        tried += 1
    assert tried > 20
    assert not wrong, f"{len(wrong)} of {tried}: " + "\n".join(wrong[:20])
    assert not [path for path in tmp_path.rglob("*") if path.name == "x"]


def test_a_subset_that_leads_elsewhere_names_no_file(run: FakeRun, tmp_path: Path) -> None:
    for what, _ in damaged(run.folder / ALPHA / "job.json"):
        if "subset = ../../x" in what:
            with pytest.raises(BenchError, match=r"job\.json is not a record this version reads \(subset: "):
                render_report([run.folder], tmp_path / "a" / "b" / "out")
            return
    raise AssertionError("not tried")
