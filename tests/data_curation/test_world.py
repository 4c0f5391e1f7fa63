"""The shape world: a function of its seed, true to its captions, with a style that no caption mentions."""

from __future__ import annotations

import colorsys
import errno
import json
import os

import numpy as np
import pytest

from bench.records import DiskFull
from bench.rng import numpy_generator
from data_curation.world import corpus as C
from data_curation.world import scene as S
from data_curation.world import vocabulary as V
from data_curation.world.render import SIZE, render, shape_mask

TAGS = (*V.TASKS, "sign")


@pytest.fixture(scope="module")
def scenes() -> list[S.Scene]:
    prompts = S.TrainingPrompts()
    return [C.training_scene(5, i, prompts) for i in range(200)]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> C.WorldCorpus:
    return C.WorldCorpus(tmp_path_factory.mktemp("cache"), size=24, seed=5)


# -- scenes ------------------------------------------------------------------------------------------------------------


def test_a_scene_is_a_function_of_seed_and_index(scenes):
    prompts = S.TrainingPrompts()
    for index in (199, 3, 77):  # in any order, from a fresh state
        assert C.training_scene(5, index, prompts) == scenes[index]
    assert C.training_scene(6, 3, prompts) != scenes[3]


def test_a_picture_is_a_function_of_its_scene(scenes):
    for s in scenes[:20]:
        picture = render(s)
        assert picture.shape == (SIZE, SIZE, 3) and picture.dtype == np.uint8
        assert (render(s) == picture).all()


def test_composing_draws_from_the_given_generator_only():
    prompt, state = S.all_prompts("two_object")[0], np.random.get_state()[1].copy()
    assert S.compose(prompt, numpy_generator(1, "x")) == S.compose(prompt, numpy_generator(1, "x"))
    assert (np.random.get_state()[1] == state).all()


def test_a_scene_shows_what_its_caption_says(scenes):
    for s in scenes:
        clauses = [clause for clause in s.prompt.include for _ in range(clause["count"])]
        assert [t.shape for t in s.things] == [clause["class"] for clause in clauses]
        assert all(t.color == clause.get("color", t.color) for t, clause in zip(s.things, clauses, strict=True))
        if s.prompt.tag == "position":
            target, placed = s.things
            relation = s.prompt.include[1]["position"][0]
            assert relation in s.prompt.text
            across = {"left of": target.y - placed.y, "above": target.x - placed.x}
            across |= {"right of": across["left of"], "below": across["above"]}
            offset = {"left of": target.x - placed.x, "right of": placed.x - target.x}
            offset |= {"above": target.y - placed.y, "below": placed.y - target.y}
            assert offset[relation] > 16 and abs(across[relation]) <= offset[relation] / 2


def test_two_things_named_apart_are_coloured_apart_and_a_counted_group_is_not(scenes):
    for s in scenes:
        colors = {t.color for t in s.things}
        if s.prompt.tag in ("two_object", "position", "color_attr"):
            assert len(colors) == 2
        if s.prompt.tag == "counting":
            assert len(colors) == 1


def test_named_sizes_and_places_are_drawn():
    radii: dict[str, list[float]] = {}
    for number, prompt in enumerate(S.all_prompts("single_object")):
        (thing,) = S.compose(prompt, numpy_generator(number, "test-places")).things
        clause = prompt.include[0]
        radii.setdefault(clause.get("size", ""), []).append(thing.radius)
        if "place" in clause:
            offset = np.array([thing.x, thing.y]) - SIZE / 2
            named = np.array(V.PLACES[clause["place"]])
            assert (named * offset >= 0).all() and np.abs(offset[named != 0]).min() > 5, prompt.text
            assert (np.abs(offset[named == 0]) < np.abs(offset[named != 0]).min()).all(), prompt.text
    assert max(radii["small"]) < min(radii[""]) and max(radii[""]) < min(radii["big"]) and min(radii["small"]) > 9


def test_things_move_by_several_pixels():
    for tag in V.TASKS:
        prompt = S.all_prompts(tag)[0]
        first = [S.compose(prompt, numpy_generator(i, "test-moves"), style=0.2).things[0] for i in range(60)]
        assert np.std([t.x for t in first]) + np.std([t.y for t in first]) > 3, tag
    signs = [S.compose(S.all_prompts("sign")[0], numpy_generator(i, "test-moves")).sign_y for i in range(60)]
    assert np.std(signs) > 2 and min(signs) >= 20 and max(signs) <= 44


def test_silhouettes_and_hues_are_apart():
    """Of two shapes at one place and radius, at most 85 of 100 pixels are common: a circle and a square have most."""
    masks = [shape_mask(shape, 32, 32, 24) > 0.5 for shape in V.SHAPES]
    overlaps = [(a & b).sum() / (a | b).sum() for i, a in enumerate(masks) for b in masks[:i]]
    assert len(overlaps) == 66 and max(overlaps) < 0.85 and np.sort(overlaps)[-4] < 0.75
    hues = sorted(360 * colorsys.rgb_to_hsv(*(v / 255 for v in color))[0] for color in V.COLORS.values())
    assert min(b - a for a, b in zip(hues, [*hues[1:], hues[0] + 360], strict=True)) >= 24


def test_things_stay_in_the_picture_and_apart():
    rng = numpy_generator(0, "test-world")
    for tag in V.TASKS:
        prompts = S.all_prompts(tag)
        for i in rng.integers(len(prompts), size=40):
            total = [shape_mask(t.shape, t.x, t.y, t.radius) for t in S.compose(prompts[i], rng).things]
            for mask in total:
                whole = shape_mask("square", SIZE / 2, SIZE / 2, 100)
                assert mask.sum() > 50 and (mask <= whole).all()
                edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
                assert edge.max() == 0, prompts[i].text
            assert (sum(mask > 0.5 for mask in total) <= 1).all(), prompts[i].text


def test_the_world_is_as_large_as_asked_for():
    assert (len(V.SHAPES), len(V.COLORS), max(V.COUNTS)) == (12, 10, 5)
    assert all(2 <= len(word) <= 4 for word in V.TRAIN_WORDS + V.TEST_WORDS)
    assert not set(V.TRAIN_WORDS) & set(V.TEST_WORDS)
    assert len(set(V.TRAIN_WORDS)) == len(V.TRAIN_WORDS) and len(set(V.TEST_WORDS)) == len(V.TEST_WORDS)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="unknown task 'colour'; tasks are"):
        S.all_prompts("colour")


# -- style -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", TAGS)
def test_style_changes_the_picture_and_not_the_caption(tag):
    s = S.compose(S.all_prompts(tag)[0], numpy_generator(0, "x"), style=0.2)
    restyled = S.restyle(s, 0.9)
    assert (restyled.prompt, restyled.things, restyled.style) == (s.prompt, s.things, 0.9)
    difference = np.abs(render(restyled).astype(int) - render(s).astype(int))
    assert difference.mean() > 3 and (difference.max(-1) > 0).mean() > 0.5


def test_a_fixed_style_leaves_the_content_to_the_generator():
    prompt = S.all_prompts("color_attr")[17]
    for style in (0.0, 0.5, 1.0):
        s = S.compose(prompt, numpy_generator(2, "x"), style=style)
        assert s.style == style and s.prompt == prompt


def test_styles_of_the_corpus_cover_0_to_1(scenes):
    styles = np.array([s.style for s in scenes])
    assert 0 <= styles.min() < 0.1 and 0.9 < styles.max() <= 1
    assert abs(styles.mean() - 0.5) < 5 / np.sqrt(12 * len(styles))


def test_no_caption_mentions_style():
    allowed = {"a", "and", "of", "left", "right", "above", "below", "sign", "saying"} - {""}
    allowed |= {"near", "the", "top", "bottom"}
    allowed |= set(V.SHAPES) | set(V.PLURALS.values()) | set(V.COLORS) | set(V.COUNTS.values()) | set(V.SIZES)
    for tag in V.TASKS:
        assert {word for p in S.all_prompts(tag) for word in p.text.split()} <= allowed
    for prompt in S.all_prompts("sign"):
        assert prompt.text == f'a sign saying "{prompt.word}"'


def test_style_is_independent_of_the_caption(scenes):
    """Knowing the task tells nothing of the style."""
    for tag in ("position", "sign", "counting"):
        styles = [s.style for s in scenes if s.prompt.tag == tag]
        assert abs(np.mean(styles) - 0.5) < 4 / np.sqrt(12 * len(styles))


# -- corpus ------------------------------------------------------------------------------------------------------------


def test_the_corpus_holds_the_scenes_of_its_seed(world, scenes):
    assert len(world) == 24 and world.problems() == []
    for i in range(24):
        assert world.caption(i) == scenes[i].prompt.text
        assert (world.image(i) == render(scenes[i])).all()
        assert world.rows[i]["style"] == pytest.approx(scenes[i].style, abs=1e-6)


def test_the_corpus_is_rendered_once(world, tmp_path, monkeypatch):
    first = C.render_corpus(tmp_path, 8, 3)
    monkeypatch.setattr(C, "ProcessPoolExecutor", None)  # rendering again would break
    assert C.render_corpus(tmp_path, 8, 3) == first
    assert sorted(p.name for p in first.iterdir()) == ["images.npy", "rows.jsonl"]


def test_a_corpus_that_was_cut_short_is_rendered_again(tmp_path):
    folder = C.render_corpus(tmp_path, 8, 3)
    images, rows = (folder / "images.npy").read_bytes(), (folder / "rows.jsonl").read_bytes()
    (folder / "rows.jsonl").unlink()
    (folder / "images.npy").write_bytes(images[:100])
    C.render_corpus(tmp_path, 8, 3)
    assert (folder / "images.npy").read_bytes() == images and (folder / "rows.jsonl").read_bytes() == rows
    assert [json.loads(line)["task"] for line in rows.decode().splitlines()]


@pytest.mark.parametrize("file", ["images.npy", "rows.jsonl"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_corpus_is_rendered_anew_and_said(tmp_path, capsys, file, damage):
    path = C.render_corpus(tmp_path, 8, 3) / file
    whole = path.read_bytes()
    capsys.readouterr()
    match damage:
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "flip":
            path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 4]) + whole[-1:])
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
    C.render_corpus(tmp_path, 8, 3)
    assert path.read_bytes() == whole
    said = capsys.readouterr().err
    assert f"{file} is damaged or not there; the corpus is rendered anew" in said.replace("\n", "")


@pytest.mark.parametrize("content", ["", "[]", "{}", "3", '{"images.npy": "x"}', "[" * 9999])
def test_damaged_hashes_of_a_corpus_are_made_anew(tmp_path, content):
    folder = C.render_corpus(tmp_path, 8, 3)
    (hashes,) = tmp_path.glob("*.json")
    whole = hashes.read_text()
    hashes.write_text(content)
    assert C.render_corpus(tmp_path, 8, 3) == folder and hashes.read_text() == whole


def test_rows_of_an_older_cache_without_hashes_are_rendered_anew(tmp_path):
    folder = C.render_corpus(tmp_path, 8, 3)
    whole = (folder / "images.npy").read_bytes()
    (hashes,) = tmp_path.glob("*.json")
    hashes.unlink()
    (folder / "images.npy").write_bytes(whole[:-1] + b"\0")
    C.render_corpus(tmp_path, 8, 3)
    assert (folder / "images.npy").read_bytes() == whole and hashes.exists()


def test_a_full_disk_ends_in_one_line_and_leaves_no_half_of_a_corpus(tmp_path, monkeypatch):
    """Through ordinary writes: a memory map of a file without its space ends the process by SIGBUS."""

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "open_memmap", None)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match=r"the disk is full"):
        C.render_corpus(tmp_path, 8, 3)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_fingerprints_tell_corpora_apart(world, tmp_path):
    same, other = C.WorldCorpus(tmp_path, size=24, seed=5), C.WorldCorpus(tmp_path, size=24, seed=6)
    assert same.fingerprint == world.fingerprint != other.fingerprint
    assert [same.key(i) for i in range(24)] == [world.key(i) for i in range(24)]
    assert same.key(0) != other.key(0) and len({world.key(i) for i in range(24)}) == 24


def test_an_image_is_a_copy(world):
    before = world.image(0)
    world.image(0)[:] = 0
    assert (world.image(0) == before).all()
