"""``--corpus``: every layout is recognised, settings reach its loader, and anything else ends in one line."""

from __future__ import annotations

import json
import os

import pytest
from fakes import FakeCorpus
from pairs import encoded, hy_soar, lines, noise, parquet, saved_dataset, table, tar

from bench import registry
from bench.corpus import Corpus
from bench.errors import BenchError
from data_curation import scan
from data_curation.file_corpus import FileCorpus
from data_curation.opening import LAYOUTS, open_corpus

ONE = table([encoded()], ["a"], struct=True)


def image_folder(folder):
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded())
    (folder / "a.txt").write_text("a")
    return folder


def tabled_folder(folder):
    lines(image_folder(folder) / "metadata.jsonl", {"file_name": "a.png", "text": "a"})
    return folder


MADE = {
    "HYSOAR": [lambda t: hy_soar(t / "in"), lambda t: hy_soar(t / "in").parent],
    "ImageFolder": [lambda t: image_folder(t / "in"), lambda t: tabled_folder(t / "in")],
    "WebDataset": [
        lambda t: tar(t / "in" / "x.tar", {"1.png": encoded(), "1.txt": b"a"}),
        lambda t: tar(t / "in" / "deep" / "x.tar", {"1.png": encoded(), "1.txt": b"a"}).parents[1],
    ],
    "ParquetFiles": [
        lambda t: parquet(t / "in" / "x.parquet", ONE),
        lambda t: parquet(t / "in" / "data" / "train.parquet", ONE).parents[1],
    ],
    "SavedDataset": [lambda t: saved_dataset(t / "in", ONE)],
}


@pytest.mark.parametrize(("name", "make"), [(name, make) for name, makes in MADE.items() for make in makes])
def test_every_layout_is_recognised_and_keeps_the_promises(tmp_path, name, make):
    path = make(tmp_path)
    corpus = open_corpus(str(path), tmp_path / "cache", 32, True)
    assert type(corpus).__name__ == name and isinstance(corpus, Corpus)
    assert len(corpus) >= 1 and corpus.problems() == [] and corpus.label(0)
    image, key = corpus.read(0)
    assert image.shape == (32, 32, 3) and corpus.size(0) == (32, 32) and key == corpus.key(0)
    again = open_corpus(str(path), tmp_path / "cache", 64)
    assert again.fingerprint != corpus.fingerprint and again.key(0) == key and again.size(0) == (64, 64)


def test_every_registered_loader_is_asked():
    loaders = {name: registry.load("corpora", name) for name in registry.BUILT_IN["corpora"]}
    assert set(LAYOUTS) == {name for name, loader in loaders.items() if issubclass(loader, FileCorpus)}


def test_a_metadata_table_in_parquet_is_a_folder_of_pictures(tmp_path):
    import pandas as pd

    folder = image_folder(tmp_path / "in")
    pd.DataFrame([{"file_name": "a.png", "text": "b"}]).to_parquet(folder / "metadata.parquet")
    assert type(open_corpus(str(folder), tmp_path, 16)).__name__ == "ImageFolder"


def test_settings_after_the_path_reach_the_loader(tmp_path):
    path = hy_soar(tmp_path / "in", {"red": {"long_caption": "l", "short_caption": "s"}})
    (tmp_path / "in" / "images").rename(tmp_path / "in" / "jpg")
    corpus = open_corpus(f"{path}?caption=short&images=jpg", tmp_path, 16)
    assert corpus.caption(0) == "s"
    with pytest.raises(BenchError, match="unknown corpus setting 'captoin'; did you mean 'caption'"):
        open_corpus(f"{path}?captoin=short", tmp_path, 16)
    with pytest.raises(BenchError, match="takes no settings"):
        open_corpus(f"{tar(tmp_path / 'x.tar', {'1.png': noise()})}?a=b", tmp_path, 16)


def test_a_path_may_have_a_question_mark(tmp_path):
    assert len(open_corpus(str(image_folder(tmp_path / "what?")), tmp_path / "cache", 16)) == 1


def test_what_is_not_there_gets_the_nearest_name(tmp_path):
    with pytest.raises(BenchError, match=r"unknown corpus \(or path\) 'wrld'; did you mean 'world'"):
        open_corpus("wrld", tmp_path, 16)


@pytest.mark.parametrize("name", ["notes.md", "x.jsonl", "x.tar.gz", "empty"])
def test_what_cannot_be_read_is_told_what_can(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name == "empty" else path.write_text(json.dumps({"a": 1}))
    with pytest.raises(
        BenchError, match=r"is no corpus that can be read; accepted are: .*md5.*metadata.*tar.*Parquet"
    ) as caught:
        open_corpus(str(path), tmp_path, 16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.tar", "x.jsonl", "x.parquet", "in/x.tar", "in/x.jsonl", "in/a.png"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    path = tmp_path / name.partition("/")[0]
    with pytest.raises(BenchError, match=r"is no corpus that can be read|holds no usable image-caption pair"):
        open_corpus(str(path), tmp_path / "cache", 16)


def test_a_layouts_name_asks_for_a_path(tmp_path):
    with pytest.raises(BenchError, match="webdataset is a layout; give the path of"):
        open_corpus("webdataset", tmp_path, 16)


def test_a_named_corpus_of_another_resolution_is_refused(tmp_path, monkeypatch):
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: FakeCorpus if name == "world" else load(kind, name))
    assert isinstance(open_corpus("world", tmp_path, 16, True), FakeCorpus)
    with pytest.raises(BenchError, match="the corpus world has pictures of 16 x 16 px and 512 px are asked for"):
        open_corpus("world", tmp_path, 512)


@pytest.mark.parametrize("spelled", [".", "./", "../in", "../in/", "sub/.."])
def test_a_corpus_has_the_name_of_its_folder_however_it_is_spelled(tmp_path, monkeypatch, spelled):
    image_folder(tmp_path / "in")
    (tmp_path / "in" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    assert open_corpus(spelled, tmp_path / "cache", 16).name == "in"


@pytest.mark.parametrize("folder", ["C++", "100%", "a b", "what?", "what?=a&b", "a%20b", "caf\u00e9"])
def test_a_path_and_its_settings_may_hold_any_letter(tmp_path, folder):
    path = hy_soar(tmp_path / folder / "in", {"red": "a"})
    (tmp_path / folder / "in" / "images").rename(tmp_path / folder / "pictures")
    corpus = open_corpus(f"{path}?images=../pictures", tmp_path / folder / "cache", 16)
    assert corpus.caption(0) == "a" and corpus.problems() == []
    if not set(folder) & set("&%"):  # these two need their codes, %26 and %25, in a setting
        assert len(open_corpus(f"{path}?images={tmp_path / folder / 'pictures'}", tmp_path / "cache", 16)) == 1


@pytest.mark.parametrize(("disk", "given"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_a_path_may_spell_an_accent_in_another_way(tmp_path, disk, given):
    image_folder(tmp_path / disk)
    assert len(open_corpus(str(tmp_path / given), tmp_path / "cache", 16)) == 1


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "a/" * 3000])
def test_a_path_that_none_can_be_ends_in_one_line(tmp_path, name):
    with pytest.raises(BenchError, match="corpus") as caught:
        open_corpus(name, tmp_path, 16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [image_folder, lambda path: tar(path / "x.tar", {"1.png": encoded(), "1.txt": b"a"})])
def test_a_folder_whose_name_is_no_utf8_can_be_scanned(tmp_path, make):
    folder = tmp_path / b"caf\xe9".decode("utf-8", "surrogateescape")
    make(folder)
    corpus = open_corpus(str(folder), tmp_path / "cache", 16)
    assert corpus.name == "caf\\xe9"
    assert scan.scan(corpus, tmp_path / "cache") is None and scan.usable(corpus, tmp_path / "cache")[1].kept == 1
