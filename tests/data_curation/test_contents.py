"""A corpus is known by what its files hold: another picture under an old name is another corpus, in every layout."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import pytest
from pairs import BLUE, RED, encoded, hy_soar, lines, parquet, saved_dataset, table, tar

from bench.corpus import Subset
from bench.errors import BenchError
from data_curation import contents as module
from data_curation.contents import Contents
from data_curation.curate import cut
from data_curation.opening import open_corpus


def bmp(color: tuple[int, ...]) -> bytes:
    """Pictures of as many bytes, whatever their colour."""
    return encoded(color, form="BMP")


def beside(folder: Path, color: tuple[int, ...]) -> Path:
    folder.mkdir()
    (folder / "a.bmp").write_bytes(bmp(color))
    (folder / "a.txt").write_text("a picture")
    return folder


def tabled(folder: Path, color: tuple[int, ...]) -> Path:
    folder.mkdir()
    (folder / "a.bmp").write_bytes(bmp(color))
    lines(folder / "metadata.jsonl", {"file_name": "a.bmp", "text": "a picture"})
    return folder


def released(folder: Path, color: tuple[int, ...]) -> Path:
    path = hy_soar(folder, {"red": "a picture"})
    (picture,) = (folder / "images").iterdir()
    if color != RED:  # the same length, another content
        picture.write_bytes(picture.read_bytes()[:-1] + b"\0")
    return path


LAYOUTS = {
    "beside": beside,
    "tabled": tabled,
    "released": released,
    "tar": lambda f, color: tar(f / "x.tar", {"a.bmp": bmp(color), "a.txt": b"a picture"}),
    "parquet": lambda f, color: parquet(f / "x.parquet", table([bmp(color)], ["a picture"])),
    "saved": lambda f, color: saved_dataset(f, table([bmp(color)], ["a picture"], struct=True)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_folders_that_differ_in_a_picture_alone_are_two_corpora(tmp_path, layout):
    red, again, blue = (
        open_corpus(str(LAYOUTS[layout](tmp_path / name, color)), tmp_path / "cache", 16)
        for name, color in (("one", RED), ("two", RED), ("three", BLUE))
    )
    assert red.fingerprint == again.fingerprint != blue.fingerprint


def test_cuts_follow_the_pictures(tmp_path):
    """The fault that was: the second folder had the first one's keys, so its latents and its trained weights too."""
    cuts = []
    for name, color in (("one", RED), ("two", BLUE)):
        corpus = open_corpus(str(beside(tmp_path / name, color)), tmp_path / "cache", 16)
        cuts.append(cut(corpus, Subset("all"), None, tmp_path / "cache"))
        assert cuts[-1].keys == (hashlib.sha256(bmp(color) + b"\0a picture").hexdigest(),)
    assert cuts[0].content_hash != cuts[1].content_hash


@pytest.mark.parametrize("layout", ["beside", "tabled", "released"])
def test_a_picture_exchanged_under_its_name_length_and_time_is_noticed(tmp_path, layout, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", 0.0)
    path = LAYOUTS[layout](tmp_path / "in", RED)
    first = open_corpus(str(path), tmp_path / "cache", 16).fingerprint
    (picture,) = (found for found in (tmp_path / "in").rglob("*") if found.suffix in (".bmp", ".jpg"))
    before, data = picture.stat(), picture.read_bytes()
    picture.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert open_corpus(str(path), tmp_path / "cache", 16).fingerprint != first
    picture.write_bytes(data)
    assert open_corpus(str(path), tmp_path / "cache", 16).fingerprint == first


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_second_opening_reads_no_picture(tmp_path, layout, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", 0.0)
    path = LAYOUTS[layout](tmp_path / "in", RED)
    first = open_corpus(str(path), tmp_path / "cache", 16).fingerprint
    monkeypatch.setattr(hashlib, "file_digest", None)  # hashing again would break
    assert open_corpus(str(path), tmp_path / "cache", 16).fingerprint == first


def test_a_picture_changed_while_the_corpus_is_open_ends_in_one_line(tmp_path):
    corpus = open_corpus(str(beside(tmp_path / "in", RED)), tmp_path / "cache", 16)
    (tmp_path / "in" / "a.bmp").write_bytes(bmp(BLUE))
    with pytest.raises(BenchError, match=r"a\.bmp of in was changed meanwhile; run the same command again"):
        corpus.read(0)


@pytest.mark.parametrize("layout", ["tar", "parquet", "saved"])
def test_a_file_of_pictures_changed_while_the_corpus_is_open_ends_in_one_line(tmp_path, layout):
    corpus = open_corpus(str(LAYOUTS[layout](tmp_path / "in", RED)), tmp_path / "cache", 16)
    (file,) = (found for found in (tmp_path / "in").rglob("*") if found.suffix in (".tar", ".parquet", ".arrow"))
    os.utime(file, (0, 0))
    with pytest.raises(BenchError, match=rf"{file.name} was changed meanwhile; run the same command again"):
        corpus.read(0)


# -- the hashes themselves ---------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path) -> Path:
    (tmp_path / "a").write_bytes(b"one")
    return tmp_path / "a"


def hashed(file: Path) -> object:
    with Contents(file.parent / "cache" / "kept.sqlite") as contents:
        return contents.of([file])[0]


def test_a_hash_is_of_the_content(file):
    assert hashed(file) == hashlib.sha256(b"one").hexdigest()


def test_a_file_written_a_moment_ago_is_not_kept(file):
    """It might be written once more within one tick of the clock of its disk."""
    hashed(file)
    with sqlite3.connect(file.parent / "cache" / "kept.sqlite") as kept:
        assert kept.execute("SELECT count(*) FROM contents").fetchone() == (0,)


def test_a_damaged_row_is_not_believed(file, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", 0.0)
    hashed(file)
    with sqlite3.connect(file.parent / "cache" / "kept.sqlite") as kept:
        kept.execute("UPDATE contents SET sha256 = ?", ("0" * 64,))
    assert hashed(file) == hashlib.sha256(b"one").hexdigest()


def test_a_damaged_file_of_hashes_ends_in_one_line(file):
    hashed(file)
    (file.parent / "cache" / "kept.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(BenchError, match=r"kept\.sqlite is damaged .*delete it and the files .* are hashed again"):
        hashed(file)


def test_a_cache_that_cannot_be_written_does_for_reading(file, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", 0.0)
    monkeypatch.setattr(os, "access", lambda path, mode, **options: False)
    assert hashed(file) == hashlib.sha256(b"one").hexdigest()  # no file of hashes is there
    monkeypatch.undo()
    monkeypatch.setattr(module, "SETTLED", 0.0)
    hashed(file)
    monkeypatch.setattr(os, "access", lambda path, mode, **options: False)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert hashed(file) == hashlib.sha256(b"one").hexdigest()


def test_a_file_that_is_gone_is_told_of(file):
    with Contents(file.parent / "kept.sqlite") as contents:
        one, none = contents.of([file, file.parent / "none"])
    assert one == hashlib.sha256(b"one").hexdigest() and isinstance(none, FileNotFoundError)


@pytest.mark.parametrize("name", ["C++ 100%", "what?", "a#b", b"caf\xe9".decode("utf-8", "surrogateescape")])
def test_any_path_will_do(tmp_path, name, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", 0.0)
    (tmp_path / name).mkdir()
    (tmp_path / name / "a").write_bytes(b"one")
    hashed(tmp_path / name / "a")
    assert (tmp_path / name / "cache" / "kept.sqlite").exists()
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert hashed(tmp_path / name / "a") == hashlib.sha256(b"one").hexdigest()


# -- the listing -------------------------------------------------------------------------------------------------------


def test_a_damaged_listing_in_the_cache_is_written_anew(tmp_path):
    path = beside(tmp_path / "in", RED)
    open_corpus(str(path), tmp_path / "cache", 16)
    (listing,) = (tmp_path / "cache" / "corpora" / "listings").iterdir()
    whole = listing.read_bytes()
    assert whole.count(b"a picture") == 1
    listing.write_bytes(whole.replace(b"a picture", b"a painter"))
    assert open_corpus(str(path), tmp_path / "cache", 16).caption(0) == "a picture"
    assert listing.read_bytes() == whole


def test_a_listing_that_cannot_be_written_does_for_reading(tmp_path, monkeypatch):
    path = beside(tmp_path / "in", RED)
    first = open_corpus(str(path), tmp_path / "cache", 16)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, mode, **options: False)
    again = open_corpus(str(path), tmp_path / "cache", 16)
    assert again.fingerprint == first.fingerprint and again.caption(0) == "a picture"
    (tmp_path / "in" / "a.txt").write_text("another")
    with pytest.raises(BenchError, match=r"\.arrow is not there and cannot be written; put the cache elsewhere"):
        open_corpus(str(path), tmp_path / "cache", 16)
    assert sorted(tmp_path.rglob("*")) == before
