"""Tars as a corpus: members are read in place, the index is built once, and what a cut lost is listed."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from pairs import BLUE, COLORS, GREEN, RED, color, encoded, noise, problems, tar

from bench.corpus import BadPair
from bench.errors import BenchError
from data_curation import tar_index as index_module
from data_curation.webdataset import WebDataset


def three() -> dict[str, bytes]:
    """Members of three pairs, 64 px of noise each so that a cut hits data."""
    members = {}
    for number in range(3):
        members |= {f"{number:03d}.jpg": noise(number), f"{number:03d}.txt": f"caption {number}".encode()}
    return members


def opened(path, **settings):
    return WebDataset(path, path.parent / "cache", 16, **settings)


def test_pairs_of_several_tars_come_in_order(tmp_path):
    for name, colors in (("b.tar", ["blue"]), ("a.tar", ["red", "green"])):
        members = {}
        for c in colors:
            members |= {f"{c}.png": encoded(COLORS[c]), f"{c}.txt": f" a {c} one\n".encode()}
        tar(tmp_path / "in" / name, members)
    corpus = opened(tmp_path / "in")
    assert [corpus.caption(i) for i in range(3)] == ["a red one", "a green one", "a blue one"]
    assert [color(corpus.image(i)) for i in range(3)] == ["red", "green", "blue"]
    assert corpus.label(2) == "b.tar/blue" and corpus.problems() == []


def test_captions_and_tags_may_lie_in_json(tmp_path):
    described = {"caption": "from json", "kind": "poster", "score": 3, "nested": {"a": 1}}
    members = {
        "1.json": json.dumps(described).encode(), "1.jpg": encoded(RED, form="JPEG"),
        "2.jpg": encoded(BLUE, form="JPEG"), "2.txt": b"from txt", "2.json": json.dumps(described).encode(),
        "3.png": encoded(GREEN), "3.json": b'{"text": "another key"}',
    }  # fmt: skip
    corpus = opened(tar(tmp_path / "x.tar", members))
    assert [corpus.caption(i) for i in range(3)] == ["from json", "from txt", "another key"]
    assert corpus.tags(0) == corpus.tags(1) == {"kind": "poster", "score": "3"} and corpus.tags(2) == {}


def test_names_may_have_folders_and_further_dots(tmp_path):
    members = {"a/1.png": encoded(RED), "a/1.txt": b"one", "b/1.img.png": encoded(BLUE), "b/1.txt": b"other"}
    corpus = opened(tar(tmp_path / "x.tar", members))
    assert [corpus.caption(i) for i in range(2)] == ["one", "other"]
    assert [color(corpus.image(i)) for i in range(2)] == ["red", "blue"]


def test_other_members_are_nobodys_business(tmp_path):
    corpus = opened(tar(tmp_path / "x.tar", {"1.cls": b"7", "1.png": encoded(), "1.txt": b"one", "README": b"hello"}))
    assert len(corpus) == 1 and corpus.problems() == []


# -- what is left out --------------------------------------------------------------------------------------------------


def test_half_a_pair_is_left_out(tmp_path):
    members = {
        "1.png": encoded(),
        "1.txt": b"one",
        "2.png": encoded(),
        "3.txt": b"three",
        "4.png": encoded(),
        "4.txt": b" ",
    }
    members |= {"5.png": encoded(), "5.txt": b"caf\xe9", "6.png": encoded(), "6.json": b"{"}
    found = problems(opened(tar(tmp_path / "x.tar", members)))
    assert set(found) == {f"x.tar/{number}" for number in (2, 3, 4, 5, 6)}
    assert found["x.tar/3"] == "it has no picture" and found["x.tar/4"] == "its caption is empty"
    assert "it has no caption" in found["x.tar/2"]


def test_a_tar_cut_inside_a_picture_keeps_what_is_before_and_says_what_is_lost(tmp_path):
    path = tar(tmp_path / "x.tar", three())
    with tarfile.open(path) as file:
        middle = file.getmember("002.jpg").offset_data + 100
    path.write_bytes(path.read_bytes()[:middle])
    corpus = opened(path)
    assert [corpus.caption(i) for i in range(len(corpus))] == ["caption 0", "caption 1"]
    assert problems(corpus) == {"x.tar/002.jpg": "lost: the tar was cut short inside it"}
    assert corpus.image(1).shape == (16, 16, 3)


@pytest.mark.parametrize("where", ["in a header", "between members", "before the end"])
def test_a_tar_cut_elsewhere_is_noticed(tmp_path, where):
    path = tar(tmp_path / "x.tar", three())
    with tarfile.open(path) as file:
        last, header = file.getmember("002.txt"), file.getmember("002.jpg").offset
    end = {"in a header": header + 100, "between members": header, "before the end": last.offset_data + 512}[where]
    path.write_bytes(path.read_bytes()[:end])
    corpus = opened(path)
    assert len(corpus) == (3 if where == "before the end" else 2)
    (reason,) = problems(corpus).values()
    assert "cut short or damaged after" in reason


def test_a_damaged_header_is_noticed(tmp_path):
    path = tar(tmp_path / "x.tar", three())
    with tarfile.open(path) as file:
        header = file.getmember("001.jpg").offset
    data = bytearray(path.read_bytes())
    data[header : header + 512] = b"\xff" * 512
    path.write_bytes(data)
    corpus = opened(path)
    assert len(corpus) == 1 and "damaged after 000.txt" in problems(corpus)["x.tar"]


@pytest.mark.parametrize("data", [b"", b"no tar", bytes(100), b"\xff" * 2000])
def test_a_tar_that_is_none_ends_in_one_line(tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(BenchError, match=r"holds no usable image-caption pair; 1 left out, e\.g\. x\.tar: cut short"):
        opened(tmp_path / "x.tar")


def test_one_bad_tar_of_several_costs_only_its_own_pairs(tmp_path):
    tar(tmp_path / "in" / "a.tar", three())
    (tmp_path / "in" / "b.tar").write_bytes(b"no tar")
    corpus = opened(tmp_path / "in")
    assert len(corpus) == 3 and set(problems(corpus)) == {"b.tar"}


def test_a_link_in_a_tar_leads_nowhere(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
        for name, data in {"1.txt": b"one", "2.png": encoded(), "2.txt": b"two"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    corpus = opened(path)
    assert [corpus.caption(i) for i in range(len(corpus))] == ["two"]
    assert problems(corpus)["x.tar/1.png"] == "it is a link, not a file"


def test_a_member_that_is_no_picture_cannot_be_had(tmp_path):
    corpus = opened(tar(tmp_path / "x.tar", {"1.jpg": b"<html>", "1.txt": b"one"}))
    with pytest.raises(BadPair, match="cannot be read as a picture"):
        corpus.read(0)


def test_a_tar_that_has_shrunk_since_cannot_be_had(tmp_path):
    path = tar(tmp_path / "x.tar", three())
    corpus = opened(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadPair, match="has become shorter"):
        corpus.image(2)


# -- the index ---------------------------------------------------------------------------------------------------------


def test_the_index_is_built_once(tmp_path, monkeypatch):
    path = tar(tmp_path / "x.tar", three() | {"lonely.txt": b"x"})
    first = opened(path)
    monkeypatch.setattr(index_module, "_samples", None)  # building it again would break
    again = opened(path)
    assert again.fingerprint == first.fingerprint and problems(again) == problems(first) != {}
    assert (again.image(2) == first.image(2)).all()


def test_another_tar_under_the_name_is_indexed_anew(tmp_path):
    path = tar(tmp_path / "x.tar", three())
    first = opened(path)
    tar(path, {"1.png": encoded(), "1.txt": b"another"})
    second = opened(path)
    assert second.caption(0) == "another" and second.fingerprint != first.fingerprint


def test_a_damaged_index_ends_in_one_line(tmp_path):
    opened(tar(tmp_path / "x.tar", three()))
    (index,) = (tmp_path / "cache" / "corpora" / "tars").iterdir()
    index.write_bytes(b"PAR1")
    with pytest.raises(BenchError, match="is damaged; delete it and the tar is indexed again"):
        opened(tmp_path / "x.tar")
