"""The released layout: which caption is taken, which lines are left out, and whose picture is whose."""

from __future__ import annotations

import hashlib
import json

import pytest
from pairs import BLUE, GREEN, RED, color, encoded, hy_soar, lines, noise, problems

from bench.corpus import BadPair
from bench.errors import BenchError
from data_curation.hy_soar import HYSOAR

GOOD = {"caption_en": "a red picture", "bw": 512, "bh": 512}


@pytest.fixture
def folder(tmp_path):
    """A folder whose first line is a good pair; ``add`` writes more lines after it."""
    path = hy_soar(tmp_path / "in", {"red": "a red picture"})
    good = json.loads(path.read_text())

    def add(*rows: object) -> dict[str, str]:
        lines(path, good, *rows)
        corpus = HYSOAR(path, tmp_path / "cache", 16)
        assert len(corpus) == 1 and corpus.caption(0) == "a red picture"
        return problems(corpus)

    add.images, add.md5, add.path = tmp_path / "in" / "images", good["md5"], path
    return add


def test_pairs_come_in_the_order_of_the_lines(tmp_path):
    corpus = HYSOAR(hy_soar(tmp_path / "in"), tmp_path / "cache", 16)
    assert [corpus.caption(i) for i in range(3)] == ["a red picture", "a green picture", "a blue picture"]
    assert [color(corpus.image(i)) for i in range(3)] == ["red", "green", "blue"]
    assert corpus.problems() == [] and corpus.name == "train.jsonl"


def test_a_folder_with_several_files_of_lines_is_one_corpus(tmp_path):
    first = hy_soar(tmp_path, {"red": "one"}).rename(tmp_path / "a.jsonl")
    hy_soar(tmp_path, {"blue": "two"}).rename(tmp_path / "b.jsonl")
    corpus = HYSOAR(first.parent, tmp_path / "cache", 16)
    assert [corpus.caption(i) for i in range(len(corpus))] == ["one", "two"]


def test_pictures_may_lie_beside_the_lines_or_elsewhere(tmp_path):
    path = hy_soar(tmp_path / "in")
    (tmp_path / "in" / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(BenchError, match="3 left out"):
        HYSOAR(path, tmp_path / "cache", 16)
    assert len(HYSOAR(path, tmp_path / "cache", 16, images=str(tmp_path / "elsewhere"))) == 3
    assert len(HYSOAR(path, tmp_path / "cache", 16, images="../elsewhere")) == 3
    with pytest.raises(BenchError, match=r"folder of pictures .*nowhere is not there"):
        HYSOAR(path, tmp_path / "cache", 16, images="nowhere")
    for picture in (tmp_path / "elsewhere").iterdir():
        picture.rename(tmp_path / "in" / picture.name)
    assert len(HYSOAR(path, tmp_path / "cache", 16)) == 3


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("length", ["long", "medium", "short"])
def test_a_caption_may_be_chosen_among_three(tmp_path, as_text, length):
    three = {"long_caption": "a very red picture", "medium_caption": "a red picture", "short_caption": "red"}
    path = hy_soar(tmp_path / "in", {"red": json.dumps(three) if as_text else three})
    assert HYSOAR(path, tmp_path / "cache", 16, caption=length).caption(0) == three[f"{length}_caption"]
    assert HYSOAR(path, tmp_path / "cache", 16).caption(0) == three["long_caption"]


@pytest.mark.parametrize(
    ("captions", "chosen"),
    [
        ({"text": "t", "short_caption": "s", "medium_caption": "m", "long_caption": "l"}, "l"),
        ({"text": "t", "short_caption": "s", "medium_caption": "m", "long_caption": ""}, "m"),
        ({"text": "t", "short_caption": "s", "medium_caption": None}, "s"),
        ({"text": "t", "short_caption": "  ", "other": "o"}, "t"),
    ],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_the_first_caption_that_is_not_empty_is_taken(tmp_path, captions, chosen, as_text):
    """The release's rule: `_parse_caption` in soar/utils/data.py."""
    path = hy_soar(tmp_path / "in", {"red": json.dumps(captions) if as_text else captions})
    assert HYSOAR(path, tmp_path / "cache", 16).caption(0) == chosen


def test_an_object_without_a_caption_says_what_it_has(folder):
    (reason,) = folder(GOOD | {"md5": folder.md5, "caption_en": {"long": "x", "short": "y"}}).values()
    assert reason == ("its caption_en has no long_caption or medium_caption or short_caption or text, but long, short")


@pytest.mark.parametrize("written", [str.upper, str.lower])
@pytest.mark.parametrize("named", [str.upper, str.lower])
def test_the_digits_of_an_md5_may_be_capitals(tmp_path, written, named):
    data = encoded(BLUE, form="JPEG")
    md5 = hashlib.md5(data).hexdigest()
    assert md5.upper() != md5.lower()
    (tmp_path / f"{named(md5)}.jpg").write_bytes(data)
    corpus = HYSOAR(lines(tmp_path / "train.jsonl", GOOD | {"md5": written(md5)}), tmp_path / "cache", 16)
    assert color(corpus.image(0)) == "blue"


def test_lines_that_a_system_or_an_editor_left_are_no_lines(tmp_path):
    path = hy_soar(tmp_path / "in", {"red": "one"})
    for name in ("._train.jsonl", ".ipynb_checkpoints/train-checkpoint.jsonl"):
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).write_bytes(path.read_bytes())
    (path.parent / "folder.jsonl").mkdir()
    corpus = HYSOAR(path.parent, tmp_path / "cache", 16)
    assert len(corpus) == 1 and corpus.problems() == []


def test_a_byte_order_mark_before_the_lines_is_none_of_them(tmp_path):
    path = hy_soar(tmp_path / "in", {"red": "\ufeffone"})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    corpus = HYSOAR(path, tmp_path / "cache", 16)
    assert corpus.caption(0) == "one" and corpus.problems() == []


def test_another_choice_of_caption_is_another_corpus(tmp_path):
    path = hy_soar(tmp_path / "in", {"red": {"long_caption": "long one", "short_caption": "short one"}})
    assert len({HYSOAR(path, tmp_path / "cache", 16, caption=c).fingerprint for c in ("long", "short")}) == 2


@pytest.mark.parametrize("caption", ["{not json", "{}x", "[1, 2]", '"quoted"', "3"])
def test_a_caption_that_only_looks_like_json_is_a_caption(tmp_path, caption):
    assert HYSOAR(hy_soar(tmp_path / "in", {"red": caption}), tmp_path / "cache", 16).caption(0) == caption


def test_an_unknown_choice_ends_in_one_line(tmp_path):
    with pytest.raises(BenchError, match="unknown caption length 'shrt'; did you mean 'short'"):
        HYSOAR(hy_soar(tmp_path / "in"), tmp_path / "cache", 16, caption="shrt")


# -- what is left out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", "null", '{"md5": 3, "caption_en": "x"}', '{"md5": "x"}', "\x00", "[" * 9999]
)
def test_a_line_that_is_no_pair_is_named(folder, line):
    assert folder(line) == {"train.jsonl:2": "no JSON line with md5 and caption_en"}


@pytest.mark.parametrize(
    "md5", ["", "../secret", "/etc/passwd", "0" * 31, "G" * 32, "0" * 32 + "\n", "0" * 16 + "/" + "0" * 15]
)
def test_an_md5_that_is_none_opens_no_file(folder, md5):
    assert folder(GOOD | {"md5": md5}) == {"train.jsonl:2": "its md5 is not 32 hexadecimal digits"}


def test_a_picture_that_is_not_there_is_left_out(folder):
    assert folder(GOOD | {"md5": "0" * 32}) == {"train.jsonl:2": f"{'0' * 32}.jpg: its file is not there"}


def test_a_link_that_leads_out_is_left_out(folder, tmp_path):
    data = encoded(BLUE, form="JPEG")
    md5 = hashlib.md5(data).hexdigest()
    (tmp_path / "secret.jpg").write_bytes(data)
    (folder.images / f"{md5}.jpg").symlink_to(tmp_path / "secret.jpg")
    assert "leaves the folder" in folder(GOOD | {"md5": md5})["train.jsonl:2"]


@pytest.mark.parametrize(
    "caption", ["", "  \n", None, 3, ["x"], {}, '{"medium": "x"}', {"text": ""}, {"long_caption": 3}, "nan", "None"]
)
def test_a_caption_that_is_none_is_left_out(folder, caption):
    (item,) = folder(GOOD | {"md5": folder.md5, "caption_en": caption}).values()
    assert "caption" in item


def test_a_caption_of_broken_unicode_is_left_out(folder):
    (reason,) = folder(json.dumps(GOOD | {"md5": folder.md5, "caption_en": "x\ud800"})).values()
    assert "no valid Unicode" in reason


@pytest.mark.parametrize("sides", [{"bw": -1}, {"bh": "wide"}, {"bw": 1.5}, {"bh": 10**9}, {"bw": True}])
def test_a_bucket_that_is_none_is_left_out(folder, sides):
    (reason,) = folder(GOOD | {"md5": folder.md5} | sides).values()
    assert "bw and bh" in reason


@pytest.mark.parametrize("data", [encoded(GREEN, form="JPEG"), b"no picture", noise()[:900]])
def test_a_picture_under_anothers_name_cannot_be_had(tmp_path, data):
    path = hy_soar(tmp_path / "in", {"red": "red"})
    (picture,) = (tmp_path / "in" / "images").iterdir()
    picture.write_bytes(data)
    corpus = HYSOAR(path, tmp_path / "cache", 16)
    for ask in (corpus.image, corpus.key, corpus.read):
        with pytest.raises(BadPair, match="its MD5 is"):
            ask(0)


def test_a_jpg_that_is_no_picture_cannot_be_had_although_its_md5_is_right(tmp_path):
    data = b"<html>404</html>"
    md5 = hashlib.md5(data).hexdigest()
    (tmp_path / f"{md5}.jpg").write_bytes(data)
    corpus = HYSOAR(lines(tmp_path / "train.jsonl", GOOD | {"md5": md5}), tmp_path / "cache", 16)
    with pytest.raises(BadPair, match="cannot be read as a picture"):
        corpus.image(0)
    assert len(corpus.key(0)) == 64  # the bytes are there


def test_no_valid_line_ends_in_one_line(tmp_path):
    with pytest.raises(
        BenchError, match=r"holds no usable image-caption pair; 2 left out, e\.g\. train\.jsonl:1: no JSON"
    ):
        HYSOAR(lines(tmp_path / "train.jsonl", "{", "}"), tmp_path / "cache", 16)
    with pytest.raises(BenchError, match=r"holds no usable image-caption pair$"):
        HYSOAR(lines(tmp_path / "train.jsonl"), tmp_path / "cache", 16)


# -- size, key, tags ---------------------------------------------------------------------------------------------------


def test_the_listed_bucket_gives_the_shape(tmp_path):
    path = hy_soar(tmp_path / "in", {"red": "red"}, bw=640, bh=384)
    assert HYSOAR(path, tmp_path / "cache", 64).size(0) == (64, 64)
    corpus = HYSOAR(path, tmp_path / "cache", 64, aspect_buckets=True)
    assert corpus.size(0) == (80, 48) and corpus.image(0).shape == (48, 80, 3)


def test_without_a_listed_bucket_the_picture_gives_the_shape(tmp_path):
    path = hy_soar(tmp_path / "in", {"red": "red"}, bw=None, bh=None)
    corpus = HYSOAR(path, tmp_path / "cache", 64, aspect_buckets=True)
    assert corpus.size(0) == (64, 64) and corpus.image(0).shape == (64, 64, 3)


def test_the_key_is_of_the_stored_picture_and_the_caption(tmp_path):
    path = hy_soar(tmp_path / "in", {"red": "a red one"})
    data = encoded(RED, form="JPEG")
    for resolution in (16, 32):
        corpus = HYSOAR(path, tmp_path / "cache", resolution)
        image, key = corpus.read(0)
        assert key == corpus.key(0) == hashlib.sha256(data + b"\0a red one").hexdigest()
        assert (image == corpus.image(0)).all()


def test_further_keys_are_tags(tmp_path):
    corpus = HYSOAR(
        hy_soar(tmp_path / "in", {"red": "red"}, kind="poster", year=1999, list=[1]), tmp_path / "cache", 16
    )
    assert corpus.tags(0) == {"kind": "poster", "year": "1999"}
