"""Images from elsewhere: every layout that generators write, and nothing taken for what it is not."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
from PIL import Image

from bench import records
from bench.errors import BenchError
from bench.evaluation.collecting import collect_suite
from bench.experiment.recorded import untrained_header
from bench.records import pictures
from bench.suite import Prompt, PromptSet, Suite

HEADER = untrained_header()
GENEVAL = PromptSet("geneval", tuple(Prompt(f"{i:05d}", f"a photo of {i}") for i in range(2)), 2, ())
DRAWBENCH = PromptSet("drawbench", tuple(Prompt(f"{i:03d}", f"words {i}") for i in range(2)), 2, ())


def suite_of(*sets: PromptSet) -> Suite:
    return replace(fakes.suite(), prompt_sets=sets)


def picture(path: Path, seed: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")
    return pixels


def collected(suite: Suite, source: Path) -> dict[str, Any]:
    """Image → its first pixel, or its problem."""
    target = source.with_name(f"{source.name}-taken") / "0"
    collect_suite(suite, source, target, header=HEADER)
    found = {}
    for row in records.read_lines(target / "samples.jsonl"):
        name = f"{row['prompt_set']}-{row['prompt_id']}-{row['repeat']}"
        problem = row.get("problem")
        found[name] = problem or np.asarray(pictures.read(target / row["image"]))[0, 0].tolist()
    return found


def pixel(seed: int) -> list[int]:
    first: list[int] = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)[0, 0].tolist()
    return first


WHOLE = {f"geneval-{i:05d}-{r}": pixel(10 * i + r) for i in range(2) for r in range(2)}


@pytest.mark.parametrize(
    "name",
    [
        "{i:05d}/samples/{r:05d}.png",  # generation/diffusers_generate.py of djghosh13/geneval
        "{i:05d}/samples/{r:04d}.png",
        "{i:05d}/samples/{r:04d}.jpg",
        "{i:05d}/samples/{r}.PNG",
        "{i:05d}/{r:05d}.webp",
        "{i}/samples/{r:03d}.jpeg",
        "{i:04d}/{r:04d}.bmp",
        "geneval/{i:05d}/samples/{r:05d}.png",
        "geneval/{i:03d}/{r:04d}.png",
        "geneval-{i:05d}-{r}.png",
        "geneval-{i}-{r:05d}.tiff",
        "images/geneval-{i:03d}-{r:02d}.gif",
    ],
)
def test_any_number_of_digits_names_an_image(tmp_path, name):
    for i in range(2):
        for r in range(2):
            picture(tmp_path / "in" / name.format(i=i, r=r), 10 * i + r)
    (tmp_path / "in" / "grid.png").write_bytes(b"")
    assert collected(suite_of(GENEVAL), tmp_path / "in") == WHOLE


def generated(folder: Path, digits: int, texts: list[str | None]) -> None:
    """What GenEval's own generator leaves: images, a grid and the record of each prompt."""
    for i, text in enumerate(texts):
        for r in range(2):
            picture(folder / f"{i:0{digits}d}" / "samples" / f"{r:05d}.png", 10 * i + r)
        picture(folder / f"{i:0{digits}d}" / "grid.png", 99)
        if text is not None:
            record = {"tag": "single_object", "include": [{"class": "x", "count": 1}], "prompt": text}
            (folder / f"{i:0{digits}d}" / "metadata.jsonl").write_text(json.dumps(record))


def test_genevals_own_folder_is_taken_in_whole_and_by_its_prompt_set_alone(tmp_path):
    """DrawBench's ids are numbers too: GenEval's images are none of its prompts'."""
    generated(tmp_path / "in", 5, ["a photo of 0", "a photo of 1"])
    found = collected(suite_of(DRAWBENCH, GENEVAL), tmp_path / "in")
    missing = {f"drawbench-{i:03d}-{r}" for i in range(2) for r in range(2)}
    assert found == WHOLE | {name: f"the image {name} is not there" for name in missing}


def test_a_prompts_record_says_whose_a_folder_is(tmp_path):
    """In a suite of several sets, folders of another number of digits are known by their record alone."""
    generated(tmp_path / "in", 4, ["a photo of 0", None])
    found = collected(suite_of(DRAWBENCH, GENEVAL), tmp_path / "in")
    assert {name for name, taken in found.items() if isinstance(taken, list)} == {"geneval-00000-0", "geneval-00000-1"}


def test_images_of_another_prompt_are_not_taken(tmp_path):
    """A generator that was given the prompts in another order leaves the same folders."""
    generated(tmp_path / "in", 5, ["a photo of 1", "a photo of 1"])
    found = collected(suite_of(GENEVAL), tmp_path / "in")
    other = "00000/metadata.jsonl holds another prompt: 'a photo of 1'"
    assert found == WHOLE | {"geneval-00000-0": other, "geneval-00000-1": other}


@pytest.mark.parametrize("second", ["00000/samples/0000.png", "00000/0.jpg", "geneval-0-0.png", "geneval/0/0.png"])
def test_an_image_that_is_there_twice_is_not_chosen_from(tmp_path, second):
    generated(tmp_path / "in", 5, [None, None])
    picture(tmp_path / "in" / second, 77)
    found = collected(suite_of(GENEVAL), tmp_path / "in")
    names = " and ".join(sorted([second, "00000/samples/00000.png"]))
    assert found == WHOLE | {"geneval-00000-0": f"the image geneval-00000-0 is there more than once: {names}"}


def test_ids_that_are_the_same_number_keep_their_digits(tmp_path):
    prompts = PromptSet("some", (Prompt("1", "x"), Prompt("01", "y")), 1, ())
    picture(tmp_path / "in" / "some-01-00.png", 5)
    picture(tmp_path / "in" / "001" / "0.png", 6)
    found = collected(suite_of(prompts), tmp_path / "in")
    assert found == {"some-1-0": "the image some-1-0 is not there", "some-01-0": pixel(5)}


@pytest.mark.parametrize("record", ["", "{", "[1]", '{"prompt": 5}', "[" * 5000, "\udcff"])
def test_a_record_that_is_none_says_nothing(tmp_path, record):
    generated(tmp_path / "in", 5, [None, None])
    (tmp_path / "in/00000/metadata.jsonl").write_text(record, errors="surrogateescape")
    assert collected(suite_of(GENEVAL), tmp_path / "in") == WHOLE


@pytest.mark.parametrize("damage", ["cut", "empty", "locked", "huge"])
def test_one_damaged_image_costs_its_own_cell(tmp_path, damage, monkeypatch):
    generated(tmp_path / "in", 5, [None, None])
    path = tmp_path / "in/00001/samples/00001.png"
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
        case "empty":
            path.write_bytes(b"")
        case "locked":
            opened = Path.open
            locked = PermissionError(13, "Permission denied")
            monkeypatch.setattr(  # root may read whatever its mode is
                Path, "open", lambda self, *a, **k: _raise(locked) if self == path else opened(self, *a, **k)
            )
        case "huge":
            os.truncate(path, pictures.MAX_BYTES + 1)
    found = collected(suite_of(GENEVAL), tmp_path / "in")
    assert {name for name in WHOLE if found[name] != WHOLE[name]} == {"geneval-00001-1"}
    assert found["geneval-00001-1"].startswith("the image 00001.png cannot be read: ")


def _raise(error: Exception) -> None:
    raise error


def test_a_folder_of_damaged_images_alone_has_a_row_that_says_so(tmp_path):
    picture(tmp_path / "in" / "geneval-00000-0.png", 0)
    (tmp_path / "in" / "geneval-00000-0.png").write_bytes(b"no picture")
    found = collected(suite_of(GENEVAL), tmp_path / "in")
    assert found["geneval-00000-0"].startswith("the image geneval-00000-0.png cannot be read: ")


def test_no_image_at_all_ends_in_one_line(tmp_path):
    picture(tmp_path / "in" / "grid.png", 0)
    with pytest.raises(BenchError, match=r"holds no image of the suite fake; they are called .*e\.g\. geneval-00000-0"):
        collected(suite_of(GENEVAL), tmp_path / "in")
    assert not (tmp_path / "in-taken").exists()


def test_the_same_images_are_the_same_the_next_time_and_others_are_not(tmp_path):
    generated(tmp_path / "in", 5, [None, None])
    collected(suite_of(GENEVAL), tmp_path / "in")
    assert collected(suite_of(GENEVAL), tmp_path / "in") == WHOLE
    picture(tmp_path / "in/00001/1.png", 50)
    with pytest.raises(BenchError, match="are not those that"):
        collected(suite_of(GENEVAL), tmp_path / "in")
