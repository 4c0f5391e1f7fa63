"""Held-out pairs: no method gets them, their keys alone choose them, and too few of them are one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import Brightness, FakeCorpus

from bench.cli import main
from bench.corpus import Manifest
from bench.errors import BenchError
from bench.suite import Prompt
from data_curation.curate import cut
from data_curation.holdout import alike, hold_out
from data_curation.subsets import ALL, HIGH_AESTHETIC, RANDOM
from data_curation.world.corpus import WorldCorpus, WorldHoldout


@pytest.fixture
def corpus() -> FakeCorpus:
    return FakeCorpus(size=10)


def cut_all(corpus: FakeCorpus, cache: Path, holdout: int = 0) -> Manifest:
    return cut(corpus, ALL, None, cache, holdout=holdout)


def test_the_pairs_of_the_least_keys_are_kept_from_training(corpus, tmp_path):
    whole, less = cut_all(corpus, tmp_path), cut_all(corpus, tmp_path, 3)
    assert whole.held_out is None and whole.count == 10
    assert less.held_out is not None and less.count == 7 and less.held_out.count == 3
    assert less.held_out.keys == tuple(sorted(whole.keys)[:3])
    assert sorted(less.indices + less.held_out.indices) == list(range(10))
    assert [corpus.key(index) for index in less.held_out.indices] == list(less.held_out.keys)
    assert len({whole.content_hash, less.content_hash, less.held_out.content_hash}) == 3
    assert whole.path != less.path and cut_all(corpus, tmp_path, 3) == less


def test_more_held_out_pairs_hold_those_of_fewer(corpus, tmp_path):
    two, five = (cut_all(corpus, tmp_path, count).held_out for count in (2, 5))
    assert two and five and five.keys[:2] == two.keys


@pytest.mark.parametrize("count", [10, 11])
def test_something_is_left_to_train_on(corpus, tmp_path, count):
    with pytest.raises(BenchError, match=rf"^all has 10 pairs of fake, and {count} of them are to be held out; "):
        cut_all(corpus, tmp_path, count)


def test_a_manifest_without_the_part_and_one_with_too_few_are_one_line(corpus, tmp_path):
    before, part = cut_all(corpus, tmp_path), cut_all(corpus, tmp_path, 3)
    with pytest.raises(BenchError, match=r"manifest\.json names no held-out pairs; cut it again with --holdout$"):
        hold_out(corpus, before, ALL, None, tmp_path, count=3, at_most=9)
    with pytest.raises(BenchError, match=r"^fake has 3 held-out pairs of all, and 4 are asked for; give a "):
        hold_out(corpus, part, ALL, None, tmp_path, count=4, at_most=9)
    source, found = hold_out(corpus, part, ALL, None, tmp_path, count=3, at_most=2)
    assert source is corpus and part.held_out and found.keys == part.held_out.keys[:2] and found.count == 2


class TwoSizes(FakeCorpus):
    """Every third picture is wide."""

    def size(self, index: int) -> tuple[int, int]:
        return (32, 8) if index % 3 == 0 else (16, 16)


def test_pairs_of_training_stand_beside_those_that_are_held_out(tmp_path, monkeypatch):
    """As many, of one size, and those whose keys are least: neither order nor score decides."""
    corpus = TwoSizes(size=20)
    monkeypatch.setattr(
        corpus, "image", lambda index: FakeCorpus.image(corpus, index).reshape(*corpus.size(index)[::-1], 3)
    )
    manifest = cut(corpus, ALL, None, tmp_path, holdout=4)
    _, found = hold_out(corpus, manifest, ALL, None, tmp_path, count=4, at_most=3)
    known = alike(manifest, found)
    of_size = [key for key, size in zip(manifest.keys, manifest.sizes, strict=True) if size == found.sizes[0]]
    assert known.keys == tuple(sorted(of_size)[: found.count]) and known.count == found.count > 1
    assert not set(known.keys) & set(manifest.held_out.keys) and known.content_hash != manifest.content_hash


def test_pairs_that_are_read_together_are_of_one_size(tmp_path, monkeypatch):
    corpus = TwoSizes(size=10)
    monkeypatch.setattr(
        corpus, "image", lambda index: FakeCorpus.image(corpus, index).reshape(*corpus.size(index)[::-1], 3)
    )
    part = cut(corpus, ALL, None, tmp_path, holdout=8)
    _, found = hold_out(corpus, part, ALL, None, tmp_path, count=8, at_most=9)
    assert set(found.sizes) == {(16, 16)} and 0 < found.count < 8


class Known(TwoSizes):
    """One whose held-out pairs are fresh ones of the shape world, of which the first is in the subset too."""

    holdout = "world_holdout"

    def size(self, index: int) -> tuple[int, int]:
        return (64, 64)


def test_fresh_pairs_are_none_that_are_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(WorldHoldout.__init__, "__defaults__", (6, 1))
    fresh = WorldHoldout(tmp_path)
    manifest = cut_all(FakeCorpus(size=4), tmp_path)
    object.__setattr__(manifest, "keys", (fresh.key(0), *manifest.keys[1:]))
    source, found = hold_out(Known(), manifest, ALL, None, tmp_path, count=5, at_most=9)
    assert source.name == "world_holdout" and found.indices == (1, 2, 3, 4, 5)


def test_all_fresh_pairs_are_of_the_kind_of_a_subset_that_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(WorldHoldout.__init__, "__defaults__", (8, 1))
    manifest = cut(FakeCorpus(size=4), RANDOM, None, tmp_path, quantile=0.5)
    _, found = hold_out(Known(), manifest, RANDOM, None, tmp_path, count=8, at_most=9)
    assert found.count == 8


def test_fresh_scenes_of_the_world_are_others_of_its_kind(tmp_path):
    trained, fresh = WorldCorpus(tmp_path, size=40), WorldHoldout(tmp_path, size=40)
    assert WorldCorpus.holdout == "world_holdout" and trained.fingerprint != fresh.fingerprint
    assert not {trained.key(i) for i in range(40)} & {fresh.key(i) for i in range(40)}
    assert {trained.tags(i)["task"] for i in range(40)} == {fresh.tags(i)["task"] for i in range(40)}


def test_the_command_says_how_many_are_held_out(tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
    command = ["curate", "--corpus", str(folder), "--subset", "all", "--holdout", "1", "--cache", str(tmp_path / "c")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0 and "all: 3 of 4 pairs and 1 held out" in done.output


class Tenths(Brightness):
    """A tenth of the number that is the prompt's id."""

    name = "tenths"

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        return [int(prompt.id) / 10 for prompt in prompts]


def test_a_threshold_that_was_recorded_cuts_fresh_pairs(tmp_path, monkeypatch):
    """The subset's own rule would be a quantile, of the fresh pairs; the same pictures must pass as in training."""
    monkeypatch.setattr(WorldHoldout.__init__, "__defaults__", (10, 1))
    manifest = cut_all(FakeCorpus(size=4), tmp_path)
    object.__setattr__(manifest, "threshold", 0.6)
    _, found = hold_out(Known(), manifest, HIGH_AESTHETIC, Tenths(), tmp_path, count=4, at_most=9)
    assert found.indices == (6, 7, 8, 9)
