"""GenEval's prompt and class files: what is read from them, and what is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawn import one_line

from benchmarks import geneval_detector, geneval_prompts

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL, REAL_CLASSES = DATA / "geneval_evaluation_metadata.jsonl", DATA / "geneval_object_names.txt"


def entries() -> list[dict[str, Any]]:
    """553 lines of the real file's layout about made-up things."""
    clauses: dict[str, dict[str, Any]] = {
        "single_object": {"include": [{"class": "cat", "count": 1}]},
        "two_object": {"include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1}]},
        "counting": {"include": [{"class": "cat", "count": 2}], "exclude": [{"class": "cat", "count": 3}]},
        "colors": {"include": [{"class": "cat", "count": 1, "color": "red"}]},
        "position": {"include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["above", 0]}]},
        "color_attr": {"include": [{"class": "cat", "count": 1, "color": "red"}]},
    }
    return [
        {"tag": tag, "prompt": f"a photo, {tag} {number}"} | clauses[tag]
        for tag, count in geneval_prompts.TASKS.items()
        for number in range(count)
    ]


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_prompts_keep_their_order_task_and_facts(tmp_path: Path) -> None:
    prompts = geneval_prompts.read(write(tmp_path / "prompts.jsonl", entries()))
    assert [prompt.id for prompt in prompts] == [f"{number:05d}" for number in range(553)]
    assert prompts[0].text == "a photo, single_object 0"
    assert prompts[0].group == "single_object"
    assert prompts[0].facts == {"include": [{"class": "cat", "count": 1}]}
    counted = next(prompt for prompt in prompts if prompt.group == "counting")
    assert counted.facts["exclude"] == [{"class": "cat", "count": 3}]


@pytest.mark.skipif(not REAL.exists(), reason="GenEval's prompts are not beside this checkout")
def test_the_real_file_is_read() -> None:
    prompts = geneval_prompts.read(REAL)
    assert (prompts[0].text, prompts[0].group) == ("a photo of a bench", "single_object")
    assert len({prompt.text for prompt in prompts}) == 553
    assert sum("exclude" in prompt.facts for prompt in prompts) == 80
    names = set(geneval_detector.read_class_names(REAL_CLASSES))
    assert {clause["class"] for prompt in prompts for clause in prompt.facts["include"]} <= names


def without(*path: Any) -> Callable[[list[Any]], None]:
    def change(lines: list[Any]) -> None:
        place = lines
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return change


def with_value(value: Any, *path: Any) -> Callable[[list[Any]], None]:
    def change(lines: list[Any]) -> None:
        place = lines
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(0), "it holds 552 prompts (79 single_object, 99 two_object, 80 counting, 94 colors, 100 position"),
        (with_value("colors", 0, "tag"), "it holds 553 prompts (79 single_object"),
        (with_value("mood", 3, "tag"), "line 4 is no prompt with its facts"),
        (with_value("not an entry", 1), "line 2 is no prompt"),
        (with_value("", 1, "prompt"), "line 2 is no prompt"),
        (without(2, "include"), "line 3 is no prompt"),
        (with_value([], 2, "include"), "line 3 is no prompt"),
        (with_value(0, 5, "include", 0, "count"), "line 6 is no prompt"),
        (with_value("two", 5, "include", 0, "count"), "line 6 is no prompt"),
        (without(5, "include", 0, "class"), "line 6 is no prompt"),
        (with_value("teal", 300, "include", 0, "color"), "line 301 is no prompt"),
        (with_value(["beside", 0], 400, "include", 1, "position"), "line 401 is no prompt"),
        (with_value(["above", 1], 400, "include", 1, "position"), "line 401 is no prompt"),
        (with_value(["above", -1], 400, "include", 1, "position"), "line 401 is no prompt"),
        (without(200, "exclude", 0, "count"), "line 201 is no prompt"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, change: Callable[[list[Any]], None], said: str) -> None:
    lines = json.loads(json.dumps(entries()))
    change(lines)
    message = one_line(lambda: geneval_prompts.read(write(tmp_path / "prompts.jsonl", lines)))
    assert f"{tmp_path / 'prompts.jsonl'} is not GenEval's 553 prompts" in message
    assert said in message
    assert message.endswith("run `bench assets fetch geneval_prompts`")


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text("404: Not Found")
    assert "line 1 is no prompt" in one_line(lambda: geneval_prompts.read(tmp_path / "prompts.jsonl"))


@pytest.mark.parametrize("names", [79, 81])
def test_another_list_of_classes_is_refused(tmp_path: Path, names: int) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(f"thing {number}" for number in range(names)))
    assert f"holds {names} lines and not GenEval's 80" in one_line(lambda: geneval_detector.read_class_names(path))


def test_a_class_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(["thing"] * 80))
    one_line(lambda: geneval_detector.read_class_names(path))
