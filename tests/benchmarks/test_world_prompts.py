"""Test prompts of the shape world: held out in combination, made of known words, and always the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.rng import numpy_generator
from benchmarks import world_prompts
from benchmarks.suites import embedded, smoke
from data_curation.world import scene as S
from data_curation.world import vocabulary as V

TAGS = (*V.TASKS, "sign")


def combinations(prompt: S.ScenePrompt) -> Iterator[tuple[object, ...]]:
    """Everything that a caption combines, worked out anew from its clauses."""
    if prompt.word is not None:
        yield ("word", prompt.word)
    shapes = [clause["class"] for clause in prompt.include]
    if len(shapes) == 2:
        yield ("pair", frozenset(shapes))
    for clause in prompt.include:
        if "color" in clause:
            yield ("colour", clause["color"], clause["class"])
        if clause["count"] > 1:
            yield ("count", clause["count"], clause["class"])
        if "size" in clause:
            yield ("size", clause["size"], clause["class"])
        if "place" in clause:
            yield ("place", clause["place"], clause["class"])


def words(text: str) -> set[str]:
    """Words of a caption; a word on a sign is letters and its length."""
    sign = re.fullmatch(r'a sign saying "(\w+)"', text)
    return {"sign", "saying", *sign.group(1), f"{len(sign.group(1))} letters"} if sign else set(text.split())


@pytest.fixture(scope="module")
def training() -> list[S.ScenePrompt]:
    """Every prompt that a training scene can have."""
    return [p for prompts in S.TrainingPrompts().prompts.values() for p in prompts]


@pytest.fixture(scope="module")
def testing() -> list[Any]:
    return [p for tag in TAGS for p in world_prompts.held_out(tag, 10**6)]


def by_text() -> dict[str, S.ScenePrompt]:
    return {p.text: p for tag in TAGS for p in S.all_prompts(tag)}


def test_prompts_of_a_task_have_different_texts():
    for tag in TAGS:
        texts = [p.text for p in S.all_prompts(tag)]
        assert len(set(texts)) == len(texts)


def test_the_page_says_how_many_prompts_each_task_has():
    page = (Path(__file__).parents[2] / "docs" / "embedded-world.md").read_text(encoding="utf-8")
    for tag in TAGS:
        prompts = list(S.all_prompts(tag))
        row = next(line for line in page.splitlines() if line.startswith(f"| `{tag}` |"))
        counts = [int(cell.replace(",", "")) for cell in row.split("|")[3:5]]
        assert counts == [len(prompts), sum(prompt.held_out for prompt in prompts)], tag


def test_every_test_prompt_is_held_out_and_no_training_prompt_is(training, testing):
    known = by_text()
    assert all(known[p.text].held_out for p in testing)
    assert not any(p.held_out for p in training)
    assert len(training) + len(testing) == sum(len(S.all_prompts(tag)) for tag in TAGS)


def test_drawn_training_prompts_are_never_held_out():
    prompts, rng = S.TrainingPrompts(), numpy_generator(0, "test-prompts")
    drawn = [prompts.draw(rng) for _ in range(3000)]
    assert not any(p.held_out for p in drawn)
    assert {p.tag for p in drawn} == set(TAGS) == set(S.TASK_WEIGHTS)
    assert sum(S.TASK_WEIGHTS.values()) == pytest.approx(1)


def test_every_test_prompt_combines_what_training_never_combines(training, testing):
    trained, known = {c for p in training for c in combinations(p)}, by_text()
    for prompt in testing:
        assert set(combinations(known[prompt.text])) - trained, prompt.text


def test_every_word_of_a_test_prompt_is_known_from_training(training, testing):
    known = {word for p in training for word in words(p.text)}
    assert {word for p in testing for word in words(p.text)} <= known


def test_every_shape_and_colour_and_relation_is_tested_and_trained(training, testing):
    for prompts in (training, testing):
        seen = {word for p in prompts for word in words(p.text)}
        assert set(V.SHAPES) | set(V.COLORS) | set(V.COUNTS.values()) | {"left", "right", "above", "below"} <= seen


def test_prompts_are_the_same_every_time_and_a_longer_set_starts_with_a_shorter_one():
    for tag in TAGS:
        ten = world_prompts.held_out(tag, 10)
        assert ten == world_prompts.held_out(tag, 10)
        assert world_prompts.held_out(tag, 5) == ten[:5]
        assert [p.id for p in ten] == [f"{tag}-{i:03d}" for i in range(len(ten))]


def test_another_seed_gives_another_order():
    assert world_prompts.held_out("position", 10, seed=1) != world_prompts.held_out("position", 10)


def test_facts_are_the_scenes_own():
    known = by_text()
    for prompt in world_prompts.geneval(4):
        truth = known[prompt.text]
        assert prompt.facts == {"include": truth.include, "exclude": truth.exclude} and prompt.group == truth.tag
    for prompt in world_prompts.signs(4):
        assert prompt.facts == {"word": known[prompt.text].word} and f'"{prompt.facts["word"]}"' in prompt.text


def test_all_tasks_are_there_in_equal_parts():
    groups = [p.group for p in world_prompts.geneval(80)]
    assert {tag: groups.count(tag) for tag in V.TASKS} == dict.fromkeys(V.TASKS, 80)


def test_every_word_of_a_kind_loses_as_many_partners_as_any_other_or_one_fewer():
    patterns = (V.HELD_OUT_BINDINGS, V.HELD_OUT_COUNTS, V.HELD_OUT_SIZES, V.HELD_OUT_PLACES, V.HELD_OUT_PAIRS)
    kinds = [V.COLORS, V.COUNTS, [size for size in V.SIZES if size], [place for place in V.PLACES if place], V.SHAPES]
    for pattern, kind in zip(patterns, kinds, strict=True):
        for words in (kind, V.SHAPES):
            lost = [sum(word in pair for pair in pattern) for word in words]
            assert max(lost) - min(lost) <= 1 and max(lost) > 0


@pytest.mark.parametrize("suite", [embedded.suite(), smoke.suite()], ids=["embedded", "smoke"])
def test_a_suite_names_every_image_and_gives_every_image_its_own_noise(suite):
    for prompts in suite.prompt_sets:
        ids = [p.id for p in prompts.prompts]
        assert len(set(ids)) == len(ids) == len({p.text for p in prompts.prompts})
    seeds = [
        suite.noise_seed(s.name, p, repeat) for s in suite.prompt_sets for p in s.prompts for repeat in range(s.repeats)
    ]
    assert len(set(seeds)) == len(seeds)
    metrics = [name for name, _ in suite.metrics()]
    assert len(set(metrics)) == len(metrics) and set(suite.roles.values()) <= set(metrics)
