"""The OCR prompt set: ids, the text to draw, and one line for another file."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn import one_line

from bench import assets
from benchmarks.ocr import wanted_text
from benchmarks.ocr_prompts import read

SHARED = Path(__file__).parents[3] / "shared" / "data"
with_the_file = pytest.mark.skipif(not SHARED.is_dir(), reason="the prompt file is not beside this checkout")


def lines(**changed: str) -> list[str]:
    """1,018 prompts; ``line_7="…"`` replaces the seventh."""
    return [changed.get(f"line_{n}", f'A sign that says "Word {n}", "again"') for n in range(1, 1019)]


def write(path: Path, texts: list[str], end: str = "\n") -> Path:
    path.write_text("\n".join(texts) + end, encoding="utf-8")
    return path


@pytest.mark.parametrize("end", ["", "\n"])
def test_prompts_keep_the_files_order_and_hold_the_first_quoted_text(tmp_path: Path, end: str) -> None:
    prompts = read(write(tmp_path / "p.txt", lines(), end))
    assert len(prompts) == 1018
    assert [(p.id, p.facts) for p in (prompts[0], prompts[1017])] == [
        ("0000", {"word": "Word 1"}),
        ("1017", {"word": "Word 1018"}),
    ]
    assert prompts[3].text == 'A sign that says "Word 4", "again"'


@pytest.mark.parametrize(
    "text", ["A sign", 'A "half quote', 'Empty "" quotes', 'Blank " " quotes', "A 'single' quote", ""]
)
def test_a_prompt_without_quotes_is_named_by_its_line(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "p.txt", lines(line_7=text))
    assert one_line(lambda: read(path)) == (
        f"{path}, line 7: the prompt {text!r} has no text in double quotes; run `bench assets fetch ocr_prompts`"
    )


@pytest.mark.parametrize(("texts", "count"), [(lines()[:-1], 1017), ([*lines(), 'One "more"'], 1019), ([], 1)])
def test_a_file_of_another_length_is_refused(tmp_path: Path, texts: list[str], count: int) -> None:
    path = write(tmp_path / "p.txt", texts)
    assert one_line(lambda: read(path)) == (
        f"{path} holds {count} lines instead of 1018 OCR prompts; run `bench assets fetch ocr_prompts`"
    )


@with_the_file
def test_every_prompt_of_the_release_asks_for_what_the_release_reads(tmp_path: Path) -> None:
    """flow_grpo @ ac4c86e, ``flow_grpo/ocr.py``: ``prompt.split('"')[1]``."""
    prompts = read(assets.fetch("ocr_prompts", tmp_path, SHARED))
    assert prompts[1017].facts == {"word": "Mars Colony One"}
    for prompt in prompts:
        assert prompt.facts["word"] == wanted_text(prompt.text) == prompt.text.split('"')[1]
    assert len({prompt.text for prompt in prompts}) == 1018
