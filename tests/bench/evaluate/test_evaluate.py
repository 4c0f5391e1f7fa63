"""``bench evaluate`` and ``bench score``: what can be evaluated, passes that go on, cells that fail alone."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fakes import Brightness
from filelock import FileLock
from PIL import Image
from trained import adapted, transformer

from bench import records, registry
from bench.backbone import hub
from bench.backbone.policy import Policy
from bench.backbone.source import Source
from bench.backbone.weights import LORA, save_weights
from bench.cli import main
from bench.errors import BenchError, Missing
from bench.evaluate.columns import recorded_suite
from bench.evaluate.config import EvaluationConfig
from bench.evaluate.rescore import score_run
from bench.evaluate.rows import evaluate
from bench.evaluate.subjects import expand, find_subject
from bench.evaluation import Conditions, PolicyPainter, draw_suite, drawing, score_suite, scoring
from bench.experiment.recorded import untrained_header
from bench.experiment.run import Workspace
from bench.export.folder import write_adapter
from bench.machine import locks
from bench.machine.engine import Engine
from bench.machine.progress import Progress
from bench.metric import Metric
from bench.report.study import read_study
from bench.suite import Prompt, PromptSet

Run = Callable[..., tuple[Path, dict[str, str]]]


class Spread(Metric):
    """Deviation of the brightness of a prompt's pictures."""

    name, label, version, per_prompt = "spread", "Spread", 1, True

    def score(self, images, prompts):
        assert len({prompt.id for prompt in prompts}) == 1 and len(images) == 2
        return [float(np.std([image.mean() for image in images]))] * len(images)


class Absent(Metric):
    """Needs what is not here."""

    name, label, version = "absent", "Absent", 1

    def prepare(self):
        raise Missing("asset judge is missing; run `bench assets fetch judge`", "judge")

    def score(self, images, prompts):
        raise AssertionError("not loaded")


class Broken(Absent):
    """Breaks when it is loaded."""

    name, label = "broken", "Broken"

    def prepare(self):
        raise RuntimeError("no such symbol")


def rich_suite():
    """The fake suite with a metric of each kind of trouble."""
    suite = fakes.suite()
    prompts = PromptSet("some", suite.prompt_sets[0].prompts, 2, ("brightness", "spread", "absent", "broken"))
    return replace(suite, name="rich", prompt_sets=(prompts,))


@pytest.fixture
def known(world: fakes.World) -> Iterator[None]:
    """The registry with the fakes and this file's metrics."""
    here = Path(__file__).stem
    with fakes.registered(world.backbone), pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, here, sys.modules[__name__])
        for kind, entries in {
            "metrics": {name.lower(): f"{here}:{name}" for name in ("Spread", "Absent", "Broken")},
            "suites": {"rich": f"{here}:rich_suite"},
        }.items():
            patch.setitem(registry.BUILT_IN, kind, registry.BUILT_IN[kind] | entries)
        registry.table.cache_clear()
        yield


@pytest.fixture
def run(known: None, tmp_path: Path, tiny_pipeline: Path) -> Run:
    """Evaluates into a workspace of this test's own; returns the run folder and what failed."""

    def evaluated(*what: str | Path, **options: Any) -> tuple[Path, dict[str, str]]:
        config = EvaluationConfig(what=tuple(map(str, what)), **{"suite": "fake", "max_sequence_length": 12} | options)
        outcome = evaluate(config, Workspace(tmp_path / "cache", tmp_path / "runs"), Progress(quiet=True))
        return outcome.folder, outcome.failed

    return evaluated


def rows_of(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("**/evaluations/0/samples.jsonl")
    return list(records.read_lines(path))


def row(run: Path, part: str) -> Path:
    (found,) = run.glob(f"evaluated--*{part}*")
    return found


# -- what can be evaluated -------------------------------------------------------------------------------------------


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "evaluations/0/images").iterdir())}


def drawn_by(model: Any, world: fakes.World, folder: Path) -> dict[str, bytes]:
    """The fake suite's images by a transformer, drawn here."""
    policy = Policy(model, world.backbone.scheduler(), world.null)
    painter = PolicyPainter(
        policy, world.backbone, fakes.suite().sampler, Conditions(world.backbone, fakes.suite().texts())
    )
    draw_suite(fakes.suite(), painter, folder / "evaluations/0", header=untrained_header(), engine=Engine(), batch=48)
    return pictures(folder)


def test_a_pipeline_a_fine_tune_and_both_forms_of_a_lora(
    run: Run, world: fakes.World, tiny_pipeline: Path, tmp_path: Path
) -> None:
    transformer(tiny_pipeline, 0.2).save_pretrained(tmp_path / "tuned" / "transformer")
    save_weights(adapted(tiny_pipeline), tmp_path / "lora")
    (tmp_path / "peft").mkdir()
    write_adapter(tmp_path / "lora" / LORA, Source(str(tiny_pipeline)), tmp_path / "peft")
    (tmp_path / "peft" / LORA).unlink()
    subjects = [tiny_pipeline, tmp_path / "tuned", tmp_path / "lora", tmp_path / "peft"]
    folder, failed = run(*subjects, backbone=str(tiny_pipeline))
    assert failed == {}
    base = drawn_by(world.backbone.transformer(), world, tmp_path / "a")
    assert pictures(row(folder, "tiny")) == base
    tuned = drawn_by(transformer(tiny_pipeline, 0.2), world, tmp_path / "b")
    assert pictures(row(folder, "tuned")) == tuned != base
    lora = drawn_by(adapted(tiny_pipeline), world, tmp_path / "c")
    assert pictures(row(folder, "lora")) == lora != base
    assert pictures(row(folder, "peft")) == lora
    about = records.read_json(row(folder, "lora") / "job.json")["evaluated"]
    assert about["kind"] == "lora"
    assert about["sampler"] == {"steps": 2, "guidance_scale": 2.0, "resolution": 16, "levels": "diffusers-0.42"}
    assert len(about["identity"]) == len(about["backbone_hash"]) == 64
    assert records.read_json(folder / "experiment.json")["suite"]["seed"] == 7


def test_a_job_of_a_run_is_evaluated_on_the_backbone_it_was_trained_from(
    run: Run, world: fakes.World, tiny_pipeline: Path, tmp_path: Path
) -> None:
    from fake_run import FakeRun

    fake = FakeRun(tmp_path / "demo")
    fake.experiment["backbone_hash"] = hub.fingerprint(tiny_pipeline)
    fake.base()
    fake.job("full", 0.1)
    fake.write("config.json", {"backbone": str(tiny_pipeline), "revision": None})
    job = fake.folder / "full--pretty--s0"
    transformer(tiny_pipeline, 0.2).save_pretrained(job / "weights" / "transformer")
    folder, failed = run(job, fake.folder / "base", suite="fake")
    assert failed == {}
    assert pictures(row(folder, "full")) == drawn_by(transformer(tiny_pipeline, 0.2), world, tmp_path / "b")
    assert pictures(row(folder, "base")) == drawn_by(world.backbone.transformer(), world, tmp_path / "a")


def test_a_job_is_not_drawn_on_another_backbone(run: Run, tiny_pipeline: Path, tmp_path: Path) -> None:
    """The folder that was trained from holds another model now, or --backbone names another one."""
    mine = Path(shutil.copytree(tiny_pipeline, tmp_path / "sd3"))
    trained = trained_run(tmp_path / "demo", mine)
    transformer(tiny_pipeline, 0.3).save_pretrained(mine / "transformer")
    job, base = trained / "full--pretty--s0", trained / "base"
    _, failed = run(job, base)
    for line in failed.values():
        assert re.fullmatch(r".*/sd3 is not the backbone that was trained \(its files' hash is not \w{12}…\); .*", line)
    assert list(failed) == [str(job), str(base)]
    _, failed = run(job, backbone=str(tiny_pipeline))
    assert failed == {}
    _, failed = run(job, backbone=str(mine), name="other")
    assert "is not the backbone that was trained" in failed[str(job)]


def test_images_of_ones_own_are_scored_and_what_is_not_there_is_said(run: Run, tmp_path: Path) -> None:
    folder, _ = run("fake")
    mine = tmp_path / "mine"
    shutil.copytree(row(folder, "fake") / "evaluations/0/images", mine)
    (mine / "some-1-1.png").unlink()
    (mine / "some-1-0.png").write_bytes(b"no picture")
    Image.new("RGB", (16, 16), (9, 9, 9)).save(mine / "some-0-1.png")
    other, failed = run(mine, name="mine")
    assert failed == {}
    cells = [r["scores"]["brightness"] for r in rows_of(other)]
    assert cells[0] == rows_of(folder)[0]["scores"]["brightness"]
    assert [cell.get("error", "") for cell in cells[1:]] == [
        "every pixel of the picture is the same",
        cells[2]["error"],
        "the image some-1-1 is not there",
    ]
    assert cells[2]["error"].startswith("the image some-1-0.png cannot be read: ")
    assert records.read_json(row(other, "mine") / "job.json")["evaluated"]["sizes"] == {"16x16": 2}


def test_images_in_genevals_layout(run: Run, tmp_path: Path) -> None:
    folder, _ = run("fake")
    for number, (prompt, repeat) in enumerate([("0", 0), ("0", 1), ("1", 0), ("1", 1)]):
        target = tmp_path / "theirs" / prompt / "samples" / f"{repeat:04d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(row(folder, "fake") / "evaluations/0" / rows_of(folder)[number]["image"], target)
    other, _ = run(tmp_path / "theirs", name="theirs")
    assert [r["scores"] for r in rows_of(other)] == [r["scores"] for r in rows_of(folder)]


# -- noise and passes ------------------------------------------------------------------------------------------------


def test_the_batch_changes_no_noise(run: Run) -> None:
    one, _ = run("fake", name="one", evaluation_batch=1)
    three, _ = run("fake", name="three", evaluation_batch=3)
    assert [r["seed"] for r in rows_of(one)] == [r["seed"] for r in rows_of(three)]
    for a, b in zip(rows_of(one), rows_of(three), strict=True):
        left, right = (
            np.asarray(Image.open(row(run_, "fake") / "evaluations/0" / r["image"]), int)
            for run_, r in ((one, a), (three, b))
        )
        assert np.abs(left - right).max() <= 1
    assert len({r["seed"] for r in rows_of(one)}) == 4


def test_generating_and_scoring_apart_leave_what_both_leave_together(run: Run) -> None:
    together, _ = run("fake", name="together")
    apart, _ = run("fake", name="apart", passes="generate")
    assert all(r["scores"] == {} for r in rows_of(apart))
    run("fake", name="apart", passes="score")
    assert rows_of(apart) == rows_of(together)
    assert pictures(row(apart, "fake")) == pictures(row(together, "fake"))


def test_each_pass_goes_on_where_it_was_stopped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run("fake", name="whole", evaluation_batch=1)
    drawn, kept = [], PolicyPainter.draw

    def draw(self, prompts, seeds):
        drawn.append(seeds)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return kept(self, prompts, seeds)

    monkeypatch.setattr(PolicyPainter, "draw", draw)
    monkeypatch.setattr(scoring, "BATCH", 1)
    monkeypatch.setattr(scoring, "UNITS", 1)
    with pytest.raises(KeyboardInterrupt):
        run("fake", name="stopped", evaluation_batch=1)
    scored, judge = [], Brightness.score

    def score(self, images, prompts):
        scored.append(images)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return judge(self, images, prompts)

    monkeypatch.setattr(Brightness, "score", score)
    with pytest.raises(KeyboardInterrupt):
        run("fake", name="stopped", evaluation_batch=1)
    assert len(drawn) == 5  # two were kept: only the third and the fourth are drawn now
    folder, _ = run("fake", name="stopped", evaluation_batch=1)
    assert len(scored) == 5
    assert rows_of(folder) == rows_of(whole) and pictures(row(folder, "fake")) == pictures(row(whole, "fake"))


@pytest.mark.parametrize("damage", [b"", b"no picture", None], ids=["empty", "other", "folder"])
def test_a_damaged_image_that_a_stopped_pass_left_is_drawn_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    whole, _ = run("fake", name="whole", evaluation_batch=1)
    drawn, ours = [], PolicyPainter.draw

    def draw(self, prompts, seeds):
        drawn.append(seeds)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return ours(self, prompts, seeds)

    monkeypatch.setattr(PolicyPainter, "draw", draw)
    with pytest.raises(KeyboardInterrupt):
        run("fake", name="stopped", evaluation_batch=1)
    (path,) = (whole.with_name("stopped")).glob("**/some-0-0.png")
    path.unlink()
    path.mkdir() if damage is None else path.write_bytes(damage)
    folder, failed = run("fake", name="stopped", evaluation_batch=1)
    assert failed == {}
    assert len(drawn) == 3 + 3  # the damaged one, and the two that were not there; the second image was kept
    assert rows_of(folder) == rows_of(whole) and pictures(row(folder, "fake")) == pictures(row(whole, "fake"))


def test_images_of_other_weights_are_not_taken_over(world: fakes.World, tmp_path: Path, tiny_pipeline: Path) -> None:
    """What a killed pass left behind is only kept under the same header."""
    conditions = Conditions(world.backbone, fakes.suite().texts())

    def draw(model: Any, folder: Path, weights: str, stop: bool = False) -> None:
        policy = Policy(model, world.backbone.scheduler(), world.null)
        painter: Any = PolicyPainter(policy, world.backbone, fakes.suite().sampler, conditions)
        if stop:
            ours, calls = painter.draw, []
            painter.draw = lambda *a: ours(*a) if not calls.append(a) and len(calls) < 2 else 1 / 0
        draw_suite(fakes.suite(), painter, folder, header=untrained_header(weights), engine=Engine(), batch=2)

    with pytest.raises(ZeroDivisionError):
        draw(world.backbone.transformer(), tmp_path / "a", "one", stop=True)
    draw(transformer(tiny_pipeline, 0.2), tmp_path / "a", "two")
    draw(transformer(tiny_pipeline, 0.2), tmp_path / "b", "two")
    for path in (tmp_path / "b" / "images").iterdir():
        assert (tmp_path / "a" / "images" / path.name).read_bytes() == path.read_bytes()


# -- sweeps over guidance --------------------------------------------------------------------------------------------


def swept(folder: Path, scale: str) -> Path:
    return row(folder, f"--cfg{scale}")


def test_a_sweep_draws_each_scale_from_the_same_noise(run: Run, world: fakes.World, tmp_path: Path) -> None:
    folder, failed = run("fake", guidance=(1, 2, 3.5))
    assert failed == {} and folder.name == "guidance-fake"
    plain, _ = run("fake")
    assert pictures(swept(folder, "2")) == pictures(row(plain, "fake"))  # 2 is the suite's own scale
    conditions = Conditions(world.backbone, fakes.suite().texts())
    for name, scale in (("1", 1.0), ("3.5", 3.5)):
        sampler = replace(fakes.suite().sampler, guidance_scale=scale)
        policy = Policy(world.backbone.transformer(), world.backbone.scheduler(), world.null)
        painter = PolicyPainter(policy, world.backbone, sampler, conditions)
        target = tmp_path / name / "evaluations/0"
        draw_suite(fakes.suite(), painter, target, header=untrained_header(), engine=Engine(), batch=48)
        assert pictures(swept(folder, name)) == pictures(tmp_path / name)
        evaluated = records.read_json(swept(folder, name) / "job.json")["evaluated"]
        assert evaluated["sampler"] == records.document(sampler.record())
        assert evaluated["sweep"] == {"name": "fake"}
    seeds = [[r["seed"] for r in records.read_lines(path)] for path in folder.glob("*/evaluations/0/samples.jsonl")]
    assert len(seeds) == 3 and seeds[0] == seeds[1] == seeds[2]
    assert len({file for files in map(pictures, folder.glob("evaluated--*")) for file in files.values()}) == 12
    suite = records.read_json(folder / "experiment.json")["suite"]
    assert suite == records.read_json(plain / "experiment.json")["suite"]


def test_without_guidance_one_branch_is_computed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    ours = Policy.velocity

    def velocity(self, latents, sigma, text):
        sizes.append(len(latents))
        return ours(self, latents, sigma, text)

    monkeypatch.setattr(Policy, "velocity", velocity)
    run("fake", guidance=(1,))
    assert set(sizes) == {4}
    run("fake", guidance=(2,), name="two")
    assert set(sizes) == {4, 8}


def test_a_sweep_goes_on_and_takes_further_scales(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, ours = [], PolicyPainter.draw

    def draw(self, prompts, seeds):
        drawn.append(self.sampler.guidance_scale)
        if drawn == [1.0, 3.0]:
            raise KeyboardInterrupt
        return ours(self, prompts, seeds)

    monkeypatch.setattr(PolicyPainter, "draw", draw)
    with pytest.raises(KeyboardInterrupt):
        run("fake", guidance=(1, 3))
    folder, _ = run("fake", guidance=(1, 3))
    assert drawn == [1.0, 3.0, 3.0]
    run("fake", guidance=(1, 3, 5))
    assert drawn == [1.0, 3.0, 3.0, 5.0]
    for scale in "135":
        assert records.read_json(swept(folder, scale) / "status.json")["status"] == "finished"


def trained_run(folder: Path, tiny_pipeline: Path) -> Path:
    """A run with a base and two seeds of a method that trained."""
    from fake_run import FakeRun

    fake = FakeRun(folder)
    fake.experiment["backbone_hash"] = hub.fingerprint(tiny_pipeline)
    fake.base()
    fake.write("config.json", {"backbone": str(tiny_pipeline), "revision": None})
    for seed in (0, 1):
        job = fake.folder / fake.job("full", 0.1, seed=seed, reward="style")
        transformer(tiny_pipeline, 0.1 * (seed + 1)).save_pretrained(job / "weights" / "transformer")
    return fake.folder


def test_a_run_stands_for_its_base_and_its_jobs(run: Run, tiny_pipeline: Path, tmp_path: Path) -> None:
    trained = trained_run(tmp_path / "demo", tiny_pipeline)
    (trained / "context--other").mkdir()
    (trained / "context--other" / "job.json").write_text("{}")
    (trained / "tensorboard").mkdir()
    folder, failed = run(trained, guidance=(1,), name="whole")
    listed, unlisted = run(*sorted(trained.iterdir()), guidance=(1,), name="star")
    assert failed == unlisted == {}
    names = [path.name for path in sorted(folder.glob("evaluated--*"))]
    assert sorted(name.split("-demo-")[1] for name in names) == [
        "base--cfg1",
        "full--pretty--s0--cfg1",
        "full--pretty--s1--cfg1",
    ]
    assert names == [path.name for path in sorted(listed.glob("evaluated--*"))]
    about = records.read_json(row(folder, "s1--cfg1") / "job.json")["evaluated"]["sweep"]
    job = {"run": "demo", "method": "full", "subset": "pretty", "seed": 1, "reward": "style"}
    assert about == {"name": "full--pretty--s1", **job}
    assert records.read_json(row(folder, "demo-base") / "job.json")["evaluated"]["sweep"] == {"name": "base"}


def test_a_sweep_of_images_ends_in_one_line(run: Run, tmp_path: Path) -> None:
    folder, _ = run("fake")
    _, failed = run(row(folder, "fake") / "evaluations/0/images", guidance=(1, 2))
    (line,) = failed.values()
    assert line.endswith(" holds images, and --guidance draws some; leave one of them out")
    assert not list(folder.with_name("guidance-fake").glob("evaluated--*"))


def test_an_evaluation_is_scored_with_a_metric_that_the_suite_lacks(run: Run) -> None:
    folder, _ = run("fake", metrics=("spread@some",))

    def columns() -> list[tuple[str, bool]]:
        metrics = records.read_json(folder / "experiment.json")["suite"]["metrics"]
        return [(metric["name"], metric.get("added", False)) for metric in metrics]

    assert columns() == [("brightness", False), ("spread", True)]
    assert all({"brightness", "spread"} == r["scores"].keys() for r in rows_of(folder))
    run("fake")  # the column stays
    assert columns() == [("brightness", False), ("spread", True)]
    other, _ = run("fake", metrics=("brightness", "spread@some"), suite="rich", name="alone")
    assert all({"brightness", "spread"} == r["scores"].keys() for r in rows_of(other))


# -- cells that fail alone -------------------------------------------------------------------------------------------


def test_a_scorer_that_fails_marks_its_cells_and_no_others(run: Run) -> None:
    folder, failed = run("fake", suite="rich")
    assert failed == {}
    for sample in rows_of(folder):
        scores = sample["scores"]
        assert "score" in scores["brightness"] and "score" in scores["spread"]
        assert scores["absent"]["error"] == "missing: asset judge is missing; run `bench assets fetch judge`"
        assert scores["broken"]["error"] == "RuntimeError: no such symbol"
    spreads = [sample["scores"]["spread"]["score"] for sample in rows_of(folder)]
    assert spreads[0] == spreads[1] != spreads[2] == spreads[3]


def test_what_was_missing_is_scored_by_the_same_command_later(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = run("fake", suite="rich")
    monkeypatch.setattr(Absent, "prepare", lambda self: None)
    monkeypatch.setattr(Absent, "score", lambda self, images, prompts: [0.25] * len(images))
    run("fake", suite="rich")
    assert {sample["scores"]["absent"].get("score") for sample in rows_of(folder)} == {0.25}


def test_a_model_that_draws_nan_or_one_colour_is_found_out(world: fakes.World, tmp_path: Path) -> None:
    broken = world.backbone.transformer()
    broken.proj_out.bias.data.fill_(float("nan"))
    policy = Policy(broken, world.backbone.scheduler(), world.null)
    painter = PolicyPainter(
        policy, world.backbone, fakes.suite().sampler, Conditions(world.backbone, fakes.suite().texts())
    )
    draw_suite(fakes.suite(), painter, tmp_path / "0", header=untrained_header(), engine=Engine(), batch=4)
    score_suite(fakes.suite(), {"brightness": Brightness()}, tmp_path / "0", engine=Engine())
    rows = list(records.read_lines(tmp_path / "0" / "samples.jsonl"))
    assert {r["scores"]["brightness"]["error"] for r in rows} == {drawing.NOT_A_NUMBER}
    assert not list((tmp_path / "0" / "images").iterdir())
    grey = np.full((4, 4, 3), 7, np.uint8)
    assert drawing.problem_of(grey) == drawing.CONSTANT
    grey[0, 0, 0] = 8
    assert drawing.problem_of(grey) is None


def test_a_score_of_an_older_version_is_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = run("fake")
    before = rows_of(folder)
    monkeypatch.setattr(Brightness, "version", 2)
    monkeypatch.setattr(Brightness, "score", lambda self, images, prompts: [0.5] * len(images))
    score_run(folder, (), Progress(quiet=True))
    assert {str(r["scores"]["brightness"]) for r in rows_of(folder)} == {"{'score': 0.5, 'version': 2}"}
    assert records.read_json(folder / "experiment.json")["suite"]["metrics"][0]["version"] == 2
    assert [r["seed"] for r in rows_of(folder)] == [r["seed"] for r in before]


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*/evaluations/0/samples.jsonl", {"v": 2}),
        ("*/evaluations/0/samples.jsonl", {"v": None}),
        ("*/evaluations/0/samples.jsonl", {"scores": []}),
        ("*/evaluations/0/samples.jsonl", {"scores": {"spread": 1}}),
        ("*/evaluations/0/samples.jsonl", {"prompt_set": 1}),
        ("*/evaluations/0/evaluation.json", {"v": 2}),
        ("*/job.json", {"v": 2}),
        ("*/status.json", {"v": 2}),
        ("experiment.json", {"v": 2}),
    ],
)
def test_records_of_another_version_are_not_written_again(run: Run, pattern: str, damage: dict[str, Any]) -> None:
    folder, _ = run("fake", passes="generate")
    (path,) = folder.glob(pattern)
    first, _, rest = path.read_text().partition("\n") if path.suffix == ".jsonl" else (path.read_text(), "", "")
    changed = json.loads(first) | damage
    changed.pop("check", None)  # what a line of another version would hold is not known
    path.write_text(json.dumps(changed) + "\n" + rest)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(BenchError, match=f"{path.name} is not a record this version reads"):
        score_run(folder, ("spread",), Progress(quiet=True))
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_a_run_is_scored_with_a_further_metric_and_keeps_its_column(run: Run, tmp_path: Path) -> None:
    folder, _ = run("fake")
    score_run(folder, ("spread",), Progress(quiet=True))
    assert all("score" in r["scores"]["spread"] and "score" in r["scores"]["brightness"] for r in rows_of(folder))
    metrics = records.read_json(folder / "experiment.json")["suite"]["metrics"]
    assert [(m["name"], m["prompt_set"], m["images"]) for m in metrics] == [
        ("brightness", "some", 4),
        ("spread", "some", 4),
    ]
    score_run(folder, (), Progress(quiet=True))
    assert len(records.read_json(folder / "experiment.json")["suite"]["metrics"]) == 2
    from bench.report import render_report

    render_report([folder], tmp_path / "report")
    assert "Spread" in (tmp_path / "report" / "main_results.md").read_text()


@pytest.mark.parametrize("command", ["evaluate", "score"])
@pytest.mark.parametrize("held", [locks.EXPERIMENT, "evaluated--fake"])
def test_what_another_command_works_on_is_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, held: str
) -> None:
    folder, _ = run("fake")
    assert (folder / "evaluated--fake").is_dir()
    other = FileLock(folder / locks.FOLDER / held)
    other.acquire()
    waited: list[str] = []
    monkeypatch.setattr(locks, "pause", lambda: (waited.append(held), other.release()))
    run("fake") if command == "evaluate" else score_run(folder, ("spread",), Progress(quiet=True))
    assert waited == [held]


# -- bad input -------------------------------------------------------------------------------------------------------


def test_one_that_cannot_be_had_costs_the_others_nothing(run: Run, tmp_path: Path, tiny_pipeline: Path) -> None:
    save_weights(adapted(tiny_pipeline), tmp_path / "lora")
    (tmp_path / "empty").mkdir()
    folder, failed = run(tmp_path / "lora", "fakee", tmp_path / "empty", "fake")
    assert list(failed) == [str(tmp_path / "lora"), "fakee", str(tmp_path / "empty")]
    assert failed[str(tmp_path / "lora")].endswith("does not say which pipeline it is for; add --backbone")
    assert "did you mean 'fake'?" in failed["fakee"]
    assert "holds no pipeline" in failed[str(tmp_path / "empty")]
    assert "score" in rows_of(folder)[0]["scores"]["brightness"]


def test_weights_of_another_architecture_end_in_one_line(run: Run, tmp_path: Path, tiny_pipeline: Path) -> None:
    from diffusers import SD3Transformer2DModel

    other = SD3Transformer2DModel(**fakes.TRANSFORMER | {"num_layers": 1})
    other.save_pretrained(tmp_path / "other")
    _, failed = run(tmp_path / "other", backbone=str(tiny_pipeline))
    assert "is not a transformer of the backbone" in failed[str(tmp_path / "other")]
    assert "(num_layers differ)" in failed[str(tmp_path / "other")]


def test_a_damaged_lora_ends_in_one_line(run: Run, tmp_path: Path, tiny_pipeline: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "lora").mkdir()
    save_file({"unet.a": torch.zeros(1)}, tmp_path / "lora" / LORA)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / LORA).write_bytes(b"12345")
    _, failed = run(tmp_path / "lora", tmp_path / "cut", backbone=str(tiny_pipeline))
    assert all(" is no LoRA for this transformer: " in line and "\n" not in line for line in failed.values())
    assert len(failed) == 2


def test_weights_that_cannot_be_used_cost_the_other_rows_nothing(run: Run, tmp_path: Path, tiny_pipeline: Path) -> None:
    from safetensors.torch import load_file, save_file

    for name in ("lora", "kohya"):
        save_weights(adapted(tiny_pipeline), tmp_path / name)
    weights = load_file(tmp_path / "lora" / LORA)
    half = {key: value for key, value in weights.items() if "0.attn.to_q.lora_B" not in key}
    save_file(half, tmp_path / "lora" / LORA)
    transformer(tiny_pipeline).save_pretrained(tmp_path / "part" / "transformer")
    file = tmp_path / "part" / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({key: value for key, value in load_file(file).items() if "proj_out" not in key}, file, {"format": "pt"})
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_config.json").write_text("[]")
    (tmp_path / "peft" / "adapter_model.safetensors").write_bytes((tmp_path / "kohya" / LORA).read_bytes())
    whole = (tmp_path / "kohya" / LORA).rename(tmp_path / "my-style.safetensors")
    bad = [tmp_path / "lora", tmp_path / "part", tmp_path / "peft"]
    folder, failed = run(*bad, whole, backbone=str(tiny_pipeline))
    assert list(failed) == [str(path) for path in bad]
    assert failed[str(bad[0])].endswith("it lacks lora_B.weight of transformer_blocks.0.attn.to_q")
    assert "lack proj_out.bias, proj_out.weight;" in failed[str(bad[1])]
    assert "adapter_config.json is damaged (no JSON object)" in failed[str(bad[2])]
    assert len(pictures(row(folder, "my-style"))) == 4


@pytest.mark.parametrize("record", [[], {}, {"jobs": 7}, {"jobs": [7]}, {"jobs": ["../../x--y--s0"]}, {"jobs": [".."]}])
def test_a_run_whose_record_says_no_jobs_ends_in_one_line(run: Run, tmp_path: Path, record: Any) -> None:
    trained = tmp_path / "demo"
    trained.mkdir()
    (trained / "experiment.json").write_text(json.dumps(record))
    for what in (trained, trained / "base"):
        with pytest.raises(BenchError, match=r"experiment\.json"):
            run(what)


def test_a_name_stands_for_one_thing(run: Run, tmp_path: Path, tiny_pipeline: Path) -> None:
    for step in (0.1, 0.2):
        transformer(tiny_pipeline, step).save_pretrained(tmp_path / "tuned" / "transformer")
        _, failed = run(tmp_path / "tuned", backbone=str(tiny_pipeline))
        assert bool(failed) == (step == 0.2)
    assert "holds an evaluation of something else" in failed[str(tmp_path / "tuned")]
    with pytest.raises(BenchError, match="was evaluated on another suite"):
        run("fake", suite="rich", name="evaluate-fake")


def test_a_run_from_before_levels_had_names_goes_on(run: Run) -> None:
    folder, _ = run("fake")
    for path, part in ((folder / "experiment.json", "suite"), (row(folder, "fake") / "job.json", "evaluated")):
        record = records.read_json(path)
        del record[part]["sampler"]["levels"]
        records.write_json(path, record)
    shutil.rmtree(row(folder, "fake") / "evaluations")
    assert run("fake") == (folder, {})
    assert records.read_json(folder / "experiment.json")["suite"]["sampler"]["levels"] == "diffusers-0.42"
    record["evaluated"]["sampler"]["levels"] = "shifted"
    records.write_json(path, record)
    shutil.rmtree(row(folder, "fake") / "evaluations")
    assert "holds an evaluation of something else" in run("fake")[1]["fake"]


def test_a_run_or_a_file_is_told_from_what_can_be_evaluated(run: Run, tmp_path: Path) -> None:
    folder, _ = run("fake")
    (tmp_path / "cat.png").write_bytes(b"")
    _, failed = run(folder, tmp_path / "cat.png")
    assert "is a run; name one of its jobs, e.g." in failed[str(folder)]
    assert failed[str(tmp_path / "cat.png")].endswith("is a file; name the folder of a model or of images")


def test_an_exported_pipeline_reads_as_many_tokens_as_it_was_trained_with() -> None:
    """An export of tiny-sd3 is a plain folder: with 256 tokens it would draw other pictures than its job did."""
    from bench.backbone import loader

    assert loader.find(loader.TINY_SD3.source).spec.max_sequence_length == 12
    assert loader.find(loader.TINY_SD3.source, max_sequence_length=5).spec.max_sequence_length == 5


def test_images_of_another_suite_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "mine" / "cat.png")
    _, failed = run(tmp_path / "mine")
    (line,) = failed.values()
    assert line.endswith("they are called <prompt set>-<prompt id>-<repeat>, e.g. some-0-0.png")


def test_what_is_not_there_writes_nothing(run: Run, tmp_path: Path) -> None:
    """Not even a column that was asked for beside it."""
    folder, failed = run("no/such", metrics=("spread@some",))
    assert list(failed) == ["no/such"] and not folder.exists()
    run("fake")
    before = (folder / "experiment.json").read_bytes()
    assert list(run("no/such", metrics=("spread@some",))[1]) == ["no/such"]
    assert (folder / "experiment.json").read_bytes() == before


def test_a_revision_that_nothing_has_ends_in_one_line(run: Run, tiny_pipeline: Path) -> None:
    with pytest.raises(BenchError, match=r"--revision v2 is of a hub id, and .* names none; leave it out"):
        run(tiny_pipeline, revision="v2")
    assert "revision 'v2' is for a hub id;" in run("tiny-sd3", revision="v2")[1]["tiny-sd3"]


def test_a_path_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "model").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    spellings = ["model", "./model/", str(tmp_path / "here" / "model"), "~/model", "../here/model"]
    assert expand(spellings) == (["model"], [])
    assert expand(["../far", str(tmp_path / "far"), "."]) == ([str(tmp_path / "far"), str(tmp_path / "here")], [])
    assert expand(["tiny-sd3", "org/model"]) == (["tiny-sd3", "org/model"], [])


def test_a_score_waits_for_the_command_that_has_the_row(run: Run) -> None:
    """Both write the row's scores as one file, so the last would take away what the other found."""
    folder, _ = run("fake")
    lock = FileLock(folder / locks.FOLDER / row(folder, "fake").name)
    lock.acquire()
    said: list[str] = []

    class Says(Progress):
        def say(self, line: str) -> None:
            said.append(line)
            lock.release()

    score_run(folder, ("spread@some",), Says(quiet=True))
    assert said[0].startswith(f"{row(folder, 'fake').name}: another command works on it")
    assert {"brightness", "spread"} <= rows_of(folder)[0]["scores"].keys()


def test_scoring_before_generating_ends_in_one_line(run: Run) -> None:
    _, failed = run("fake", passes="score")
    assert "holds no images yet" in failed["fake"]


BAD = ("0", "0.5", "1,-2", "1,two", "3,1,3.0", "1,,2", "nan", "1,inf")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--suite", "papier"], "unknown suite 'papier'; did you mean 'paper'?"),
        (["--metrics", "brigthness"], "unknown metric of the suite fake 'brigthness'; did you mean 'brightness'?"),
        (["--name", "a/b"], "evaluation: name: "),
        (["--metrics", "spread@nowhere"], "unknown prompt set 'nowhere'; known: some"),
        (["--metrics", "spreat@some"], "unknown metric 'spreat'; did you mean 'spread'?"),
        (
            ["--metrics", "spread@signs", "--suite", "smoke"],
            "spread compares pictures of one prompt, and signs has one",
        ),
        (
            ["--metrics", "brightness@signs,brightness@scenes", "--suite", "smoke"],
            "brightness is to score signs and scenes, and a column has one prompt set",
        ),
        *(
            (["--guidance", given], "--guidance takes numbers of at least 1 with commas between, each once: ")
            for given in BAD
        ),
    ],
)
def test_what_is_mistyped_ends_in_one_line(known: None, tmp_path: Path, flags: list[str], line: str) -> None:
    places = ["--runs", str(tmp_path / "runs"), "--reports", str(tmp_path / "reports")]
    given = flags if "--suite" in flags else ["--suite", "fake", *flags]
    done = CliRunner().invoke(main, ["evaluate", "fake", *given, *places])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"bench: {line}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        (("brigthness",), "unknown metric"),
        (("spread@nowhere",), "unknown prompt set 'nowhere'"),
    ],
)
def test_scoring_with_what_is_not_there_ends_in_one_line(run: Run, metrics: tuple[str, ...], line: str) -> None:
    folder, _ = run("fake")
    with pytest.raises(BenchError, match=line):
        score_run(folder, metrics, Progress(quiet=True))
    with pytest.raises(BenchError, match="is no run"):
        score_run(folder / "nowhere", (), Progress(quiet=True))


def test_the_command_prints_the_table_and_keeps_the_report(known: None, tmp_path: Path) -> None:
    places = ["--runs", str(tmp_path / "runs"), "--reports", str(tmp_path / "reports")]
    given = ["fake", "--suite", "fake", "--max-sequence-length", "12", "--limit", "1", "--name", "look"]
    done = CliRunner().invoke(main, ["evaluate", *given, *places])
    assert done.exit_code == 0, done.output
    assert "| Brightness" in done.output and "too few to compare anything" in done.output
    assert (tmp_path / "reports" / "look" / "index.html").is_file()
    assert json.loads((tmp_path / "runs/look/experiment.json").read_text())["suite"]["name"] == "fake, first 1"


@pytest.mark.parametrize("content", [b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"])
def test_a_damaged_image_ends_neither_the_command_nor_its_report(known: None, tmp_path: Path, content: bytes) -> None:
    for number, name in enumerate(("some-0-0", "some-0-1", "some-1-0", "some-1-1")):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        (tmp_path / "mine").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "mine" / f"{name}.png")
    (tmp_path / "mine" / "some-0-0.png").write_bytes(content)
    places = ["--runs", str(tmp_path / "runs"), "--reports", str(tmp_path / "reports"), "--name", "look"]
    done = CliRunner().invoke(main, ["evaluate", str(tmp_path / "mine"), "--suite", "fake", *places])
    assert done.exit_code == 0, done.output
    assert "failed 3/4" in done.output and "the image some-0-0.png cannot be read" in done.output
    assert (tmp_path / "reports" / "look" / "samples.png").is_file()


# -- more repeats ----------------------------------------------------------------------------------------------------


def test_further_repeats_follow_the_suites_own_with_their_noise(run: Run) -> None:
    own, more = pictures(row(run("fake")[0], "fake")), run("fake", repeats=3)[0]
    assert more.name == "evaluate-fake-repeats-3"
    drawn = pictures(row(more, "fake"))
    assert own.keys() == {f"some-{prompt}-{repeat}.png" for prompt in "01" for repeat in range(2)}
    assert own == {name: drawn[name] for name in own}
    assert len(set(drawn.values())) == len(drawn) == 12
    suite = records.read_json(more / "experiment.json")["suite"]
    assert (suite["name"], suite["repeats"], suite["metrics"][0]["images"]) == ("fake", 3, 12)
    assert all("score" in line["scores"]["brightness"] for line in rows_of(more))


def test_an_evaluation_with_more_repeats_shares_no_table_and_is_scored_again(run: Run) -> None:
    folder, (more, _) = run("fake")[0], run("fake", repeats=2)
    assert "repeats" not in records.read_json(folder / "experiment.json")["suite"]
    with pytest.raises(BenchError, match="differ in suite and cannot share a report"):
        read_study([folder, more])
    with pytest.raises(BenchError, match="with other metrics or another number of repeats"):
        run("fake", repeats=2, name="evaluate-fake")
    before = records.read_json(more / "experiment.json")
    score_run(more, (), Progress(quiet=True))
    assert records.read_json(more / "experiment.json") == before
    _, failed = run("fake", repeats=4, passes="score")
    assert "evaluate-fake-repeats-4" in failed["fake"] and "holds no images yet" in failed["fake"]


def test_seeds_of_a_method_are_known_among_evaluated_rows(run: Run, tiny_pipeline: Path, tmp_path: Path) -> None:
    trained = trained_run(tmp_path / "demo", tiny_pipeline)
    folder, failed = run(trained, repeats=2)
    assert not failed
    job = {"run": "demo", "method": "full", "subset": "pretty", "seed": 1, "reward": "style"}
    assert records.read_json(row(folder, "demo-full--pretty--s1") / "job.json")["training"] == job
    assert "training" not in records.read_json(row(folder, "demo-base") / "job.json")
    study = read_study([folder])
    (found,) = study.trainings
    assert (found.method, found.subset, found.seeds) == ("full", "pretty", (0, 1))
    assert study.backbones == {hub.fingerprint(tiny_pipeline)}
    remedied, _ = run(trained / "full--pretty--s0", remedy=("epsilon_scaling=1.05",), name="remedied")
    assert read_study([remedied]).trainings == []  # another sampler: no training of the suite's


# -- what a subject is -----------------------------------------------------------------------------------------------


def test_a_job_that_is_not_finished_is_not_to_be_deleted(tiny_pipeline: Path, tmp_path: Path) -> None:
    job = trained_run(tmp_path / "demo", tiny_pipeline) / "full--pretty--s0"
    assert find_subject(str(job)).kind == "transformer"
    records.write_json(job / "status.json", {"v": 1, "status": "interrupted", "reason": None})
    shutil.rmtree(job / "weights")
    with pytest.raises(BenchError, match=r"is not finished \(interrupted\); the same `bench run` command goes on"):
        find_subject(str(job))


def test_a_file_of_prompts_may_have_any_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cats on mats.txt").write_text("a cat\na mat\n")
    folder, failed = run("fake", prompts=str(tmp_path / "cats on mats.txt"))
    record = records.read_json(folder / "experiment.json")
    assert not failed and record["suite"]["name"].startswith("fake on cats on mats.txt ")
    (folder / "config.json").write_text(json.dumps({"prompts": str(tmp_path / "cats on mats.txt")}))
    suite, _ = recorded_suite(record, folder)
    assert suite.texts() == ["a cat", "a mat"]


def test_what_is_no_folder_is_a_hub_id() -> None:
    subject = find_subject("owner/name", revision="v1")
    assert (subject.kind, subject.backbone, subject.revision, subject.label) == ("pipeline", "owner/name", "v1", "name")


def test_a_lora_from_the_hub_names_its_pipeline(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/name"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert find_subject(str(tmp_path)).backbone == "owner/name"
    assert find_subject(str(tmp_path), backbone="other/one").backbone == "other/one"


def test_a_limited_suite_keeps_the_first_of_each_group() -> None:
    prompts = tuple(Prompt(str(i), "x", group="ab"[i % 2]) for i in range(6))
    suite = replace(fakes.suite(), prompt_sets=(PromptSet("some", prompts, 1, ("brightness",)),))
    assert [p.id for p in suite.limited(2).prompt_sets[0].prompts] == ["0", "1", "2", "3"]
    assert suite.limited(2).images() == 4 and "too few to compare" in suite.limited(2).notice
