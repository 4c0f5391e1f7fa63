"""OCR accuracy: the formula against an independent recursion, and the engine on signs that this project draws."""

from __future__ import annotations

import functools
import os
from functools import cache
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from bench.rng import numpy_generator
from bench.suite import Prompt
from benchmarks.metrics.ocr_rapid import RapidOCRAccuracy
from benchmarks.ocr import levenshtein, normalise, ocr_accuracy, wanted_text
from data_curation.world import scene as S
from data_curation.world.render import render

FONT = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@cache
def reference(a: str, b: str) -> int:
    """Edit distance by its recursive definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(reference(a[1:], b) + 1, reference(a, b[1:]) + 1, reference(a[1:], b[1:]) + (a[0] != b[0]))


def test_the_engine_takes_no_more_threads_than_a_process_has_cores(monkeypatch):
    import rapidocr_onnxruntime

    given = {}
    monkeypatch.setattr(rapidocr_onnxruntime, "RapidOCR", lambda **settings: given.update(settings))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    RapidOCRAccuracy().prepare()
    assert given["intra_op_num_threads"] == 2


def test_levenshtein_is_the_edit_distance():
    words = ["".join(letters) for n in range(4) for letters in product("ab", repeat=n)]
    words += ["kitten", "sitting", "", "flaw", "lawn", "abcabc"]
    assert all(levenshtein(a, b) == reference(a, b) for a in words for b in words)


@pytest.mark.parametrize(
    ("read", "wanted", "expected"),
    [
        ("note", "note", 1.0),
        ("NOTE", "note", 1.0),
        ("n o te", "No Te", 1.0),
        ("thenotebook", "note", 1.0),  # a substring counts as right
        ("nose", "note", 0.75),
        ("not", "note", 0.75),
        ("xx", "note", 0.0),
        ("", "note", 0.0),
        ("something long and wrong", "no", 0.0),  # the distance is capped by the length
    ],
)
def test_the_formula_by_hand(read, wanted, expected):
    assert ocr_accuracy(read, wanted) == expected


def test_the_formula_stays_between_0_and_1_and_follows_the_protocol():
    rng = np.random.default_rng(0)
    for _ in range(300):
        read, wanted = ("".join(rng.choice(list("abcAB "), size)) for size in (rng.integers(0, 8), rng.integers(1, 6)))
        if not normalise(wanted):
            continue
        a, b = read.lower().replace(" ", ""), wanted.lower().replace(" ", "")
        distance = 0 if b in a else min(reference(a, b), len(b))
        assert ocr_accuracy(read, wanted) == 1 - distance / len(b)


def test_the_wanted_text_stands_in_the_first_quotes():
    assert wanted_text('a sign saying "note"') == "note"
    assert wanted_text('"New York" and "Paris"') == "New York"


@pytest.mark.parametrize(
    "prompt",
    [
        "a red circle",
        'a "half quote',
        'empty "" quotes',
        'blank " " quotes',
        'an empty "" and "more"',
        "single 'quotes'",
    ],
)
def test_a_prompt_without_quoted_text_is_refused(prompt):
    with pytest.raises(ValueError, match="no text in double quotes"):
        wanted_text(prompt)


@pytest.fixture(scope="module")
def metric():
    """The metric with an engine of one thread."""
    import rapidocr_onnxruntime

    engine = functools.partial(rapidocr_onnxruntime.RapidOCR, intra_op_num_threads=1, inter_op_num_threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rapidocr_onnxruntime, "RapidOCR", engine)
        made = RapidOCRAccuracy()
        made.prepare()  # loads it
        yield made


@pytest.fixture(scope="module")
def signs() -> tuple[list[np.ndarray], list[Prompt]]:
    """Twenty signs of all lengths and styles, half of them held-out words."""
    rng = numpy_generator(0, "test-ocr")
    prompts = S.all_prompts("sign")
    halves = [[p for p in prompts if p.held_out is held_out] for held_out in (True, False)]
    picked = [half[i] for half in halves for i in rng.choice(len(half), 10, replace=False)]
    pictures = [render(S.compose(prompt, rng)) for prompt in picked]
    return pictures, [Prompt(str(i), p.text, "sign", {"word": p.word}) for i, p in enumerate(picked)]


def test_the_engine_reads_95_percent_of_rendered_signs(metric, signs):
    assert np.mean(np.array(metric.score(*signs)) == 1.0) >= 0.95


def test_the_engine_marks_wrong_words_down(metric, signs):
    pictures, prompts = signs
    wrong = metric.score(pictures[:5], [Prompt(p.id, 'a sign saying "zyxw"') for p in prompts[:5]])
    assert max(wrong) <= 0.25


def test_an_empty_picture_reads_as_nothing(metric):
    assert metric.read(np.full((64, 64, 3), 190, np.uint8)) == ""
    assert metric.score([np.full((64, 64, 3), 190, np.uint8)], [Prompt("0", 'a sign saying "no"')]) == [0.0]


def test_a_picture_of_the_papers_size_is_not_shrunk(metric):
    """Letters of 12 px on 512 px would be 6 px at half the size, which the engine does not read."""
    text = "Exit 47"
    picture = Image.new("RGB", (512, 512), (185, 190, 180))
    ImageDraw.Draw(picture).text((60, 300), text, fill=(20, 30, 60), font=ImageFont.truetype(FONT, 12))
    prompt = Prompt("0", f'a sign saying "{text}"')
    assert metric.score([np.asarray(picture)], [prompt]) == [1.0]
    half = picture.resize((256, 256), Image.Resampling.BICUBIC)
    assert metric.score([np.asarray(half)], [prompt])[0] < 1.0


def test_released_it_loads_its_engine_again(monkeypatch):
    loaded = []
    engine = lambda picture: ([[None, "note"]], None)  # noqa: E731
    monkeypatch.setattr("rapidocr_onnxruntime.RapidOCR", lambda **_: loaded.append(1) or engine)
    metric, picture = RapidOCRAccuracy(), np.zeros((256, 256, 3), np.uint8)
    assert [metric.read(picture), metric.read(picture)] == ["note", "note"] and len(loaded) == 1
    metric.release()
    assert len(loaded) == 1
    assert metric.read(picture) == "note" and len(loaded) == 2
