"""`bench curate` on every layout: the cost first, then the cut, what was left out, and how the scores lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import fakes
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from pairs import BLUE, GREEN, RED, encoded, hy_soar, lines, parquet, saved_dataset, table, tar

from bench import registry
from bench.cli import main
from bench.corpus import Subset
from bench.errors import Missing
from data_curation import parts, summary

CAPTIONS = ["a red poster", "a green one", "a blue poster", "a white one"]
IMAGES = [encoded(c, form="JPEG") for c in (RED, GREEN, BLUE, (255, 255, 255))]
BRIGHT = Subset("bright", role="aesthetic", threshold=0.5)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The fakes' suite and metric, a subset for them, parts of two pairs."""
    entries = {
        "suites": {"fake": "fakes:suite"},
        "metrics": {"brightness": "fakes:Brightness"},
        "subsets": {"bright": "fakes:BRIGHT"},
    }
    monkeypatch.setattr(fakes, "BRIGHT", BRIGHT, raising=False)
    monkeypatch.setattr(parts, "PART", 2)
    for kind, more in entries.items():
        monkeypatch.setitem(registry.BUILT_IN, kind, registry.BUILT_IN[kind] | more)
    registry.table.cache_clear()
    yield
    registry.table.cache_clear()


def released(folder: Path) -> Path:
    names = [hashlib.md5(data).hexdigest() for data in IMAGES]
    for name, data in zip(names, IMAGES, strict=True):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "images" / f"{name}.jpg").write_bytes(data)
    return lines(folder / "train.jsonl", *({"md5": n, "caption_en": c} for n, c in zip(names, CAPTIONS, strict=True)))


def folder_of_pictures(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, (data, caption) in enumerate(zip(IMAGES, CAPTIONS, strict=True)):
        (folder / f"{number}.jpg").write_bytes(data)
        (folder / f"{number}.txt").write_text(caption)
    return folder


def tars(folder: Path) -> Path:
    members = {}
    for number, (data, caption) in enumerate(zip(IMAGES, CAPTIONS, strict=True)):
        members |= {f"{number}.jpg": data, f"{number}.txt": caption.encode()}
    return tar(folder / "x.tar", members)


LAYOUTS = {
    "hy_soar": released,
    "folder": folder_of_pictures,
    "webdataset": tars,
    "parquet": lambda folder: parquet(folder / "x.parquet", table(IMAGES, CAPTIONS)),
    "saved_dataset": lambda folder: saved_dataset(folder, table(IMAGES, CAPTIONS, struct=True)),
}


def curate(tmp_path: Path, corpus: Path, *arguments: str) -> Result:
    where = ["--corpus", str(corpus), "--cache", str(tmp_path / "cache"), "--suite", "fake", "--resolution", "16"]
    return CliRunner().invoke(main, ["curate", *where, *arguments])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_curated_from_the_command_line(tmp_path, layout):
    result = curate(tmp_path, LAYOUTS[layout](tmp_path / "in"), "--subset", "bright,posters")
    assert result.exit_code == 0, result.output
    assert "bright: 1 of 4 pairs, brightness of at least 0.5000" in result.output
    assert "posters: 2 of 4 pairs, no score" in result.output
    assert "4 usable pairs (0 left out, 0 exact duplicates dropped)" in result.output
    found = {json.loads(p.read_text())["subset"]: p for p in (tmp_path / "cache").rglob("manifest.json")}
    assert list(pd.read_parquet(found["bright"].with_name("members.parquet"))["index"]) == [3]
    assert list(pd.read_parquet(found["posters"].with_name("members.parquet"))["index"]) == [0, 2]


def test_every_layout_gives_the_same_contents(tmp_path):
    hashes = set()
    for layout, make in LAYOUTS.items():
        corpus = make(tmp_path / layout)
        curate(tmp_path / layout, corpus, "--subset", "posters")
        (manifest,) = (tmp_path / layout / "cache").rglob("manifest.json")
        hashes.add(json.loads(manifest.read_text())["content_hash"])
    assert len(hashes) == 1


def test_the_cost_comes_first_and_only_while_something_is_to_be_done(tmp_path):
    corpus = released(tmp_path / "in")
    first = curate(tmp_path, corpus, "--subset", "bright")
    assert first.output.startswith("score train.jsonl with brightness: 4 pictures, about ")
    assert "pictures, about" not in curate(tmp_path, corpus, "--subset", "bright").output


def test_scores_are_shown_with_what_each_threshold_keeps(tmp_path):
    result = curate(tmp_path, released(tmp_path / "in"), "--subset", "bright", "--threshold", "0.3")
    assert "bright as published" in result.output and "this cut" in result.output
    (folder,) = (tmp_path / "cache" / "scores").glob("*/*")
    kept = pd.read_csv(folder / "kept.csv").set_index("rule")
    assert kept.loc["this cut", ["threshold", "kept", "dropped"]].tolist() == [0.3, 4, 0]
    assert kept.loc["bright as published", ["threshold", "kept", "dropped"]].tolist() == [0.5, 1, 3]
    assert pd.read_csv(folder / "histogram.csv")["count"].sum() == 4
    assert (folder / "histogram.png").read_bytes().startswith(b"\x89PNG")


def test_shards_score_their_share_and_the_last_command_cuts(tmp_path):
    corpus = released(tmp_path / "in")
    first = curate(tmp_path, corpus, "--subset", "bright", "--shard", "1/2")
    assert first.exit_code == 0 and "shard 1/2: its 1 parts are done; 1 of all 2 are missing" in first.output
    assert not list((tmp_path / "cache").rglob("manifest.json"))
    second = curate(tmp_path, corpus, "--subset", "bright", "--shard", "2/2")
    assert "0 of all 2 are missing" in second.output
    whole = curate(tmp_path, corpus, "--subset", "bright")
    assert "bright: 1 of 4 pairs" in whole.output and "pictures, about" not in whole.output


def test_shards_may_just_scan(tmp_path):
    result = curate(tmp_path, released(tmp_path / "in"), "--subset", "posters", "--shard", "2/2")
    assert "scan, shard 2/2: its 1 parts are done" in result.output
    assert len(list((tmp_path / "cache" / "scans").rglob("part-*.parquet"))) == 1


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none_ends_in_one_line(tmp_path, shard):
    result = curate(tmp_path, released(tmp_path / "in"), "--shard", shard)
    assert result.exit_code == 1 and "--shard takes I/N" in result.output and result.output.count("\n") == 1


def test_buckets_keep_shapes(tmp_path):
    (tmp_path / "in").mkdir()
    for name, size in (("wide", (400, 240)), ("square", (100, 100))):
        (tmp_path / "in" / f"{name}.png").write_bytes(encoded(size=size))
        (tmp_path / "in" / f"{name}.txt").write_text(f"a {name} poster")
    for more, sizes in (([], [(64, 64), (64, 64)]), (["--buckets"], [(64, 64), (80, 48)])):
        curate(tmp_path / str(len(more)), tmp_path / "in", "--resolution", "64", "--subset", "posters", *more)
        (members,) = (tmp_path / str(len(more)) / "cache").rglob("members.parquet")
        frame = pd.read_parquet(members)
        assert list(zip(frame["width"], frame["height"], strict=True)) == sizes


def test_what_is_left_out_is_counted_named_and_written(tmp_path):
    path = hy_soar(tmp_path / "in")
    names = [json.loads(line)["md5"] + ".jpg" for line in path.read_text().splitlines()]
    (tmp_path / "in" / "images" / names[0]).write_bytes(b"<html>")
    (tmp_path / "in" / "images" / names[1]).unlink()
    result = curate(tmp_path, path, "--subset", "all")
    assert "train.jsonl: 1 usable pairs (2 left out, 0 exact duplicates dropped)" in result.output
    assert f"left out: train.jsonl:2: {names[1]}: its file is not there" in result.output
    assert f"left out: {names[0]}: its picture is another one" in result.output
    (written,) = (tmp_path / "cache").rglob("problems.csv")
    assert len(pd.read_csv(written)) == 2


@pytest.mark.parametrize("kind", ["no lines", "no pictures", "damaged pictures", "no posters"])
def test_a_corpus_without_a_valid_pair_ends_in_one_line(tmp_path, kind):
    path = hy_soar(tmp_path / "in")
    for picture in (tmp_path / "in" / "images").iterdir():
        if kind == "no pictures":
            picture.unlink()
        elif kind == "damaged pictures":
            picture.write_bytes(b"x")
    if kind == "no lines":
        path.write_text("{}\n" * 3)
    result = curate(tmp_path, path, "--subset", "posters")
    says = {
        "no lines": "is no corpus that can be read",
        "no pictures": "holds no usable image-caption pair; 3 left out",
        "damaged pictures": "train.jsonl has no usable pair: all 3 are left out",
        "no posters": "no pair of train.jsonl is in posters",
    }
    assert result.exit_code == 1
    assert says[kind] in result.output.splitlines()[-1] and "Traceback" not in result.output


def test_a_role_that_the_suite_does_not_have_ends_in_one_line(tmp_path):
    result = curate(tmp_path, released(tmp_path / "in"), "--subset", "high_clipscore")
    assert result.exit_code == 1 and "unknown role in the suite fake 'clipscore'" in result.output


def test_a_table_of_thresholds_counts_failures_as_dropped():
    scores = pd.Series([0.1, 0.2, 0.3, float("nan")])
    kept = summary.threshold_table(scores, {"mine": 0.2}).set_index("rule")
    assert kept.loc["mine", ["kept", "dropped", "share"]].tolist() == [2, 2, 0.5]
    assert kept["threshold"].is_monotonic_increasing and len(kept) == 1 + len(summary.SHARES)


def test_the_histogram_is_the_same_twice(tmp_path):
    scores = pd.Series(range(100), dtype=float)
    for name in "ab":
        summary.summarise(scores, tmp_path / name, "Score", {"x": 50.0})
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "brightness", "--threshold", "0.3"], "--metric scores and cuts nothing"),
        (["--metric", "brightness", "--quantile", "0.3"], "--metric scores and cuts nothing"),
        (["--metric", "brightness", "--holdout", "3"], "--metric scores and cuts nothing"),
        (["--subset", "bright", "--threshold", "0.3", "--quantile", "0.3"], "by its threshold or by its quantile"),
        (["--subset", "bright,all", "--quantile", "0.3"], "all keeps all pairs that meet it"),
    ],
)
def test_what_would_be_ignored_ends_in_one_line_and_nothing_is_done(tmp_path, arguments, message):
    result = curate(tmp_path, released(tmp_path / "in"), *arguments)
    assert result.exit_code == 1 and message in result.output and result.output.count("\n") == 1
    assert not (tmp_path / "cache").exists()


def test_a_judge_that_is_not_there_ends_in_one_line_and_leaves_no_scores(tmp_path, monkeypatch):
    def missing(_):
        raise Missing("the weights are not here; bench assets fetch judge", "judge")

    corpus = released(tmp_path / "in")
    with monkeypatch.context() as away:
        away.setattr(fakes.Brightness, "prepare", missing)
        result = curate(tmp_path, corpus, "--subset", "bright")
        assert result.exit_code == 1 and result.output == "bench: the weights are not here; bench assets fetch judge\n"
    assert "bright: 1 of 4 pairs" in curate(tmp_path, corpus, "--subset", "bright").output


def test_pairs_that_a_metric_could_not_score_are_said(tmp_path, monkeypatch):
    score = fakes.Brightness.score

    def fails_on_red(self, images, prompts):
        if any(image[..., 2].max() < 100 and image[..., 0].max() > 200 for image in images):
            raise MemoryError("too large")
        return score(self, images, prompts)

    monkeypatch.setattr(fakes.Brightness, "score", fails_on_red)
    output = curate(tmp_path, released(tmp_path / "in"), "--subset", "bright").output
    assert "1 of 4 pairs have no score, e.g. MemoryError: too large; no subset by brightness has them" in output
    assert f"to score them again, delete {tmp_path / 'cache' / 'scores'}" in output
