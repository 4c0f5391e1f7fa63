"""Exact detection: right on true scenes of all tasks and styles, wrong as soon as the scene is made wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bench.rng import numpy_generator
from benchmarks.geneval_rule import is_correct
from benchmarks.shape_detector import detect
from data_curation.world import scene as S
from data_curation.world import vocabulary as V
from data_curation.world.render import render

PER_TASK = 50


def drawn(per_task: int, seed: int = 0) -> list[S.Scene]:
    """Scenes of every task, prompts and styles drawn at random."""
    rng = numpy_generator(seed, "test-detector")
    prompts = {tag: S.all_prompts(tag) for tag in V.TASKS}
    return [S.compose(prompts[tag][rng.integers(len(prompts[tag]))], rng) for tag in V.TASKS for _ in range(per_task)]


@pytest.fixture(scope="module")
def scenes() -> list[S.Scene]:
    """300 scenes: 50 of each task."""
    return drawn(PER_TASK)


def of(scenes: list[S.Scene], *tags: str) -> list[S.Scene]:
    return [s for s in scenes if s.prompt.tag in tags]


def right(scene: S.Scene) -> bool:
    return is_correct(detect(render(scene)), scene.prompt.include, scene.prompt.exclude)


def with_thing(scene: S.Scene, index: int, **changes: object) -> S.Scene:
    things = list(scene.things)
    things[index] = replace(things[index], **changes)
    return replace(scene, things=tuple(things))


def other(names: tuple[str, ...], taken: str, shift: int) -> str:
    return names[(names.index(taken) + 1 + shift % (len(names) - 1)) % len(names)]


def test_at_least_99_percent_of_true_scenes_are_right(scenes):
    assert len(scenes) == 300
    assert np.mean([right(s) for s in scenes]) >= 0.99


def test_what_is_drawn_is_what_is_found(scenes):
    def exact(s: S.Scene) -> bool:
        found = Counter((d.name, d.color) for d in detect(render(s)))
        return found == Counter((t.shape, t.color) for t in s.things)

    assert np.mean([exact(s) for s in scenes]) >= 0.99


@pytest.mark.parametrize("style", [0.0, 1.0])
def test_style_does_not_decide(scenes, style):
    assert np.mean([right(S.restyle(s, style)) for s in scenes[::3]]) >= 0.99


def test_boxes_are_where_things_are(scenes):
    for s in of(scenes, "colors", "single_object"):
        (thing,), found = s.things, detect(render(s))
        x0, y0, x1, y1 = found[0].box
        assert abs((x0 + x1) / 2 - thing.x) < 2.5 and abs((y0 + y1) / 2 - thing.y) < 0.3 * thing.radius + 1.5
        assert 1.5 * thing.radius < x1 - x0 < 2.3 * thing.radius


def test_confidence_is_an_overlap_and_sorts(scenes):
    for s in scenes[::10]:
        confidences = [d.confidence for d in detect(render(s))]
        assert confidences == sorted(confidences, reverse=True) and all(0.7 < c <= 1 for c in confidences)


def recoloured(scenes: list[S.Scene]) -> list[S.Scene]:
    """Those whose caption names the first thing's colour, with that thing in another one."""
    named = [s for s in scenes if "color" in s.prompt.include[0]]
    return [with_thing(s, 0, color=other(tuple(V.COLORS), s.things[0].color, i)) for i, s in enumerate(named)]


def reshaped(scenes: list[S.Scene]) -> list[S.Scene]:
    """All, with the last thing in another shape."""
    return [with_thing(s, -1, shape=other(V.SHAPES, s.things[-1].shape, i)) for i, s in enumerate(scenes)]


def with_one_fewer(scenes: list[S.Scene]) -> list[S.Scene]:
    return [replace(s, things=s.things[1:]) for s in scenes]


def moved_about(scenes: list[S.Scene]) -> list[S.Scene]:
    """Two things in each other's place."""
    pairs = [(s, *s.things) for s in scenes]
    return [replace(s, things=(replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y))) for s, a, b in pairs]


def with_colours_swapped(scenes: list[S.Scene]) -> list[S.Scene]:
    pairs = [(s, *s.things) for s in scenes]
    return [replace(s, things=(replace(a, color=b.color), replace(b, color=a.color))) for s, a, b in pairs]


def test_another_colour_is_wrong(scenes):
    wrong = recoloured(scenes)
    assert len(wrong) > 100 and {s.prompt.tag for s in wrong} == {"counting", "colors", "color_attr"}
    assert not any(map(right, wrong))


def test_another_shape_is_wrong(scenes):
    assert not any(map(right, reshaped(scenes)))


def test_a_thing_too_few_is_wrong(scenes):
    assert not any(map(right, with_one_fewer(scenes)))


def test_a_thing_too_many_is_wrong_where_things_are_counted():
    rng = numpy_generator(1, "test-detector")
    for n in (2, 3, 4):
        for shape in V.SHAPES:
            uncoloured = (p for p in S.all_prompts("counting") if "color" not in p.include[0])
            prompts = {p.include[0]["count"]: p for p in uncoloured if p.include[0]["class"] == shape}
            assert not right(replace(S.compose(prompts[n + 1], rng), prompt=prompts[n]))


def test_swapped_positions_are_wrong(scenes):
    positions = of(scenes, "position")
    assert len(positions) == PER_TASK and not any(map(right, moved_about(positions)))
    assert all(map(right, moved_about(of(scenes, "two_object")[:20])))  # "and" says nothing of places


def test_swapped_colours_are_wrong(scenes):
    assert not any(map(right, with_colours_swapped(of(scenes, "color_attr"))))


@pytest.mark.slow
def test_thousands_of_scenes_are_right_and_none_that_was_made_wrong():
    true = drawn(500, seed=1)
    assert np.mean([right(s) for s in true]) >= 0.999
    some = true[::5]
    wrong = recoloured(some) + reshaped(some) + with_one_fewer(some)
    wrong += moved_about(of(some, "position")) + with_colours_swapped(of(some, "color_attr"))
    assert len(wrong) > 1500 and not any(map(right, wrong))


@pytest.mark.parametrize("color", V.COLORS)
def test_the_least_shapes_are_found_in_every_colour_and_at_every_place_between_pixels(color):
    for number, shape in enumerate(V.SHAPES):
        x, y = 32 + 0.25 * (number % 4), 32 + 0.25 * (number // 4)
        thing = S.Thing(shape, color, x, y, 8.3)
        found = detect(render(S.Scene(S.ScenePrompt("", "colors"), (thing,), 0.5, 0.0)))
        assert [(d.name, d.color) for d in found] == [(shape, color)]


def test_nothing_is_found_where_nothing_is():
    rng = np.random.default_rng(0)
    assert detect(np.full((64, 64, 3), 190, np.uint8)) == []
    assert detect(rng.integers(0, 256, (64, 64, 3), np.uint8)) == []
    sign = S.compose(S.all_prompts("sign")[0], numpy_generator(0, "sign"))
    assert detect(render(sign)) == []


@pytest.mark.parametrize(
    "patch",
    [
        np.ones((10, 55)),  # a bar
        np.pad(np.zeros((14, 14)), ((0, 6), (6, 0)), constant_values=1),  # an L
        np.pad(np.zeros((10, 20)), ((5, 5), (5, 0)), constant_values=1),  # a C
        np.repeat([[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1]], 6, 0).repeat(6, 1),  # an arch
        np.ones((5, 5)),  # a dot
    ],
    ids=["bar", "L", "C", "arch", "dot"],
)
def test_a_patch_of_colour_is_no_shape(patch):
    picture = np.full((64, 64, 3), 190, np.uint8)
    picture[4 : 4 + len(patch), 4 : 4 + patch.shape[1]][patch == 1] = V.COLORS["red"]
    assert detect(picture) == []
