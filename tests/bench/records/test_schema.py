"""Records are written as they were before there was a schema, and read back as what was written.

``examples/`` holds the records of a small run, as they were written before writers built the models that readers check.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fakes
import numpy as np
import pytest
import torch
from pydantic import BaseModel

import bench
from bench import records
from bench.errors import BenchError
from bench.evaluation import draw_suite, score_suite
from bench.evaluation.collecting import collect_suite
from bench.experiment import recorded
from bench.experiment.config import ExperimentConfig
from bench.experiment.data import SubsetData
from bench.experiment.keys import JobKey, JobSpec
from bench.experiment.recipe import Recipe, Stage
from bench.experiment.toml import validated
from bench.experiment.tuned import Tuned
from bench.experiment.workbench import Workbench
from bench.machine.engine import Engine
from bench.method import AdamWConfig, Needs, PostTrainingMethod, Traits
from bench.records.archive import unpacked
from bench.records.reading import check_job, check_run, experiment_of
from bench.records.schema import (
    ClockLine,
    EvaluationRecord,
    ExperimentRecord,
    JobRecord,
    MeterLine,
    MetricRecord,
    SampleLine,
    StatusRecord,
    TrainLine,
)
from bench.records.status import write_status
from bench.suite import Prompt
from bench.training.meter import Meter

EXAMPLES = Path(__file__).parent / "examples"
BENCH = Path(bench.__file__).parent
ARCHIVE = Path(__file__).parents[3] / "reports" / "reference" / "high_aesthetic" / "records.tar.xz"
KINDS: dict[str, type[BaseModel]] = {
    "experiment.json": ExperimentRecord,
    "job.json": JobRecord,
    "status.json": StatusRecord,
    "evaluation.json": EvaluationRecord,
    "samples.jsonl": SampleLine,
    "train.jsonl": TrainLine,
    "meter.jsonl": MeterLine,
    "clock.jsonl": ClockLine,
}
SPENT = Meter(
    flops=7_000_000_000_000,
    steps=3,
    updates=3,
    forwards=24,
    reference_forwards=8,
    backwards=16,
    images=4,
    reward_calls=4,
    pairs=12,
    seconds=12.34567,
    peak_memory=123456,
)
CONTEXT_ROW = {
    "id": "owner/flux",
    "family": "FLUX",
    "revision": None,
    "fingerprint": "ff",
    "steps": 28,
    "guidance_scale": 3.5,
    "max_sequence_length": 256,
    "resolution": 1024,
    "dtype": "bfloat16",
}
SWEPT_ROW = {
    "kind": "lora",
    "source": "runs/demo/sft",
    "sweep": {"name": "sft", "run": "demo", "method": "sft", "subset": "all", "seed": 0, "reward": None},
    "identity": "1d",
    "backbone": "fake",
    "backbone_hash": "0123abcd",
    "max_sequence_length": 12,
    "dtype": "float32",
    "sampler": {"steps": 2, "guidance_scale": 4.5, "resolution": 16},
}


class BatchConfig(AdamWConfig):
    batch_size: int = 8


class Plain(PostTrainingMethod):
    Config, needs, traits = BatchConfig, Needs(pairs=True), Traits(*"abcdefgh")


class Rewarded(PostTrainingMethod):
    Config, needs, traits = BatchConfig, Needs(prompts=True, reward=True, preference_pairs=True), Traits(*"abcdefgi")


class Blank:
    """A painter whose model draws no number."""

    def draw(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[np.ndarray | None]:
        return [None for _ in prompts]


def subset_data(pairs: dict[str, Any] | None) -> SubsetData:
    """Six pairs, with preferences that are recorded as ``pairs``."""
    preferences = SimpleNamespace(record=pairs) if pairs else None
    manifest = SimpleNamespace(content_hash="ab" * 8, count=6)
    return cast(SubsetData, SimpleNamespace(manifest=manifest, training=SimpleNamespace(preferences=preferences)))


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> ExperimentConfig:
    monkeypatch.setattr(recorded, "versions", lambda: {"python": "3.11.9", "torch": "2.13.0"})
    monkeypatch.setattr(recorded, "git_state", lambda: {"commit": "c0ffee", "dirty": None})
    values = {
        "name": "demo",
        "methods": ("sft", "flow_grpo+late"),
        "subsets": ("all",),
        "seeds": (0, -1),
        "corpus": "pictures/wörld",
        "budget": "flops=7e12",
        "evaluations": 3,
        "variant": {"late": {"method": "sft", "lr": 1e-4}},
        "pipeline": {"flow_grpo+late": {"split": (0.3, 0.7)}},
    }
    tuned = Tuned(
        trials=6,
        suite="validation",
        objective="geneval",
        seed=0,
        budget="steps=5",
        backbone="fake",
        corpus="world",
        subsets=("all",),
        sha256="77" * 8,
        method={"sft": {"batch_size": 16}},
    )
    made: ExperimentConfig = validated(ExperimentConfig, values, "experiment: ")
    return made.model_copy(update={"tuned": tuned})


def recipes() -> dict[str, Recipe]:
    package, file = {"package": "others", "version": None}, {"file": "mine.py", "sha256": "66"}
    first = Stage("flow_grpo", Rewarded, BatchConfig(lr=1e-5), package, 0.3)
    return {
        "sft": Recipe((Stage("sft", Plain, BatchConfig(lr=3e-4), "built-in"),)),
        "flow_grpo+late": Recipe((first, Stage("late", Plain, BatchConfig(lr=1e-4), file, 1.0))),
    }


def write_run(config: ExperimentConfig, run: Path) -> None:
    suite, metrics, engine = fakes.suite(), {"brightness": fakes.Brightness()}, Engine()
    backbone: Any = SimpleNamespace(
        spec=SimpleNamespace(name="fake", resolution=16, max_sequence_length=12),
        engine=SimpleNamespace(dtype=torch.bfloat16),
        fingerprint="0123abcd",
        folder=run,
    )
    jobs = [f"{method}--all--s{seed}" for seed in config.seeds for method in config.methods]
    workbench = cast(Workbench, SimpleNamespace(config=config, suite=suite, backbone=backbone, metrics=metrics))
    experiment = recorded.experiment_record(workbench, jobs)
    records.write_record(run / "experiment.json", experiment)
    pairs = {"corpus": "liked", "pairs": 5, "hash": "aa", "preferred_hash": "bb"}
    for method, recipe in recipes().items():
        reward = "brightness" if recipe.needs.reward else None
        job = recorded.job_record(config, JobSpec(JobKey(method, "all", 0), recipe, reward), subset_data(pairs))
        records.write_record(run / job.job / "job.json", job)
    trained = run / "sft--all--s0"
    write_status(trained, "failed", "a reason — of several words")
    for step in (1, 2):
        for line in recorded.step_lines(step, {"loss": 0.25 / step, "reward": 3.0}, SPENT):
            name = {TrainLine: "train", MeterLine: "meter", ClockLine: "clock"}[type(line)]
            records.Log(trained / f"{name}.jsonl").append(records.document(line))
    header = EvaluationRecord(
        v=records.VERSION,
        step=2,
        fraction=0.333333,
        spent=SPENT.counts(),
        configuration=records.configuration(records.read_json(trained / "job.json")),
        weights="dd",
    )
    draw_suite(suite, Blank(), trained / "evaluations/2", header=header, engine=engine, batch=8)
    score_suite(suite, metrics, trained / "evaluations/2", engine=engine)

    base = recorded.untrained_record(job="base", method="base")
    records.write_record(run / "base/job.json", base)
    write_status(run / "base", "finished")
    header = recorded.untrained_header("ee")
    draw_suite(suite, Blank(), run / "base/evaluations/0", header=header, engine=engine, batch=8)
    given = run / "evaluated--given"
    header = recorded.untrained_header()
    taken = collect_suite(suite, EXAMPLES / "given", given / "evaluations/0", header=header)
    score_suite(suite, metrics, given / "evaluations/0", engine=engine)
    rows = (
        ("context--owner-flux", "context", {"label": "flux", "context": CONTEXT_ROW}),
        ("evaluated--sft--cfg4.5", "evaluated", {"label": "sft, CFG 4.5", "evaluated": SWEPT_ROW}),
        (given.name, "evaluated", {"label": "given", "evaluated": {"kind": "images", "source": "given"} | taken}),
    )
    for name, method, about in rows:
        row = recorded.untrained_record(job=name, method=method, **about)
        records.write_record(run / name / "job.json", row)


def records_of(run: Path) -> Iterator[Path]:
    return (path for path in sorted(run.rglob("*.json*")) if path.name in KINDS)


def rewritten(path: Path, target: Path) -> bytes:
    """A file of records, read by its model and written from it."""
    kind = KINDS[path.name]
    if path.suffix == ".json":
        records.write_record(target, records.read_record(kind, path))
        return target.read_bytes()
    lines = [records.document(records.parsed(kind, row, path)) for row in records.read_lines(path)]
    if path.name == "samples.jsonl" and records.CHECK in records.loads(path.read_bytes().splitlines()[0]):
        records.write_lines(target, lines)
        return target.read_bytes()
    return "".join(records.dumps(line) + "\n" for line in lines).encode()


def test_writers_write_what_they_wrote_before(config: ExperimentConfig, tmp_path: Path) -> None:
    write_run(config, tmp_path / "demo")
    written = {path.relative_to(tmp_path / "demo"): path.read_bytes() for path in records_of(tmp_path / "demo")}
    assert written == {path.relative_to(EXAMPLES): path.read_bytes() for path in records_of(EXAMPLES)}
    assert {path.name for path in written} == KINDS.keys()
    check_run(tmp_path / "demo")


@pytest.mark.parametrize("path", records_of(EXAMPLES), ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_a_record_that_is_read_is_written_with_the_same_bytes(path: Path, tmp_path: Path) -> None:
    assert rewritten(path, tmp_path / path.name) == path.read_bytes()


def test_records_of_a_release_are_written_again_with_the_same_bytes(tmp_path: Path) -> None:
    with unpacked([ARCHIVE]) as (run,):
        found = list(records_of(run))
        assert {path.name for path in found} == KINDS.keys()
        assert [path for path in found if rewritten(path, tmp_path / path.name) != path.read_bytes()] == []


def test_whole_numbers_stay_whole_and_unset_keys_stay_away() -> None:
    header = EvaluationRecord(v=records.VERSION, step=3, fraction=1.0, spent={"flops": 10**15, "share": 2.0})
    assert records.dumps(records.document(header)) == (
        '{"fraction": 1.0, "spent": {"flops": 1000000000000000, "share": 2.0}, "step": 3, "v": 1}'
    )


def test_a_column_keeps_what_else_a_metric_says_and_is_compared_without_it() -> None:
    class Tinted(fakes.Brightness):
        name, label = "tinted", "Tinted"

        def describe(self) -> dict[str, Any]:
            return super().describe() | {"tint": "red"}

    (prompts,) = fakes.suite().prompt_sets
    column = prompts.column(Tinted())
    document = records.document(column)
    assert document["tint"] == "red" and document["images"] == 4
    plain = MetricRecord.model_validate({key: value for key, value in document.items() if key != "tint"})
    assert column == plain and column != plain.as_added() and column.same(plain.as_added())


def test_a_metric_that_no_record_can_hold_ends_in_one_line() -> None:
    class Wide(fakes.Brightness):
        name, label, digits = "wide", "Wide", 1000

    (prompts,) = fakes.suite().prompt_sets
    with pytest.raises(BenchError, match=r"the metric wide cannot be recorded \(format: .*no number format"):
        prompts.column(Wide())


def test_a_metric_of_two_prompt_sets_ends_in_one_line() -> None:
    (some,) = fakes.suite().prompt_sets
    suite = replace(fakes.suite(), prompt_sets=(some, replace(some, name="others")))
    with pytest.raises(BenchError, match=r"the suite fake cannot be recorded \(metrics: .*a metric is there twice"):
        suite.describe({"brightness": fakes.Brightness()})


def test_a_method_with_a_trait_that_is_no_text_ends_in_one_line(config: ExperimentConfig) -> None:
    class Untold(Plain):
        traits = replace(Plain.traits, paper=cast(str, None))

    recipe = Recipe((Stage("sft", Untold, BatchConfig(lr=1e-4), "built-in"),))
    with pytest.raises(BenchError, match=r"the job sft--all--s0 cannot be recorded \(traits\.paper: "):
        recorded.job_record(config, JobSpec(JobKey("sft", "all", 0), recipe, None), subset_data(None))


def damaged(run: Path, name: str, change: Callable[[str], str]) -> Path:
    for path in records_of(EXAMPLES):
        records.write_bytes(run / path.relative_to(EXAMPLES), path.read_bytes())
    (run / name).write_text(change((run / name).read_text()))
    return run


READ = [path for path in records_of(EXAMPLES) if path.name != "train.jsonl"]  # nobody reads what a method logs


@pytest.mark.parametrize("path", [str(path.relative_to(EXAMPLES)) for path in READ])
def test_every_record_is_checked_by_its_version(path: str, tmp_path: Path) -> None:
    if path.endswith("samples.jsonl"):
        run = damaged(tmp_path / "run", path, lambda text: '{"v": 2}\n')
    else:
        run = damaged(tmp_path / "run", path, lambda text: text.replace('"v": 1', '"v": 2'))
    with pytest.raises(BenchError, match=Path(path).name):
        check_run(run)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"v": 1, "step": 1}', "meter.jsonl:1 lacks one of step, flops"),
        ('{"v": 1, "step": 1, "flops": "7"}', "meter.jsonl:1 lacks one of step, flops"),
        ('{"v": 1, "step": true, "flops": 7}', "meter.jsonl:1 lacks one of step, flops"),
        ("[]", "meter.jsonl:1 lacks one of step, flops"),
    ],
)
def test_a_line_of_a_log_holds_numbers(line: str, problem: str, tmp_path: Path) -> None:
    run = damaged(tmp_path / "run", "sft--all--s0/meter.jsonl", lambda text: line + "\n")
    with pytest.raises(BenchError, match=problem):
        check_job(run / "sft--all--s0")


def imported_by(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            yield from (module + alias.name for alias in node.names)


def test_no_module_of_the_core_imports_the_report() -> None:
    above = ("report", "export", "tune", "cli", "plan")
    core = [path for path in BENCH.rglob("*.py") if path.relative_to(BENCH).parts[0] not in above]
    assert "bench.records.schema.SampleLine" in imported_by(BENCH / "evaluation" / "drawing.py")
    found = [(str(path), name) for path in core for name in imported_by(path) if name.startswith("bench.report")]
    assert found == []


def test_a_folder_that_is_no_job_of_its_run_is_refused(tmp_path: Path) -> None:
    run = damaged(tmp_path / "run", "base/status.json", str)
    assert experiment_of(run / "sft--all--s0").name == "demo"
    with pytest.raises(BenchError, match="unknown job 'sft--all--s7'"):
        experiment_of(run / "sft--all--s7")
