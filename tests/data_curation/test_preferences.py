"""Preference pairs: which pictures make one, what is left out, and what the world's annotators prefer."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fakes import FakeCorpus
from pairs import lines, noise, parquet, saved_dataset, table

from bench import registry
from bench.corpus import Corpus, Subset
from bench.errors import BenchError
from data_curation.curate import cut
from data_curation.opening import open_corpus
from data_curation.preferences import pair_up
from data_curation.world import scene as S
from data_curation.world.preferences import SHARPNESS, WorldPreferences, preference_scene

ALL = Subset("all")
Rows = Sequence[tuple[str, dict[str, str]]]


class Tagged(FakeCorpus):
    """Noise pictures with these captions and tags."""

    name = "tagged"

    def __init__(self, rows: Rows) -> None:
        super().__init__(size=len(rows))
        self.rows = rows

    def caption(self, index: int) -> str:
        return self.rows[index][0]

    def tags(self, index: int) -> dict[str, str]:
        return self.rows[index][1]


def half(pair: str, preferred: str, caption: str = "a") -> tuple[str, dict[str, str]]:
    return caption, {"pair": pair, "preferred": preferred}


def paired(corpus: Corpus, cache: Path) -> tuple[list[list[int]], list[str]]:
    """The pairs, as indices of the corpus, and what was said."""
    manifest, said = cut(corpus, ALL, None, cache), []
    places = pair_up(corpus, manifest, said.append)
    return [[manifest.indices[place] for place in pair] for pair in places.tolist()], said


# -- pairs of a small corpus -------------------------------------------------------------------------------------------


def test_the_preferred_picture_comes_first_wherever_it_stands(tmp_path):
    corpus = Tagged([half("x", "0"), half("y", "1", "b"), half("x", "1"), half("y", "0", "b")])
    assert paired(corpus, tmp_path) == ([[2, 0], [1, 3]], [])


def test_places_are_those_of_the_manifest_and_not_of_the_corpus(tmp_path):
    corpus = Tagged([half("x", "0"), half("y", "1"), half("y", "0"), half("x", "1")])
    corpus.pictures[1] = corpus.pictures[0]  # a picture that stands in two pairs is in a manifest once
    manifest = cut(corpus, ALL, None, tmp_path)
    assert manifest.indices == (0, 2, 3)
    assert pair_up(corpus, manifest).tolist() == [[2, 0], [0, 1]]


def test_one_picture_may_win_one_pair_and_lose_another(tmp_path):
    """As where people see the last winner against a new picture."""
    corpus = Tagged([half("x", "0"), half("x", "1"), half("y", "1"), half("y", "0"), half("z", "0"), half("z", "1")])
    corpus.pictures[2] = corpus.pictures[4] = corpus.pictures[1]
    assert paired(corpus, tmp_path) == ([[1, 0], [1, 3], [5, 1]], [])


def test_a_picture_against_itself_is_a_tie(tmp_path):
    corpus = Tagged([half("x", "1"), half("x", "0"), half("y", "1"), half("y", "0")])
    corpus.pictures[1] = corpus.pictures[0]
    assert paired(corpus, tmp_path) == ([[2, 3]], ["tagged: 0 pairs lack a picture and 1 are ties; 1 are left"])


@pytest.mark.parametrize("preferred", ["1", "true", "True", "TRUE", "1.0", "01", " 1 ", "1e0"])
def test_a_preference_may_be_said_in_several_ways(tmp_path, preferred):
    other = {"true": "false", "True": "False", "TRUE": "FALSE", "1.0": "0.0"}.get(preferred, "0")
    assert paired(Tagged([half("x", other), half("x", preferred)]), tmp_path) == ([[1, 0]], [])


def test_ties_and_torn_pairs_are_left_out_and_counted(tmp_path):
    ties = [half("t", "1"), half("t", "1"), half("u", "0"), half("u", "0")]
    torn = [half("v", "1"), half("w", "0"), half("z", "1")]
    corpus = Tagged([*ties, half("x", "1"), *torn, half("x", "0")])
    assert paired(corpus, tmp_path) == (
        [[4, 8]],
        ["tagged: 3 pairs lack a picture and 2 are ties; 1 are left"],
    )


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [("a", {"pair": "x"})],
            "0 of tagged is not half of a preference pair: it needs the columns `pair`",
        ),
        ([("a", {"preferred": "1"})], "0 of tagged is not half"),
        ([half("x", "1"), half("x", "maybe")], "1 of tagged is not half"),
        ([half("x", "1"), half("x", "0.5")], "its `preferred` is '0.5', and must be 1 or 0, or true or false"),
        ([("a", {"winner": "1", "pair": "x"})], "(1 or 0, or true or false), and has winner, pair"),
        ([half("x", "1"), half("x", "0"), half("x", "0")], "pair x of tagged has 3 pictures; a pair has two"),
        ([half("x", "1", "b"), half("x", "0", "a")], "pair x of tagged is of different prompts: 'a' and 'b'"),
        ([half("x", "1"), half("y", "0")], "tagged holds no preference pair"),
        ([half("x", "1"), half("x", "1")], "tagged holds no preference pair"),
    ],
)
def test_what_is_no_preference_pair_ends_in_one_line(tmp_path, rows, says):
    with pytest.raises(BenchError) as caught:
        paired(Tagged(rows), tmp_path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


# -- a folder of pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("values", [("1", "0"), (1, 0), (True, False), (1.0, 0.0)])
def test_a_folder_with_pair_and_preferred_is_preference_data(tmp_path, kind, values):
    folder, (yes, no) = tmp_path / "in", values
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(noise(number, (20, 20)))
    says = [("7", "a cat", no), ("8", "a dog", yes), ("7", "a cat", yes), ("8", "a dog", no)]
    rows = [{"file_name": f"{i}.jpg", "text": t, "pair": p, "preferred": w} for i, (p, t, w) in enumerate(says)]
    if kind == "jsonl":
        lines(folder / "metadata.jsonl", *rows)
    elif kind == "csv":
        with (folder / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pd.DataFrame(rows).to_parquet(folder / "metadata.parquet")
    corpus = open_corpus(str(folder), tmp_path / "cache", 16)
    assert paired(corpus, tmp_path / "cache") == ([[2, 0], [1, 3]], [])


@pytest.mark.parametrize("layout", ["parquet", "saved"])
@pytest.mark.parametrize(
    "preferred",
    [
        pa.array([0, 1, 1, 0], pa.int8()),
        pa.array([False, True, True, False]),
        pa.array([0.0, 1.0, 1.0, 0.0], pa.float32()),
        pa.array(["0", "1", "1", "0"]).dictionary_encode(),
        pa.array([Decimal("0"), Decimal("1"), Decimal("1"), Decimal("0")]),
    ],
    ids=["int8", "bool", "float", "dictionary", "decimal"],
)
def test_columns_of_any_plain_type_say_what_is_preferred(tmp_path, layout, preferred):
    days = pa.array([date(2026, 1, day) for day in (7, 8, 7, 8)])
    content = table(
        [noise(number, (20, 20)) for number in range(4)],
        ["a cat", "a dog", "a cat", "a dog"],
        struct=layout == "saved",
        pair=days,
        preferred=preferred,
    )
    path = saved_dataset(tmp_path / "in", content) if layout == "saved" else parquet(tmp_path / "x.parquet", content)
    corpus = open_corpus(str(path), tmp_path / "cache", 16)
    assert paired(corpus, tmp_path / "cache") == ([[2, 0], [1, 3]], [])


def test_a_pair_with_a_broken_picture_is_torn(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(noise(number, (20, 20)) if number != 2 else b"no picture")
    rows = [{"file_name": f"{i}.jpg", "text": "a", "pair": i // 2, "preferred": i % 2} for i in range(4)]
    lines(folder / "metadata.jsonl", *rows)
    corpus = open_corpus(str(folder), tmp_path / "cache", 16)
    assert paired(corpus, tmp_path / "cache") == ([[1, 0]], ["in: 1 pairs lack a picture and 0 are ties; 1 are left"])


# -- the world's preferences -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def preferences(tmp_path_factory) -> WorldPreferences:
    return WorldPreferences(tmp_path_factory.mktemp("cache"), pairs=12, seed=5)


def test_the_worlds_pairs_are_whole_and_share_their_caption(preferences, tmp_path):
    pairs, said = paired(preferences, tmp_path)
    assert len(preferences) == 24 and said == []
    assert sorted(sorted(pair) for pair in pairs) == [[2 * i, 2 * i + 1] for i in range(12)]
    for winner, loser in pairs:
        assert preferences.caption(winner) == preferences.caption(loser)
        assert (preferences.tags(winner)["preferred"], preferences.tags(loser)["preferred"]) == ("1", "0")
        assert (preferences.image(winner) != preferences.image(loser)).any()


def test_the_worlds_pairs_go_with_its_corpus():
    assert registry.load("corpora", registry.load("corpora", "world").preferences) is WorldPreferences


def test_preferences_are_a_function_of_seed_and_index(preferences, tmp_path):
    prompts = S.TrainingPrompts()
    for index in (17, 2, 3):  # in any order, from a fresh state
        drawn, tags = preference_scene(5, index, prompts)
        assert drawn.prompt.text == preferences.caption(index)
        assert preferences.rows[index]["style"] == pytest.approx(drawn.style, abs=1e-6)
        assert tags.items() <= preferences.tags(index).items()
    same, other = WorldPreferences(tmp_path, pairs=12, seed=5), WorldPreferences(tmp_path, pairs=12, seed=6)
    assert [same.key(i) for i in range(24)] == [preferences.key(i) for i in range(24)]
    assert same.rows == preferences.rows != other.rows
    assert same.fingerprint == preferences.fingerprint != other.fingerprint


def test_the_annotators_choose_as_bradley_and_terry_say():
    """The better style wins 88 % of the time; held to the probabilities of the pairs drawn, in bins of them too."""
    prompts, count = S.TrainingPrompts(), 3000
    gap, right = np.empty(count), np.empty(count)
    for pair in range(count):
        (one, says), (other, also) = (preference_scene(1, 2 * pair + place, prompts) for place in range(2))
        assert one.prompt == other.prompt and not one.prompt.held_out
        assert {says["preferred"], also["preferred"]} == {"0", "1"} and says["pair"] == also["pair"] == str(pair)
        gap[pair] = abs(one.style - other.style)
        right[pair] = (one.style > other.style) == (says["preferred"] == "1")
    expected = 1 / (1 + np.exp(-SHARPNESS * gap))
    for chosen in (gap >= 0, gap < 0.1, (gap >= 0.1) & (gap < 0.3), gap >= 0.3):
        error = math.sqrt((expected * (1 - expected))[chosen].sum()) / chosen.sum()
        assert abs(right[chosen].mean() - expected[chosen].mean()) < 3 * error
    # of two uniform styles the gap has the density 2 (1 - g), so that the mean is an integral
    grid = (np.arange(100_000) + 0.5) / 100_000
    assert (2 * (1 - grid) / (1 + np.exp(-SHARPNESS * grid))).mean() == pytest.approx(0.88, abs=0.005)
    assert abs(right.mean() - 0.88) < 0.02
