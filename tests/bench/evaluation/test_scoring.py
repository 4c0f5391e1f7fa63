"""What keeps a score with its image: stale images, moved columns, other weights, damaged files, names that repeat."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from fakes import Brightness
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from trained import adapted, transformer

from bench import records, registry
from bench.backbone.source import Source
from bench.backbone.weights import LORA, save_weights
from bench.errors import BenchError, DeviceLost, Missing
from bench.evaluate.config import EvaluationConfig
from bench.evaluate.rescore import score_run
from bench.evaluate.rows import evaluate
from bench.evaluation import Conditions, PolicyPainter, score_suite
from bench.evaluation.drawing import read_picture
from bench.evaluation.scoring import score_each, score_prompt
from bench.experiment.run import Workspace, prepare_metric
from bench.export.folder import write_adapter
from bench.machine.engine import Engine
from bench.machine.progress import Progress
from bench.metric import Metric
from bench.records.schema import SampleRecord
from bench.report.study import read_study
from bench.suite import Prompt, PromptSet

Run = Callable[..., tuple[Path, dict[str, str]]]
QUIET = Progress(quiet=True)


class Contrast(Metric):
    """Deviation of a picture's pixels."""

    name, label, version = "contrast", "Contrast", 1

    def score(self, images, prompts):
        return [float(image.std()) for image in images]


class Word(Contrast):
    """Needs a fact."""

    name, label, needs_facts = "word", "Word", ("word",)


def two_sets():
    """The fake suite with the same prompts twice, the first scored."""
    suite = fakes.suite()
    (first,) = suite.prompt_sets
    return replace(suite, name="two", prompt_sets=(first, replace(first, name="more", metrics=())))


@pytest.fixture
def run(world: fakes.World, tmp_path: Path) -> Iterator[Run]:
    """Evaluates into a workspace of this test's own; returns the run folder and what failed."""
    here = Path(__file__).stem

    def evaluated(*what: str | Path, **options: Any) -> tuple[Path, dict[str, str]]:
        config = EvaluationConfig(what=tuple(map(str, what)), **{"suite": "fake", "max_sequence_length": 12} | options)
        outcome = evaluate(config, Workspace(tmp_path / "cache", tmp_path / "runs"), QUIET)
        return outcome.folder, outcome.failed

    with fakes.registered(world.backbone), pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, here, sys.modules[__name__])
        metrics = {"contrast": f"{here}:Contrast", "word": f"{here}:Word"}
        patch.setitem(registry.BUILT_IN, "metrics", registry.BUILT_IN["metrics"] | metrics)
        patch.setitem(registry.BUILT_IN, "suites", registry.BUILT_IN["suites"] | {"two": f"{here}:two_sets"})
        registry.table.cache_clear()
        yield evaluated


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def all_pictures(folder: Path) -> None:
    for number, name in enumerate(("some-0-0", "some-0-1", "some-1-0", "some-1-1")):
        picture(folder / f"{name}.png", number)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("**/evaluations/0/samples.jsonl")
    return list(records.read_lines(path))


# -- images and weights that change under one name -------------------------------------------------------------------


def test_images_that_changed_are_not_scored_as_those_of_before(run: Run, tmp_path: Path) -> None:
    all_pictures(tmp_path / "mine")
    run(tmp_path / "mine")
    assert run(tmp_path / "mine")[1] == {}
    picture(tmp_path / "mine" / "some-1-0.png", 9)
    (line,) = run(tmp_path / "mine")[1].values()
    assert "are not those that" in line and "give these a name with --name" in line
    folder, failed = run(tmp_path / "mine", name="again")
    assert failed == {}
    assert rows_of(folder)[2]["scores"]["brightness"]["score"] == pytest.approx(
        read_picture(tmp_path / "mine" / "some-1-0.png").mean() / 255, abs=1e-6
    )


def test_an_image_that_came_later_is_not_passed_over(run: Run, tmp_path: Path) -> None:
    all_pictures(tmp_path / "mine")
    (tmp_path / "mine" / "some-1-1.png").unlink()
    run(tmp_path / "mine")
    picture(tmp_path / "mine" / "some-1-1.PNG", 3)
    assert list(run(tmp_path / "mine")[1]) == [str(tmp_path / "mine")]
    folder, _ = run(tmp_path / "mine", name="whole")
    assert all("score" in row["scores"]["brightness"] for row in rows_of(folder))


def test_pefts_alpha_is_part_of_what_was_evaluated(run: Run, tmp_path: Path, tiny_pipeline: Path) -> None:
    save_weights(adapted(tiny_pipeline), tmp_path / "lora")
    peft = tmp_path / "peft"
    peft.mkdir()
    write_adapter(tmp_path / "lora" / LORA, Source(str(tiny_pipeline)), peft)
    (peft / LORA).unlink(missing_ok=True)
    _, failed = run(peft, backbone=str(tiny_pipeline))
    assert failed == {}
    config = json.loads((peft / "adapter_config.json").read_text())
    (peft / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] * 2}))
    _, failed = run(peft, backbone=str(tiny_pipeline))
    assert "holds an evaluation of something else" in failed[str(peft)]


def test_a_slash_at_the_end_is_the_same_folder(run: Run, tmp_path: Path) -> None:
    all_pictures(tmp_path / "mine")
    assert run(tmp_path / "mine")[1] == run(f"{tmp_path / 'mine'}/")[1] == {}


def test_a_lora_that_changes_a_text_encoder_is_not_taken_for_less(
    run: Run, tmp_path: Path, tiny_pipeline: Path
) -> None:
    save_weights(adapted(tiny_pipeline), tmp_path / "lora")
    path = tmp_path / "lora" / LORA
    with safe_open(path, "pt") as file:
        weights, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(weights | {"text_encoder.q.lora_A.weight": torch.zeros(1, 1)}, path, about)
    _, failed = run(tmp_path / "lora", backbone=str(tiny_pipeline))
    assert failed[str(tmp_path / "lora")].endswith("it changes text_encoder, and only a transformer is evaluated")


def test_a_transformer_of_an_older_diffusers_lacks_what_was_not_to_be_set(
    run: Run, tmp_path: Path, tiny_pipeline: Path
) -> None:
    for name, value in (("mine", None), ("other", 4)):
        transformer(tiny_pipeline, 0.2).save_pretrained(tmp_path / name / "transformer")
        config = json.loads((tmp_path / name / "transformer" / "config.json").read_text())
        del config["out_channels"]  # 4 here and 16 by default
        (tmp_path / name / "transformer" / "config.json").write_text(
            json.dumps(config | ({"out_channels": value} if value else {}))
        )
    _, failed = run(tmp_path / "mine", tmp_path / "other", backbone=str(tiny_pipeline))
    assert list(failed) == [str(tmp_path / "mine")] and "(out_channels differ)" in failed[str(tmp_path / "mine")]


def test_a_long_path_names_a_folder_by_its_end(run: Run, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["somewhere-deep" * 4] * 5, "mine")
    all_pictures(deep)
    folder, failed = run(deep)
    assert failed == {} and [row.name[-5:] for row in folder.glob("evaluated--*")] == ["-mine"]


# -- columns ---------------------------------------------------------------------------------------------------------


def test_a_run_that_was_scored_further_takes_more_rows(run: Run, tmp_path: Path, tiny_pipeline: Path) -> None:
    folder, _ = run("fake")
    score_run(folder, ("contrast",), QUIET)
    assert run("fake", tiny_pipeline)[1] == {}
    metrics = records.read_json(folder / "experiment.json")["suite"]["metrics"]
    assert [(metric["name"], metric.get("added")) for metric in metrics] == [("brightness", None), ("contrast", True)]
    score_run(folder, (), QUIET)
    for row in folder.glob("evaluated--*"):
        assert all({"brightness", "contrast"} == set(sample["scores"]) for sample in rows_of(row))


def test_a_column_is_not_moved_to_other_prompts(run: Run) -> None:
    folder, _ = run("fake", suite="two")
    with pytest.raises(BenchError, match="brightness scores some in this run already"):
        score_run(folder, ("brightness@more",), QUIET)
    score_run(folder, ("contrast@more",), QUIET)
    with pytest.raises(BenchError, match="contrast scores more in this run already"):
        score_run(folder, ("contrast@some",), QUIET)


def test_scores_by_other_weights_are_not_mixed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(name: str, version: int) -> None:
        monkeypatch.setattr(Contrast, "version", version)
        monkeypatch.setattr(Contrast, "describe", lambda self: Metric.describe(self) | {"weights": name})

    folder, _ = run("fake")
    weights("stand-in", 1)
    score_run(folder, ("contrast",), QUIET)
    weights("real", 1)
    with pytest.raises(BenchError, match=r"with other weights \(stand-in, and here real\)"):
        score_run(folder, ("contrast",), QUIET)
    weights("real", 2)
    score_run(folder, ("contrast",), QUIET)
    assert {row["scores"]["contrast"]["version"] for row in rows_of(folder)} == {2}


def test_a_metric_that_prompts_cannot_feed_ends_in_one_line(run: Run) -> None:
    folder, _ = run("fake")
    with pytest.raises(BenchError, match="word needs the fact 'word' of a prompt, and those of some have none"):
        score_run(folder, ("word",), QUIET)
    assert len(records.read_json(folder / "experiment.json")["suite"]["metrics"]) == 1


# -- files -----------------------------------------------------------------------------------------------------------


def test_whatever_a_damaged_image_raises_is_its_own_cells_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = tmp_path / "0.png", io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)).save(content, "PNG")
    whole = content.getvalue()
    second = whole.index(b"IDAT", whole.index(b"IDAT") + 4)

    def cause() -> str:
        with pytest.raises(OSError, match=r"^the image 0.png cannot be read: [^\n]+$") as raised:
            read_picture(path)
        return type(raised.value.__cause__).__name__

    path.write_bytes(whole[:second] + b"\1\2\3\4" + whole[second + 4 :])
    assert cause() == "SyntaxError"
    path.write_bytes(whole[:1000])
    assert cause() == "OSError"
    path.write_bytes(whole)
    assert read_picture(path).shape == (256, 256, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert cause() == "DecompressionBombError"
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "none.png")


def test_a_record_cannot_name_an_image_outside_its_folder(run: Run, tmp_path: Path) -> None:
    folder, _ = run("fake")
    (path,) = folder.glob("**/samples.jsonl")
    rows = [row | {"scores": {}} for row in records.read_lines(path)]
    picture(tmp_path / "secret.png", 1)
    rows[0]["image"], rows[1]["image"] = "../../../../../secret.png", str(tmp_path / "secret.png")
    records.write_lines(path, rows)
    score_suite(fakes.suite(), {"brightness": Brightness()}, path.parent, engine=Engine())
    errors = [row["scores"]["brightness"].get("error", "") for row in rows_of(folder)]
    assert [error.endswith("lies outside the evaluation's folder") for error in errors] == [True, True, False, False]
    with pytest.raises(BenchError, match="an image outside the evaluation's folder"):
        read_study([folder])
    assert SampleRecord.model_validate(rows[2]).image == rows[2]["image"]


def test_an_image_that_was_exchanged_under_its_name_is_not_scored(run: Run, tmp_path: Path) -> None:
    """Neither one that was drawn here nor one from elsewhere, and scores that are there are not touched."""
    all_pictures(tmp_path / "mine")
    for folder, name in ((run("fake")[0], "some-0-1"), (run(tmp_path / "mine", name="mine")[0], "some-1-0")):
        (image,) = folder.glob(f"**/images/{name}.png")
        picture(image, 77)
        score_run(folder, ("contrast",), QUIET)
        cells = {Path(row["image"]).stem: row["scores"] for row in rows_of(folder)}
        exchanged = f"the image {name}.png is another one than was recorded: its SHA-256 differs"
        assert cells.pop(name)["contrast"] == {"version": 1, "error": exchanged}
        assert len(cells) == 3 and all("score" in cell["contrast"] for cell in cells.values())
        assert all("score" in row["scores"]["brightness"] for row in rows_of(folder))


def test_the_hash_of_an_image_is_that_of_its_file(run: Run, tmp_path: Path) -> None:
    all_pictures(tmp_path / "mine")
    (tmp_path / "mine" / "some-0-0.png").write_bytes(b"no picture")
    (tmp_path / "mine" / "some-0-1.png").unlink()
    for folder in (run("fake")[0], run(tmp_path / "mine", name="mine")[0]):
        (lines,) = folder.glob("**/samples.jsonl")
        for row in rows_of(folder):
            file = lines.with_name("images") / Path(row["image"]).name
            assert row["sha256"] == (hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None)


def test_images_of_records_without_hashes_are_scored(run: Run) -> None:
    folder, _ = run("fake")
    (path,) = folder.glob("**/samples.jsonl")
    old = [{key: value for key, value in row.items() if key != "sha256"} for row in records.read_lines(path)]
    path.write_text("".join(records.dumps(row) + "\n" for row in old))
    score_run(folder, ("contrast",), QUIET)
    assert all("score" in row["scores"]["contrast"] for row in rows_of(folder))


def test_a_score_that_was_changed_ends_whatever_reads_it_and_can_be_made_anew(run: Run, tmp_path: Path) -> None:
    from bench.records.archive import pack
    from bench.report import render_report, shown_images

    folder, _ = run("fake")
    (path,) = folder.glob("**/samples.jsonl")
    whole = path.read_text()
    first, *others = whole.splitlines(keepends=True)
    row = json.loads(first)
    row["scores"]["brightness"]["score"] += 0.25
    path.write_text("".join([records.dumps(row) + "\n", *others]))
    readers = (
        lambda: render_report([folder], tmp_path / "report"),
        lambda: score_run(folder, (), QUIET),
        lambda: pack(folder, tmp_path / "x.tar.xz", *shown_images(folder)),
    )
    for read in readers:
        with pytest.raises(BenchError, match=r"samples\.jsonl:1 was changed after it was written"):
            read()
    assert "was changed after it was written" in run("fake")[1]["fake"]
    row.pop("check")
    path.write_text("".join([records.dumps(row | {"scores": {}}) + "\n", *others]))
    score_run(folder, (), QUIET)
    assert path.read_text() == whole


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x"])
def test_an_id_names_a_file_of_the_folder(name: str) -> None:
    with pytest.raises(BenchError, match="names images"):
        PromptSet("some", (Prompt(name, "x"),), 1, ())
    with pytest.raises(BenchError, match="names images"):
        PromptSet(name, (Prompt("0", "x"),), 1, ())


def test_two_prompts_of_one_id_are_refused() -> None:
    with pytest.raises(BenchError, match="holds the prompt id '0' more than once"):
        PromptSet("some", (Prompt("0", "x"), Prompt("0", "y")), 1, ())


# -- what fails, and what is freed -----------------------------------------------------------------------------------


def test_out_of_memory_ends_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(self: Any, prompts: Any, seeds: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PolicyPainter, "draw", draw)
    _, failed = run("fake", evaluation_batch=7)
    assert "draw fewer images together with --evaluation-batch (now 7)" in failed["fake"]


@pytest.mark.parametrize("where", ["score", "prepare"])
def test_no_metric_goes_on_without_its_device(run: Run, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Brightness, where, broken)
    with pytest.raises(DeviceLost, match="device-side assert triggered"):
        run("fake")


@pytest.mark.parametrize("score", [score_each, score_prompt])
def test_no_cell_says_that_the_device_was_lost(monkeypatch: pytest.MonkeyPatch, score: Any) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Contrast, "score", broken)
    with pytest.raises(DeviceLost):
        score(Contrast(), [np.zeros((4, 4, 3), np.uint8)] * 2, [Prompt("0", "x")] * 2)


def test_a_device_that_is_lost_while_images_are_drawn_stops_the_other_rows(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(self: Any, prompts: Any, seeds: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(PolicyPainter, "draw", draw)
    with pytest.raises(DeviceLost, match="run the same command again"):
        run("fake")


def test_a_metric_that_breaks_while_it_is_prepared_stops_no_run_that_only_evaluates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(self: Any) -> None:
        raise ImportError("no module named engine")

    monkeypatch.setattr(Brightness, "prepare", prepare)
    prepare_metric(Brightness(), Progress(), vital=False)
    assert "brightness: ImportError: no module named engine; its column stays open" in capsys.readouterr().err
    with pytest.raises(ImportError):
        prepare_metric(Brightness(), Progress(), vital=True)


@pytest.mark.parametrize("per_prompt", [False, True])
@pytest.mark.parametrize(
    "returned", [None, 0.5, [None, 0.5], ["a", "b"], [[0.5], [0.5]], np.full((2, 1), 0.5), [0.5], [0.5] * 3]
)
def test_what_is_not_a_number_for_each_image_is_an_error_of_its_cells(
    monkeypatch: pytest.MonkeyPatch, returned: Any, per_prompt: bool
) -> None:
    monkeypatch.setattr(Contrast, "score", lambda self, images, prompts: returned)
    score = score_prompt if per_prompt else score_each
    cells = score(Contrast(), [np.zeros((4, 4, 3), np.uint8)] * 2, [Prompt("0", "x")] * 2)
    if isinstance(returned, list) and returned == [0.5] and not per_prompt:  # one by one, each has its number
        assert [cell["score"] for cell in cells] == [0.5, 0.5]
    else:
        assert all(cell["error"].startswith("returned ") and "score" not in cell for cell in cells)


class Watching(Contrast):
    """Says how bright a picture is, of one that is not black."""

    def observations(self, images, prompts):
        if not all(image.any() for image in images):
            raise ValueError("it is black")
        return [f"bright \n {image.max()} " + "x" * 300 for image in images]


def test_what_a_metric_saw_stands_beside_its_score() -> None:
    images = [np.full((4, 4, 3), value, np.uint8) for value in (9, 0, 7)]
    one, black, other = score_each(Watching(), images, [Prompt("0", "x")] * 3)
    assert one["seen"].startswith("bright 9 xxx") and other["seen"].startswith("bright 7 ")
    assert len(one["seen"]) == 200 and one["seen"][-1] == "…"
    assert black == {"version": 1, "error": "ValueError: it is black"}
    plain = score_each(Contrast(), images[:1], [Prompt("0", "x")])
    assert plain == [{"version": 1, "score": 0.0}]  # the same bytes as in older records


@pytest.mark.parametrize("returned", ["a", ["a"], ["a", None], ("a", "b"), [1, 2]])
def test_words_that_are_no_texts_are_an_error_of_the_cells(monkeypatch: pytest.MonkeyPatch, returned: Any) -> None:
    monkeypatch.setattr(Watching, "observations", lambda self, images, prompts: returned)
    cells = score_each(Watching(), [np.ones((4, 4, 3), np.uint8)] * 2, [Prompt("0", "x")] * 2)
    if returned == ["a"]:  # one by one, each has its words
        assert [cell["seen"] for cell in cells] == ["a", "a"]
    else:
        assert all(cell["error"].startswith("saw ") for cell in cells)


def test_a_prompts_images_share_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}
    for returned in ([0.5, 0.6], [float("nan")] * 2):
        monkeypatch.setattr(Contrast, "score", lambda self, images, prompts, returned=returned: returned)
        told[str(returned)] = score_prompt(Contrast(), [np.zeros((4, 4, 3), np.uint8)] * 2, [Prompt("0", "x")] * 2)
    errors = [[cell["error"] for cell in cells] for cells in told.values()]
    assert errors == [["different numbers for the images of a prompt"] * 2, ["not a finite number"] * 2]


def test_scoring_says_how_many_cells_have_no_score(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(self: Any) -> None:
        raise Missing("asset judge is missing; run `bench assets fetch judge`", "judge")

    folder, _ = run("fake")
    score_run(folder, ("contrast",), Progress())
    assert capsys.readouterr().err.strip().endswith("evaluate-fake: 4 cells tried in 1 evaluations")
    monkeypatch.setattr(Contrast, "version", 2)
    monkeypatch.setattr(Contrast, "prepare", prepare)
    score_run(folder, ("contrast",), Progress())
    assert "4 cells have no score, the first: missing: asset judge is missing" in capsys.readouterr().err


def test_a_model_that_a_reward_stands_on_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = run("fake", passes="generate")
    released: list[str] = []
    for kind, needed in ((Brightness, ("clip", "head")), (Contrast, ("clip",)), (Word, ("engine",))):
        monkeypatch.setattr(kind, "assets", needed)
        monkeypatch.setattr(kind, "release", lambda self: released.append(self.name))
    suite = fakes.suite().with_metrics({"brightness": "some", "contrast": "some", "word": "some"})
    (path,) = folder.glob("**/samples.jsonl")
    metrics: dict[str, Metric] = {"brightness": Brightness(), "contrast": Contrast(), "word": Word()}
    score_suite(suite, metrics, path.parent, engine=Engine(), keep={"brightness"})
    assert released == ["word"]


def test_an_image_with_a_problem_is_not_tried_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_pictures(tmp_path / "mine")
    (tmp_path / "mine" / "some-0-0.png").write_bytes(b"no picture")
    run(tmp_path / "mine")
    prepared: list[str] = []
    monkeypatch.setattr(Brightness, "prepare", lambda self: prepared.append(self.name))
    run(tmp_path / "mine")
    assert prepared == []


def test_conditions_are_those_of_the_backbone(world: fakes.World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept text by text and not all at once, in the order that they are asked for."""
    monkeypatch.setattr("bench.evaluation.painters.TEXTS", 2)
    texts = [fakes.CAPTIONS[number] for number in (3, 0, 4, 0)]
    found, wanted = Conditions(world.backbone, fakes.CAPTIONS)[texts], world.backbone.encode_prompts(texts)
    assert found.prompt_embeds.dtype == torch.float32
    torch.testing.assert_close(found.prompt_embeds, wanted.prompt_embeds, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.pooled_prompt_embeds, wanted.pooled_prompt_embeds, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("per_prompt", [False, True])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (5.5, "5.5 is above the metric's highest score, 1"),
        (-0.001, "-0.001 is below the metric's lowest score, 0"),
        (1.0000001, None),  # a rounding error of a float32
        (0.0, None),
    ],
)
def test_a_score_outside_of_its_range_is_an_error_of_its_cell(
    monkeypatch: pytest.MonkeyPatch, value: float, error: str | None, per_prompt: bool
) -> None:
    """A metric of 0 to 1 that gave 5.5 stood in bold, with an interval above 1."""
    monkeypatch.setattr(Contrast, "low", 0.0)
    monkeypatch.setattr(Contrast, "high", 1.0)
    monkeypatch.setattr(Contrast, "score", lambda self, images, prompts: [value] * len(images))
    score = score_prompt if per_prompt else score_each
    cells = score(Contrast(), [np.zeros((4, 4, 3), np.uint8)] * 2, [Prompt("0", "x")] * 2)
    expected = {"version": 1, "score": round(value, 6)} if error is None else {"version": 1, "error": error}
    assert cells == [expected] * 2


def test_a_path_is_the_same_however_it_is_spelled(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_pictures(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    for what in ("mine", "./mine", "mine/", "../" + tmp_path.name + "/mine", ".//mine", str(tmp_path / "mine")):
        folder, failed = run(what)
        assert not failed
    assert [path.parent.name for path in folder.glob("evaluated--*/job.json")] == ["evaluated--mine"]


def test_a_run_on_a_file_of_prompts_is_scored_further_with_that_file(run: Run, tmp_path: Path) -> None:
    """The suite of such a run has the file's name in it, and was called unknown."""
    prompts = tmp_path / "p.txt"
    prompts.write_text("a red circle\na blue square\n")
    folder, failed = run("fake", prompts=str(prompts))
    assert not failed
    with pytest.raises(BenchError, match=r"the prompts of a file p\.txt, and does not say where it is"):
        score_run(folder, ("contrast@prompts",), QUIET)
    records.write_json(folder / "config.json", {"prompts": str(prompts)})
    score_run(folder, ("contrast@prompts",), QUIET)
    assert all("contrast" in row["scores"] for row in rows_of(folder))
    prompts.write_text("a red circle\na green square\n")
    with pytest.raises(BenchError, match=r"was drawn on other prompts than .*p\.txt holds now"):
        score_run(folder, ("contrast@prompts",), QUIET)
