"""Tars as a corpus: members are read in place, the index is built once, and what a cut lost is listed."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile

import pandas as pd
import pytest
from pairs import BLUE, COLORS, GREEN, RED, color, encoded, noise, problems, tar

from bench.corpus import BadPair
from bench.errors import BenchError
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


# -- which members belong together -------------------------------------------------------------------------------------


def pairs_of(corpus: WebDataset) -> dict[str, tuple[str, str]]:
    """Caption and colour of each pair."""
    return {corpus.label(i): (corpus.caption(i), color(corpus.image(i))) for i in range(len(corpus))}


@pytest.mark.parametrize(
    "order",
    [
        ["22.05.png", "22.05.txt", "22.06.png", "22.06.txt", "22.07.png", "22.07.txt"],
        ["22.05.png", "22.06.png", "22.07.png", "22.05.txt", "22.06.txt", "22.07.txt"],
    ],
)
def test_numbers_after_a_dot_are_part_of_a_name(tmp_path, order):
    named = dict(zip(("22.05", "22.06", "22.07"), ("red", "green", "blue"), strict=True))
    members = {n: encoded(COLORS[named[n[:5]]]) if n.endswith("png") else named[n[:5]].encode() for n in order}
    corpus = opened(tar(tmp_path / "x.tar", members))
    assert pairs_of(corpus) == {f"x.tar/{name}": (c, c) for name, c in named.items()} and corpus.problems() == []


def test_a_picture_and_the_caption_of_another_number_are_no_pair(tmp_path):
    members = {"1.png": encoded(), "1.txt": b"one", "22.05.png": encoded(), "22.06.txt": b"another's"}
    assert set(problems(opened(tar(tmp_path / "x.tar", members)))) == {"x.tar/22.05", "x.tar/22.06"}


def test_words_after_a_dot_tell_names_apart_where_they_must(tmp_path):
    members = {
        "st.paul.png": encoded(RED), "st.paul.txt": b"red",
        "st.peter.png": encoded(BLUE), "st.peter.txt": b"blue",
    }  # fmt: skip
    corpus = opened(tar(tmp_path / "x.tar", members))
    assert pairs_of(corpus) == {"x.tar/st.paul": ("red", "red"), "x.tar/st.peter": ("blue", "blue")}
    assert corpus.problems() == []


def test_a_second_picture_and_a_second_caption_are_listed_and_replace_nothing(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:
        for name, data in (
            ("1.png", encoded(RED)), ("1.txt", b"red"), ("1.jpg", encoded(BLUE, form="JPEG")),
            ("2.png", encoded(GREEN)), ("2.txt", b"green"), ("1.txt", b"blue"), ("2.png", encoded(BLUE)),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    corpus = opened(path)
    assert pairs_of(corpus) == {"x.tar/1": ("red", "red"), "x.tar/2": ("green", "green")}
    assert [(problem.item, problem.reason) for problem in corpus.problems()] == [
        ("x.tar/1.jpg", "a second picture of 1, which has 1.png"),
        ("x.tar/1.txt", "a second caption of 1, which has 1.txt"),
        ("x.tar/2.png", "a second picture of 2, which has 2.png"),
    ]


def test_two_pictures_of_one_caption_are_no_pair(tmp_path):
    members = {"1.png": encoded(), "1.txt": b"one", "2.image.png": encoded(), "2.mask.png": encoded(), "2.txt": b"two"}
    corpus = opened(tar(tmp_path / "x.tar", members))
    assert [corpus.caption(i) for i in range(len(corpus))] == ["one"]
    assert set(problems(corpus)) == {"x.tar/2", "x.tar/2.image", "x.tar/2.mask"}


@pytest.mark.parametrize(
    "left", ["._1.png", "a/._1.png", "__MACOSX/._1.png", "__MACOSX/1.png", ".git/1.png", ".ipynb_checkpoints/1.png"]
)
def test_what_systems_leave_is_no_member(tmp_path, left):
    members = {"1.png": encoded(RED), "1.txt": b"red", left: encoded(BLUE), left.replace("png", "txt"): b"blue"}
    corpus = opened(tar(tmp_path / "x.tar", members))
    assert pairs_of(corpus) == {"x.tar/1": ("red", "red")} and corpus.problems() == []


def test_members_may_be_named_from_the_folder_they_lie_in(tmp_path):
    members = {"./1.png": encoded(RED), "./1.txt": b"red", "./caf\u00e9.png": encoded(BLUE), "cafe\u0301.txt": b"blue"}
    corpus = opened(tar(tmp_path / "x.tar", members))
    assert pairs_of(corpus) == {"x.tar/1": ("red", "red"), "x.tar/caf\u00e9": ("blue", "blue")}


def test_pictures_of_other_formats_and_compressed_tars_are_counted(tmp_path):
    members = {"1.png": encoded(), "1.txt": b"one", "2.heic": b"x", "2.txt": b"two"}
    tar(tmp_path / "in" / "x.tar", members)
    (tmp_path / "in" / "y.tar.gz").write_bytes(b"x")
    found = problems(opened(tmp_path / "in"))
    assert found == {
        "x.tar/2.heic": "its format (.heic) is none that is read",
        "x.tar/2": "it has no picture",
        "y.tar.gz": "a compressed tar; unpack it to a .tar",
    }


def test_a_folder_called_tar_is_a_folder(tmp_path):
    tar(tmp_path / "in" / "x.tar" / "y.tar", {"1.png": encoded(), "1.txt": b"one"})
    assert opened(tmp_path / "in").label(0) == "x.tar/y.tar/1"


# -- captions ----------------------------------------------------------------------------------------------------------


def test_a_missing_an_undecodable_and_an_empty_caption_are_three_reasons(tmp_path):
    members = {"0.png": encoded(), "0.txt": b"fine", "1.png": encoded(), "2.png": encoded(), "2.txt": b"caf\xe9"}
    members |= {"3.png": encoded(), "3.txt": b" ", "4.png": encoded(), "4.json": b"{", "5.png": encoded()}
    members |= {"5.json": b'{"words": "x"}', "6.png": encoded(), "6.json": b'"x"'}
    found = problems(opened(tar(tmp_path / "x.tar", members)))
    assert found["x.tar/1"] == "it has no caption: there is no .txt of its name, and no .json that has one"
    assert found["x.tar/2"] == "its caption 2.txt is no UTF-8 text (byte 3); save it as UTF-8"
    assert found["x.tar/3"] == "its caption is empty"
    assert found["x.tar/4"].startswith("it has no caption: its 4.json is no JSON (")
    assert found["x.tar/5"] == "it has no caption: its .json has no text as caption, text, caption_en, but has words"
    assert found["x.tar/6"] == "it has no caption: its 6.json is no JSON object"
    assert len(found) == 6


@pytest.mark.parametrize("name", ["1.txt", "1.json"])
def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path, name):
    text = b"\xef\xbb\xbf" + (b"a poster" if name == "1.txt" else b'{"caption": "a poster"}')
    assert opened(tar(tmp_path / "x.tar", {"1.png": encoded(), name: text})).caption(0) == "a poster"


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


@pytest.mark.skipif(shutil.which("tar") is None, reason="tarfile writes no member with holes")
def test_a_member_with_holes_is_left_out(tmp_path):
    (tmp_path / "1.bmp").write_bytes(encoded(form="BMP", size=(400, 400), color=(0, 0, 0)))
    with (tmp_path / "1.bmp").open("r+b") as file:
        head = file.read(54)
        file.truncate(0)
        file.seek(0)
        file.write(head)
        file.truncate(480_054)
    (tmp_path / "2.png").write_bytes(encoded())
    for number in "12":
        (tmp_path / f"{number}.txt").write_text(number)
    names = ["1.bmp", "1.txt", "2.png", "2.txt"]
    subprocess.run(["tar", "--sparse", "-cf", "x.tar", *names], cwd=tmp_path, check=True)
    corpus = opened(tmp_path / "x.tar")
    assert [corpus.caption(i) for i in range(len(corpus))] == ["2"]
    assert "stored with holes" in problems(corpus)["x.tar/1.bmp"]


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
    monkeypatch.setattr("tarfile.open", None)  # building it again would break
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
    whole = index.read_bytes()
    index.write_bytes(b"PAR1")
    with pytest.raises(BenchError, match="is damaged; delete it and the tar is indexed again"):
        opened(tmp_path / "x.tar")
    frame = pd.read_parquet(io.BytesIO(whole))
    frame["row"] = frame["row"].iloc[::-1].to_numpy()
    frame.to_parquet(index, index=False)
    with pytest.raises(BenchError, match="is damaged; delete it and the tar is indexed again"):
        opened(tmp_path / "x.tar")
