"""Curation: every pair is scored once, a subset is what its rule says, and a damaged manifest ends in one line."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import Brightness, FakeCorpus

from bench.corpus import BadPair, Problem, Subset
from bench.errors import BenchError
from bench.machine.crew import Crew
from bench.suite import Prompt
from data_curation import cost, curate, parts, scan, scoring

RULE = Subset("bright", role="aesthetic", threshold=0.5)
SCORES = np.array([0.1, 0.9, 0.5, 0.4, 0.7, 0.3, 0.8, 0.2, 0.6, 0.0])


class Given(Brightness):
    """Scores of a list, by the number that is the prompt's id; counts what it scored."""

    name = "given"

    def __init__(self, scores: Sequence[float] = SCORES) -> None:
        self.scores, self.seen = scores, []

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> list[float]:
        self.seen += [int(p.id) for p in prompts]
        return [float(self.scores[int(p.id)]) for p in prompts]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(parts, "PART", 4)


@pytest.fixture
def corpus() -> FakeCorpus:
    return FakeCorpus(size=10)


def score_parts(cache: Path) -> list[Path]:
    return sorted((cache / "scores").rglob("part-*.parquet"))


# -- scores ------------------------------------------------------------------------------------------------------------


def test_every_pair_is_scored_once_ever(corpus, tmp_path):
    metric = Given()
    frame = scoring.score_corpus(corpus, metric, tmp_path)
    assert list(frame["index"]) == list(range(10)) and list(frame["score"]) == list(SCORES)
    assert all(pd.read_parquet(path)["error"].isna().all() for path in score_parts(tmp_path))
    again = scoring.score_corpus(corpus, metric, tmp_path)
    assert metric.seen == list(range(10))
    pd.testing.assert_frame_equal(again, frame)


def test_a_run_that_was_cut_short_scores_only_what_is_missing(corpus, tmp_path):
    frame = scoring.score_corpus(corpus, Given(), tmp_path)
    assert len(score_parts(tmp_path)) == 3
    score_parts(tmp_path)[1].unlink()
    metric = Given()
    pd.testing.assert_frame_equal(scoring.score_corpus(corpus, metric, tmp_path), frame)
    assert metric.seen == [4, 5, 6, 7]


def test_a_crash_loses_at_most_one_part(corpus, tmp_path):
    class Crash(BaseException):
        pass

    class Crashing(Given):
        def score(self, images, prompts):
            if prompts[0].id == "4":
                raise Crash
            return super().score(images, prompts)

    with pytest.raises(Crash):
        scoring.score_corpus(corpus, Crashing(), tmp_path)
    metric = Given()
    scoring.score_corpus(corpus, metric, tmp_path)
    assert metric.seen == [4, 5, 6, 7, 8, 9]


def test_another_version_or_corpus_is_scored_anew(corpus, tmp_path):
    class Newer(Given):
        version = 2

    scoring.score_corpus(corpus, Given(), tmp_path)
    for metric, other in ((Newer(), corpus), (Given(), FakeCorpus(size=9))):
        scoring.score_corpus(other, metric, tmp_path)
        assert len(metric.seen) == len(other)


def test_one_pair_that_cannot_be_scored_keeps_the_others_and_says_why(corpus, tmp_path):
    class Picky(Given):
        def score(self, images, prompts):
            if any(p.id == "6" for p in prompts):
                raise RuntimeError("too dark")
            return super().score(images, prompts)

    frame = scoring.score_corpus(corpus, Picky(), tmp_path)
    errors = pd.concat([pd.read_parquet(path) for path in score_parts(tmp_path)], ignore_index=True)["error"]
    assert np.isnan(frame["score"][6]) and errors[6] == "RuntimeError: too dark"
    assert frame["score"].notna().sum() == 9 and errors.notna().sum() == 1
    manifest = curate.cut(corpus, RULE, Picky(), tmp_path)
    assert 6 not in manifest.indices and json.loads(manifest.path.read_text())["unscored"] == 1


def test_a_metric_that_can_score_nothing_says_why(corpus, tmp_path):
    class Broken(Given):
        def score(self, images, prompts):
            raise RuntimeError("no weights")

    with pytest.raises(BenchError, match="given can score no pair of fake: RuntimeError: no weights"):
        curate.cut(corpus, RULE, Broken(), tmp_path)


def test_pictures_of_one_shape_are_scored_together(corpus, tmp_path, monkeypatch):
    class Stacking(Given):
        def score(self, images, prompts):
            np.stack(images)  # fails for two shapes
            assert len(images) in (5, 2)
            return super().score(images, prompts)

    monkeypatch.setattr(parts, "PART", 7)
    shapes = {index: (16, 32) if index in (1, 3) else (16, 16) for index in range(7)}
    monkeypatch.setattr(FakeCorpus, "image", lambda self, i: np.zeros((*shapes[i], 3), np.uint8))
    frame = scoring.score_corpus(FakeCorpus(size=7), Stacking(), tmp_path)
    assert list(frame["index"]) == [0, 1, 2, 3, 4, 6]  # 5 is 0 again
    assert list(frame["score"]) == list(SCORES[frame["index"]])


@pytest.mark.parametrize("damage", ["bytes", "rows"])
def test_a_damaged_part_ends_in_one_line(corpus, tmp_path, damage):
    scoring.score_corpus(corpus, Given(), tmp_path)
    path = score_parts(tmp_path)[1]
    if damage == "bytes":
        path.write_bytes(path.read_bytes()[:50])
    else:
        pd.read_parquet(path)[:2].to_parquet(path)
    with pytest.raises(BenchError, match=r"part-000000004\.parquet .*delete it and its pairs are done again"):
        scoring.score_corpus(corpus, Given(), tmp_path)


def test_a_score_that_was_changed_is_noticed(corpus, tmp_path):
    scoring.score_corpus(corpus, Given(), tmp_path)
    path = score_parts(tmp_path)[1]
    frame = pd.read_parquet(path)
    frame.assign(score=[9.0, *frame["score"][1:]]).to_parquet(path, index=False)
    with pytest.raises(BenchError, match=r"part-000000004\.parquet is damaged .*delete it and its pairs"):
        curate.cut(corpus, RULE, Given(), tmp_path)


def test_a_metric_that_needs_facts_is_refused_before_anything_is_scored(corpus, tmp_path):
    class Factual(Given):
        needs_facts = ("include",)

    with pytest.raises(BenchError, match="given checks facts that captions do not hold"):
        scoring.score_corpus(corpus, Factual(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_progress_adds_up(corpus, tmp_path):
    ticks = []
    scoring.score_corpus(corpus, Given(), tmp_path, Crew(tick=ticks.append))
    assert ticks == [4, 4, 2]


# -- subsets -----------------------------------------------------------------------------------------------------------


def test_a_threshold_keeps_everything_from_there_on(corpus, tmp_path):
    manifest = curate.cut(corpus, RULE, Given(), tmp_path)
    assert manifest.indices == (1, 2, 4, 6, 8)  # 0.5 itself is in
    assert (manifest.threshold, manifest.count, manifest.of) == (0.5, 5, 10)
    assert (manifest.metric, manifest.metric_version) == ("given", 1)
    assert curate.cut(corpus, RULE, Given(), tmp_path, threshold=0.75).indices == (1, 6)


def test_a_threshold_of_zero_is_a_threshold(corpus, tmp_path):
    assert curate.cut(corpus, RULE, Given(), tmp_path).count == 5
    assert curate.cut(corpus, RULE, Given(), tmp_path, threshold=0.0).count == 10


@pytest.mark.parametrize(("quantile", "count"), [(0.1, 1), (0.2, 2), (0.5, 5), (1.0, 10)])
def test_a_quantile_keeps_that_share_best_first(corpus, tmp_path, quantile, count):
    manifest = curate.cut(corpus, RULE, Given(), tmp_path, quantile=quantile)
    best = sorted(np.argsort(-SCORES)[:count].tolist())
    assert list(manifest.indices) == best and manifest.threshold == SCORES[best].min()


def test_a_corpus_with_a_scale_of_its_own_uses_its_quantile_unless_told_otherwise(corpus, tmp_path):
    own = Subset("half", role="aesthetic", threshold=0.75)  # FakeCorpus keeps half of it
    assert curate.cut(corpus, own, Given(), tmp_path).count == 5
    assert curate.cut(corpus, own, Given(), tmp_path, threshold=0.75).count == 2
    assert curate.cut(corpus, own, Given(), tmp_path, quantile=0.1).count == 1


def test_a_subset_without_a_rule_keeps_everything(corpus, tmp_path):
    manifest = curate.cut(corpus, Subset("all"), None, tmp_path)
    assert manifest.indices == tuple(range(10)) and manifest.threshold is None and manifest.metric is None


def test_an_empty_subset_ends_in_one_line_and_leaves_no_manifest(corpus, tmp_path):
    with pytest.raises(BenchError, match=r"no pair of fake is in bright .*at least 2.*the best score is 0\.900"):
        curate.cut(corpus, RULE, Given(), tmp_path, threshold=2.0)
    assert not list(tmp_path.rglob("manifest.json"))


def test_cutting_again_reads_the_manifest_back(corpus, tmp_path):
    first, metric = curate.cut(corpus, RULE, Given(), tmp_path), Given()
    assert curate.cut(corpus, RULE, metric, tmp_path) == first and metric.seen == []


def test_another_rule_makes_another_manifest(corpus, tmp_path):
    rules = ({}, {"threshold": 0.6}, {"quantile": 0.3})
    assert len({curate.cut(corpus, RULE, Given(), tmp_path, **rule).path for rule in rules}) == 3


def test_the_content_hash_is_of_the_pairs_pictures_and_captions(corpus, tmp_path):
    manifest = curate.cut(corpus, RULE, Given(), tmp_path)
    keys = [
        hashlib.sha256(corpus.image(i).tobytes() + b"\0" + corpus.caption(i).encode()).hexdigest()
        for i in manifest.indices
    ]
    assert manifest.content_hash == hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()
    head = json.loads(manifest.path.read_text())
    assert (head["content_hash"], head["count"], head["threshold"]) == (manifest.content_hash, 5, 0.5)
    assert curate.cut(corpus, RULE, Given(), tmp_path, threshold=0.6).content_hash != manifest.content_hash


def test_pairs_left_out_are_counted(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeCorpus, "problems", lambda self: [Problem("a.png", "it is empty")] * 3)
    assert json.loads(curate.cut(corpus, RULE, Given(), tmp_path).path.read_text())["left_out"] == 3


def test_the_manifest_holds_keys_and_sizes(corpus, tmp_path):
    manifest = curate.cut(corpus, RULE, Given(), tmp_path)
    assert manifest.keys == tuple(corpus.key(i) for i in manifest.indices)
    assert manifest.sizes == tuple(corpus.size(i) for i in manifest.indices) == ((16, 16),) * 5
    assert all(type(number) is int for number in (*manifest.indices, *manifest.sizes[0]))


def test_pairs_that_cannot_be_used_and_duplicates_are_in_no_subset(corpus, tmp_path, monkeypatch):
    image = FakeCorpus.image

    def some(self, index):
        if index == 4:
            raise BadPair("it is torn")
        return image(self, 1 if index == 6 else index)

    monkeypatch.setattr(FakeCorpus, "image", some)
    monkeypatch.setattr(FakeCorpus, "caption", lambda self, i: "one and all")
    metric = Given()
    manifest = curate.cut(corpus, RULE, metric, tmp_path)
    head = json.loads(manifest.path.read_text())
    assert manifest.indices == (1, 2, 8) and 4 not in metric.seen
    assert (head["of"], head["left_out"], head["duplicates"], head["count"]) == (10, 1, 1, 3)
    # a share is one of the pairs that are left: 8 of the 10, without the score of the duplicate
    assert curate.cut(corpus, RULE, metric, tmp_path, quantile=0.25).indices == (1, 8)
    assert curate.cut(corpus, Subset("all"), None, tmp_path).indices == (0, 1, 2, 3, 5, 7, 8, 9)


def test_scoring_reads_each_picture_once_for_hash_and_score(corpus, tmp_path, monkeypatch):
    read, asked = FakeCorpus.read, []
    monkeypatch.setattr(FakeCorpus, "read", lambda self, index: asked.append(index) or read(self, index))
    curate.cut(corpus, RULE, Given(), tmp_path)
    assert sorted(asked) == list(range(10))
    curate.cut(corpus, Subset("all"), None, tmp_path)
    assert len(asked) == 10


# -- drawn by hash -----------------------------------------------------------------------------------------------------

DRAWN = Subset("drawn", share=0.4)


class Reversed(FakeCorpus):
    """The pairs of a FakeCorpus, last first."""

    def __init__(self, size: int) -> None:
        super().__init__(size=size)
        self.pictures = self.pictures[::-1]

    def caption(self, index: int) -> str:
        return super().caption(len(self) - 1 - index)

    @property
    def fingerprint(self) -> str:
        return "reversed" + super().fingerprint


def test_a_drawn_subset_goes_by_content_and_not_by_position(tmp_path):
    one = curate.cut(FakeCorpus(size=10), DRAWN, None, tmp_path)
    other = curate.cut(Reversed(10), DRAWN, None, tmp_path)
    assert one.count == 4 and one.content_hash == other.content_hash and set(one.keys) == set(other.keys)
    assert sorted(9 - index for index in one.indices) == sorted(other.indices)
    assert curate.cut(FakeCorpus(size=10), replace(DRAWN, name="other"), None, tmp_path).keys != one.keys


@pytest.mark.parametrize("size", [5, 10, 11, 57, 100])
@pytest.mark.parametrize("quantile", [0.013, 0.2, 0.5, 1.0])
def test_a_drawn_subset_is_as_large_as_one_of_the_best(tmp_path, size, quantile):
    corpus, scores = FakeCorpus(size=size), np.random.default_rng(1).permutation(size) / size
    best = curate.cut(corpus, RULE, Given(scores), tmp_path, quantile=quantile)
    drawn = curate.cut(corpus, DRAWN, None, tmp_path, quantile=quantile)
    assert drawn.count == best.count
    assert size < 50 or quantile == 1.0 or drawn.keys != best.keys


def test_a_drawn_subset_says_its_share_and_asks_for_no_score(corpus, tmp_path, monkeypatch):
    head = json.loads(curate.cut(corpus, DRAWN, None, tmp_path).path.read_text())
    assert (head["subset"], head["quantile"], head["metric"], head["threshold"]) == ("drawn", 0.4, None, None)
    monkeypatch.setattr(FakeCorpus, "quantiles", {"drawn": 0.2})
    assert curate.cut(corpus, DRAWN, None, tmp_path).count == 2
    assert curate.cut(corpus, DRAWN, None, tmp_path, quantile=0.7).count == 7
    assert not (tmp_path / "scores").exists()


def test_a_larger_share_keeps_what_a_smaller_one_has(tmp_path):
    cuts = [curate.cut(FakeCorpus(size=40), DRAWN, None, tmp_path, quantile=q).keys for q in (0.1, 0.3, 0.9)]
    assert set(cuts[0]) < set(cuts[1]) < set(cuts[2])


def test_a_drawn_subset_with_a_score_ends_in_one_line(corpus, tmp_path):
    with pytest.raises(BenchError, match="bright has a score and a share; a share is drawn without a score"):
        curate.cut(corpus, replace(RULE, share=0.5), Given(), tmp_path)


BAD_RULES = {
    "share in percent": (replace(DRAWN, share=20), "share of 20; it is above 0 and at most 1"),
    "no share": (replace(DRAWN, share=0), "share of 0;"),
    "caption": (Subset("x", caption="("), "caption rule of x is no regular expression"),
    "tag": (Subset("x", tags={"year": 3}), "a tag 'year' that is no text"),
    "threshold": (replace(RULE, threshold=float("nan")), "threshold of nan; it is a number"),
}


@pytest.mark.parametrize("what", BAD_RULES)
def test_a_rule_that_cuts_nothing_ends_in_one_line_before_anything_is_read(tmp_path, what, monkeypatch):
    monkeypatch.setattr(FakeCorpus, "read", lambda *_: pytest.fail("a picture was read"))
    rule, message = BAD_RULES[what]
    with pytest.raises(BenchError, match=message):
        curate.cut(FakeCorpus(size=10), rule, Given() if rule.role else None, tmp_path)


UNUSED = {
    "both": (RULE, {"threshold": 0.5, "quantile": 0.5}, "by its threshold or by its quantile, not by both"),
    "threshold of a draw": (DRAWN, {"threshold": 0.9}, "drawn asks for no score; it has no use for a threshold"),
    "threshold of all": (Subset("all"), {"threshold": 0.9}, "all asks for no score; it has no use for a threshold"),
    "share of all": (
        Subset("all"),
        {"quantile": 0.1},
        "all keeps all pairs that meet it; it has no use for a quantile",
    ),
}


@pytest.mark.parametrize("what", UNUSED)
def test_a_cut_that_a_rule_has_no_use_for_ends_in_one_line(corpus, tmp_path, what):
    rule, asked, message = UNUSED[what]
    with pytest.raises(BenchError, match=message):
        curate.cut(corpus, rule, Given() if rule.role else None, tmp_path, **asked)


def test_rules_that_differ_in_the_last_digit_share_no_cut(corpus, tmp_path):
    scores = np.array([6.800003, 6.800004, *[0.0] * 8])
    cuts = [curate.cut(corpus, RULE, Given(scores), tmp_path, threshold=t).count for t in (6.800003, 6.800004)]
    assert cuts == [2, 1]
    shares = [curate.cut(corpus, RULE, Given(), tmp_path, quantile=q).path for q in (0.2000001, 0.2000002)]
    assert shares[0] != shares[1]


def test_a_metric_of_several_pictures_scores_no_pairs(corpus, tmp_path):
    class Spread(Given):
        per_prompt = True

    with pytest.raises(BenchError, match="compares several pictures of one prompt, and a pair has one"):
        scoring.score_corpus(corpus, Spread(), tmp_path)


# -- captions and tags -------------------------------------------------------------------------------------------------


def test_a_subset_may_go_by_what_the_caption_says(corpus, tmp_path):
    manifest = curate.cut(corpus, Subset("blue", caption=r"(?i)\bBLUE\b"), None, tmp_path)
    assert manifest.indices == (1, 3, 6, 8) and manifest.threshold is None
    assert all("blue" in corpus.caption(i) for i in manifest.indices)


def test_a_subset_may_go_by_tags(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeCorpus, "tags", lambda self, i: {"kind": "ui" if i % 2 else "poster", "n": str(i)})
    assert curate.cut(corpus, Subset("ui", tags={"kind": "ui"}), None, tmp_path).indices == (1, 3, 5, 7, 9)
    both = Subset("both", caption="circle", tags={"kind": "ui"})
    assert curate.cut(corpus, both, None, tmp_path).indices == (3, 5)


def test_a_share_is_one_of_the_pairs_that_the_caption_leaves(corpus, tmp_path):
    rule = Subset("best_blue", role="aesthetic", caption="blue")  # scores .9 .4 .8 .6
    assert curate.cut(corpus, rule, Given(), tmp_path, quantile=0.5).indices == (1, 6)
    assert curate.cut(corpus, rule, Given(), tmp_path, threshold=0.55).indices == (1, 6, 8)


def test_another_rule_under_the_same_name_makes_another_manifest(corpus, tmp_path):
    blue, red = (curate.cut(corpus, Subset("x", caption=c), None, tmp_path) for c in ("blue", "red"))
    assert blue.path != red.path and blue.indices != red.indices


def test_a_rule_that_fits_nothing_or_is_none_ends_in_one_line(corpus, tmp_path):
    with pytest.raises(BenchError, match="no pair of fake is in none: no caption and tags of its 10 usable pairs"):
        curate.cut(corpus, Subset("none", caption="poster"), None, tmp_path)
    with pytest.raises(BenchError, match="the caption rule of odd is no regular expression"):
        curate.cut(corpus, Subset("odd", caption="("), None, tmp_path)
    assert not list(tmp_path.rglob("manifest.json"))


# -- several processes -------------------------------------------------------------------------------------------------


def together(world_size: int, work: Callable[[int, Callable[[], None]], object]) -> list[object]:
    """Results (or errors) of ``work(rank, barrier)`` in as many threads as there are ranks."""
    barrier = threading.Barrier(world_size, timeout=20)

    def one(rank: int) -> object:
        try:
            return work(rank, barrier.wait)
        except BenchError as error:
            return error

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(one, range(world_size)))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_processes_share_the_scoring_and_agree_on_the_subset(corpus, tmp_path, world_size):
    alone = curate.cut(corpus, RULE, Given(), tmp_path / "alone")
    metrics = [Given() for _ in range(world_size)]
    manifests = together(
        world_size,
        lambda rank, barrier: curate.cut(
            corpus, RULE, metrics[rank], tmp_path / "many", crew=Crew(rank, world_size, barrier)
        ),
    )
    assert {replace(m, path=alone.path) for m in manifests} == {alone}
    assert sorted(index for metric in metrics for index in metric.seen) == list(range(10))
    frames = together(
        world_size,
        lambda rank, barrier: scoring.score_corpus(
            corpus, Given(), tmp_path / "again", crew=Crew(rank, world_size, barrier)
        ),
    )
    for frame in frames:
        pd.testing.assert_frame_equal(frame, frames[0])


def test_no_process_waits_for_ever_where_nothing_can_be_cut(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PATIENCE", 0.1)
    first, second = together(
        2,
        lambda rank, barrier: curate.cut(corpus, RULE, Given(), tmp_path, threshold=2.0, crew=Crew(rank, 2, barrier)),
    )
    assert "no pair of fake is in bright" in str(first) and "process 0 cut no bright" in str(second)


def test_a_manifest_that_is_there_is_read_by_all(corpus, tmp_path):
    first = curate.cut(corpus, RULE, Given(), tmp_path)
    metrics = [Given(), Given()]
    found = together(
        2,
        lambda rank, barrier: curate.cut(corpus, RULE, metrics[rank], tmp_path, crew=Crew(rank, 2, barrier)),
    )
    assert found == [first, first] and not metrics[0].seen + metrics[1].seen


# -- cost --------------------------------------------------------------------------------------------------------------


def test_the_cost_is_of_what_is_missing(corpus, tmp_path):
    metric = Given()
    whole = cost.estimate(corpus, metric, tmp_path)
    assert whole.pictures == 10 and whole.disk == 10 * (cost.SCAN_BYTES + cost.SCORE_BYTES) and whole.seconds > 0
    assert not list(tmp_path.iterdir())
    assert cost.estimate(corpus, metric, tmp_path, rank=1, world_size=2).pictures == 4
    scan.scan(corpus, tmp_path)
    assert cost.estimate(corpus, None, tmp_path) is None
    assert cost.estimate(corpus, metric, tmp_path).pictures == 10
    scoring.score_parts(corpus, metric, tmp_path, Crew(0, 2))
    assert cost.estimate(corpus, metric, tmp_path).pictures == 4
    scoring.score_parts(corpus, metric, tmp_path)
    assert cost.estimate(corpus, metric, tmp_path) is None


@pytest.mark.parametrize(("seconds", "said"), [(5, "5 s"), (600, "10 min"), (30_000, "8 h 20 min")])
def test_the_cost_is_one_line_for_people(seconds, said):
    line = str(cost.Cost("score x with y", 286_119, seconds, 30_000_000))
    assert line == f"score x with y: 286,119 pictures, about {said}, 30.0 MB on disk"


# -- damage ------------------------------------------------------------------------------------------------------------


def drop_a_row(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[:-1]


def change_a_key(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(key=["0" * 64, *frame["key"][1:]])


def point_elsewhere(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(index=[0, *frame["index"][1:]])


def point_outside(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(index=[999, *frame["index"][1:]])


def drop_the_keys(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="key")


def drop_the_indices(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="index")


@pytest.mark.parametrize(
    "damage", [drop_a_row, change_a_key, point_elsewhere, point_outside, drop_the_keys, drop_the_indices]
)
def test_members_that_do_not_fit_the_manifest_end_in_one_line(corpus, tmp_path, damage):
    path = curate.cut(corpus, RULE, Given(), tmp_path).path
    members = path.with_name("members.parquet")
    damage(pd.read_parquet(members)).to_parquet(members, index=False)
    with pytest.raises(BenchError, match=r"manifest .*manifest\.json .*run `bench curate` again") as caught:
        curate.cut(corpus, RULE, Given(), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", None])
def test_unreadable_members_end_in_one_line(corpus, tmp_path, content):
    path = curate.cut(corpus, RULE, Given(), tmp_path).path
    members = path.with_name("members.parquet")
    members.unlink() if content is None else members.write_bytes(content)
    with pytest.raises(BenchError, match=r"manifest\.json (is damaged|does not match) .*run `bench curate` again"):
        curate.cut(corpus, RULE, Given(), tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"subset": "bright"}'])
def test_a_damaged_manifest_ends_in_one_line(corpus, tmp_path, content):
    path = curate.cut(corpus, RULE, Given(), tmp_path).path
    path.write_text(content)
    with pytest.raises(BenchError, match=r"manifest\.json is damaged") as caught:
        curate.cut(corpus, RULE, Given(), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["subset", "count", "content_hash", "corpus_fingerprint", "threshold"])
def test_a_manifest_that_lacks_a_key_ends_in_one_line(corpus, tmp_path, key):
    path = curate.cut(corpus, RULE, Given(), tmp_path).path
    head = json.loads(path.read_text())
    del head[key]
    path.write_text(json.dumps(head))
    with pytest.raises(BenchError, match=rf"manifest\.json is damaged \(KeyError: '{key}'\)"):
        curate.read_manifest(path, corpus)


def test_a_manifest_of_another_corpus_is_refused(corpus, tmp_path):
    path = curate.cut(corpus, RULE, Given(), tmp_path).path
    with pytest.raises(BenchError, match="was cut from another corpus"):
        curate.read_manifest(path, FakeCorpus(size=9))


def test_a_missing_manifest_ends_in_one_line(corpus, tmp_path):
    with pytest.raises(BenchError, match=r"manifest\.json is not there"):
        curate.read_manifest(tmp_path / "manifest.json", corpus)
