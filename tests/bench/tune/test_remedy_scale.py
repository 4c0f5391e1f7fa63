"""The scale of a remedy: chosen on other prompts than those that are reported, from a stated list, on the record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
from click.testing import CliRunner

from bench import records, registry
from bench.cli import main
from bench.errors import BenchError
from bench.evaluate.config import EvaluationConfig
from bench.evaluate.rows import evaluate
from bench.experiment.run import Outcome, Workspace
from bench.machine.progress import Progress
from bench.report.study import read_study
from bench.report.tables import main_sections, notes
from bench.suite import Prompt, Suite
from bench.tune import remedy_scale
from bench.tune.remedy_scale import SCALES, with_scales

AUTO = "epsilon_scaling=auto"


def validation() -> Suite:
    """Prompts of the fake world that its suite does not draw."""
    suite = fakes.suite()
    (prompts,) = suite.prompt_sets
    other = tuple(Prompt(str(i), text) for i, text in enumerate(fakes.CAPTIONS[2:4]))
    return replace(suite, name="fake_validation", seed=8, prompt_sets=(replace(prompts, prompts=other),))


class Bench:
    """Evaluations in one workspace; keeps what they were and what was said."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.said = Workspace(folder / "cache", folder / "runs"), list[str]()
        self.done: list[EvaluationConfig] = []

    def run(self, config: EvaluationConfig) -> Outcome:
        self.done.append(config)
        return evaluate(config, self.workspace, Progress(quiet=True))

    def choose(self, **options: Any) -> list[Outcome]:
        values = {"what": ("fake",), "suite": "fake", "max_sequence_length": 12, "remedy": (AUTO,)} | options
        config = EvaluationConfig(**values)
        return [self.run(each) for each in with_scales(config, self.run, self.said.append)]


@pytest.fixture
def bench(world: fakes.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(remedy_scale, "SCALES", {**SCALES, "epsilon_scaling": (1.0, 0.8, 1.25)})
    with fakes.registered(world.backbone):
        known = registry.BUILT_IN["suites"] | {"fake_validation": f"{__name__}:validation"}
        monkeypatch.setitem(registry.BUILT_IN, "suites", known)
        registry.table.cache_clear()
        yield Bench(tmp_path)


def brightness(folder: Path) -> float:
    (path,) = folder.rglob("samples.jsonl")
    scores = [line["scores"]["brightness"]["score"] for line in records.read_lines(path)]
    return float(sum(scores) / len(scores))


def test_the_best_scale_on_validation_prompts_is_drawn_once_on_the_others(bench: Bench) -> None:
    (outcome,) = bench.choose()
    tried, drawn = bench.done
    assert (tried.suite, tried.remedy) == (
        "fake_validation",
        tuple(f"epsilon_scaling={s}" for s in ("1", "0.8", "1.25")),
    )
    trials = bench.workspace.runs / "evaluate-fake-remedies"
    rows = {scale: brightness(trials / f"evaluated--fake--epsilon_scaling-{scale}") for scale in ("1", "0.8", "1.25")}
    best = max(rows, key=lambda scale: rows[scale])  # the fake suite has one column, of which more is better
    assert len(set(rows.values())) == 3 and drawn.remedy == (f"epsilon_scaling={best}",)
    (row,) = outcome.folder.glob("evaluated--*")
    chosen = records.read_json(row / "job.json")["evaluated"]["chosen"]
    assert (chosen["suite"], chosen["version"]) == ("fake_validation", 1)
    gains = {f"{each['scale']:g}": each["gain"] for each in chosen["tried"]}
    assert set(gains) == set(rows) and gains["1"] == 0 and max(gains, key=lambda scale: gains[scale]) == best
    assert bench.said == [f"fake: epsilon_scaling={best} is the best on fake_validation"]
    assert [config.remedy for config in bench.done[2:]] == []


def test_a_report_shows_what_was_tried(bench: Bench) -> None:
    (outcome,) = bench.choose()
    study = read_study([outcome.folder])
    (line,) = (line for line in notes(study, main_sections(study)) if "the scale was chosen" in line)
    assert "on fake_validation v1 by the mean over the ranked columns" in line and "(1: +0.000, 0.8: " in line


def test_of_equal_scales_the_nearest_to_none_is_taken_and_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remedy_scale, "gain", lambda base, columns, cells: 0.0)
    bench.choose()
    assert bench.done[-1].remedy == ("epsilon_scaling=1",)
    said = "3 scales of epsilon_scaling are equally good on fake_validation; epsilon_scaling=1 is taken"
    assert bench.said == [f"fake: {said}"]


def test_a_scale_that_is_named_is_drawn_as_it_is_beside_one_that_is_chosen(bench: Bench) -> None:
    bench.choose(remedy=("differential_correction=0.1", AUTO))
    assert bench.done[0].remedy == ("differential_correction=0.1",) and bench.done[0].suite == "fake"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"suite": "smoke"},
            "the suite smoke has no validation suite (smoke_validation), so no scale of a remedy can be ",
        ),
        ({"passes": "generate"}, "a scale is chosen by scores, so auto needs both passes; leave --pass out"),
        ({"steps": (2,)}, "auto chooses a scale for the suite's own sampler; leave --steps out, or name a scale"),
        (
            {"guidance": (2.0,)},
            "auto chooses a scale for the suite's own sampler; leave --guidance out, or name a scale",
        ),
    ],
)
def test_what_no_scale_can_be_chosen_for_ends_in_one_line(bench: Bench, options: dict[str, Any], line: str) -> None:
    with pytest.raises(BenchError) as caught:
        bench.choose(**options)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value) and not bench.done


def reported() -> Suite:
    """A validation suite of the prompts that are reported."""
    return replace(fakes.suite(), name="fake_validation")


def test_validation_prompts_that_are_reported_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    known = registry.BUILT_IN["suites"] | {"fake_validation": f"{__name__}:reported"}
    monkeypatch.setitem(registry.BUILT_IN, "suites", known)
    registry.table.cache_clear()
    with pytest.raises(BenchError, match="fake_validation shares prompts with fake, which the experiment reports: "):
        bench.choose()


def test_the_command_refuses_a_suite_without_validation_in_one_line(bench: Bench) -> None:
    flags = ["--suite", "smoke", "--remedy", AUTO, "--runs", str(bench.workspace.runs)]
    done = CliRunner().invoke(main, ["evaluate", "fake", *flags])
    (line,) = done.output.splitlines()
    assert done.exit_code == 1 and line.startswith("bench: the suite smoke has no validation suite")


def test_a_model_that_cannot_be_drawn_has_no_scale(bench: Bench) -> None:
    assert bench.choose(what=("no/such-model",), offline=True) == [] and bench.said == []


def test_every_list_begins_with_doing_nothing_and_goes_away_from_it() -> None:
    for scales in SCALES.values():
        distances = [abs(scale - scales[0]) for scale in scales]
        assert distances == sorted(distances) and distances.count(0) == 1


def test_a_scale_that_was_chosen_and_one_that_was_named_are_one_row(bench: Bench) -> None:
    """The second command called the first one's pictures those of something else."""
    (chosen,) = bench.choose()
    scale = bench.done[-1].remedy[0]
    (folder,) = chosen.folder.glob("evaluated--*")
    record = (folder / "job.json").read_text()
    (named,) = bench.choose(remedy=(scale,))
    assert not named.failed and (folder / "job.json").read_text() == record


def test_a_scale_that_was_named_first_is_on_the_record_as_chosen_later(bench: Bench) -> None:
    (chosen,) = bench.choose()
    (path,) = chosen.folder.glob("evaluated--*/job.json")
    record = records.read_json(path)
    drawn = {picture: picture.stat().st_mtime_ns for picture in path.parent.rglob("*.png")}
    named = record | {"evaluated": {key: value for key, value in record["evaluated"].items() if key != "chosen"}}
    records.write_json(path, named)  # as where the scale was named
    (again,) = bench.choose()
    assert not again.failed and records.read_json(path) == record
    assert drawn and drawn == {picture: picture.stat().st_mtime_ns for picture in drawn}
