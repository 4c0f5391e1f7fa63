"""A folder of pictures as a corpus: what cannot be used is listed with its reason and replaced by nothing."""

from __future__ import annotations

import csv
import errno
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pairs import BLUE, RED, bomb, encoded, lines, noise, problems
from PIL import Image

from bench import pictures
from bench.corpus import BadPair
from bench.errors import BenchError
from bench.records import DiskFull
from data_curation.image_folder import ImageFolder


def picture(path: Path, size: tuple[int, int] = (20, 20), color: tuple[int, ...] = RED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def row(name: str, text: object = "a caption") -> dict[str, object]:
    return {"file_name": name, "text": text}


def opened(folder: Path, resolution: int = 16, **settings: object) -> ImageFolder:
    return ImageFolder(folder, folder.parent / "cache", resolution, **settings)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with one good pair."""
    picture(tmp_path / "in" / "good.png")
    lines(tmp_path / "in" / "metadata.jsonl", row("good.png", "  a red picture\n"))
    return tmp_path / "in"


def with_row(folder: Path, *rows: object) -> dict[str, str]:
    """Problems of the folder with these rows after its good one."""
    lines(folder / "metadata.jsonl", row("good.png", "a red picture"), *rows)
    corpus = opened(folder)
    assert len(corpus) == 1 and corpus.caption(0) == "a red picture"
    return problems(corpus)


# -- the three tables, and captions beside the pictures ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_table_lists_the_pairs_in_its_order(tmp_path, kind):
    folder = tmp_path / "in"
    picture(folder / "sub" / "blue.jpg", color=BLUE)
    picture(folder / "good.png")
    rows = [row("sub/blue.jpg", 'blue, "very"\nblue') | {"kind": "x"}, row("good.png", " red ") | {"kind": "y"}]
    if kind == "jsonl":
        lines(folder / "metadata.jsonl", *rows)
    else:
        frame = pd.DataFrame(rows)
        frame.to_csv(folder / "metadata.csv", index=False) if kind == "csv" else frame.to_parquet(
            folder / "metadata.parquet"
        )
    corpus = opened(folder)
    assert [corpus.caption(i) for i in range(len(corpus))] == ['blue, "very"\nblue', "red"]
    assert corpus.image(0)[8, 8].argmax() == 2 and corpus.image(1)[8, 8].argmax() == 0
    assert corpus.problems() == [] and corpus.name == "in" and corpus.label(0) == "sub/blue.jpg"
    assert [corpus.tags(i) for i in range(2)] == [{"kind": "x"}, {"kind": "y"}]


def test_captions_may_lie_beside_the_pictures(tmp_path):
    for name in ("b.PNG", "a.webp", "c.jpeg", "sub/d.png"):
        picture(tmp_path / "in" / name).with_suffix(".txt").write_text(f"caption of {name}\n")
    picture(tmp_path / "in" / "e.png")
    (tmp_path / "in" / "notes.md").write_text("no picture")
    corpus = opened(tmp_path / "in")
    names = ["a.webp", "b.PNG", "c.jpeg", "sub/d.png"]
    assert [corpus.caption(i) for i in range(4)] == [f"caption of {name}" for name in names]
    assert problems(corpus) == {"e.png": "its caption is empty"}


def test_another_column_may_hold_the_captions(folder):
    lines(folder / "metadata.jsonl", {"file_name": "good.png", "text": "no", "prompt": "yes"})
    assert opened(folder, caption="prompt").caption(0) == "yes"


def test_two_tables_are_one_too_many(folder):
    (folder / "metadata.csv").write_text("file_name,text\n")
    with pytest.raises(BenchError, match=r"holds metadata\.jsonl and metadata\.csv; keep one of them"):
        opened(folder)


def test_a_long_caption_in_a_csv_is_read(folder):
    (folder / "metadata.jsonl").unlink()
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "text"), ("good.png", "x" * 200_000)])
    assert len(opened(folder).caption(0)) == 200_000


def test_damaged_rows_of_a_csv_are_left_out(folder):
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_bytes(b"file_name,text\ngood.png,fine\ngood.png\ngood.png,caf\xe9\n,nothing\n")
    corpus = opened(folder)
    assert len(corpus) == 1 and len(corpus.problems()) == 3


def test_a_table_that_is_no_parquet_file_ends_in_one_line(folder):
    (folder / "metadata.jsonl").rename(folder / "metadata.parquet")
    with pytest.raises(BenchError, match=r"metadata\.parquet is no whole Parquet file"):
        opened(folder)


def test_a_table_without_the_columns_ends_in_one_line(folder):
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text("a,b\nx,y\n")
    with pytest.raises(BenchError, match=r"1 left out, .*no row with file_name and text"):
        opened(folder)


# -- what is left out --------------------------------------------------------------------------------------------------


def test_a_missing_picture_and_a_folder_are_left_out(folder):
    (folder / "sub").mkdir()
    assert set(with_row(folder, row("none.png"), row("sub"), row(""))) == {"none.png", "sub", ""}


@pytest.mark.parametrize("caption", ["", "   ", "\n\t"])
def test_an_empty_caption_is_left_out(folder, caption):
    picture(folder / "mute.png")
    assert with_row(folder, row("mute.png", caption)) == {"mute.png": "its caption is empty"}


@pytest.mark.parametrize("caption", [None, 3, {"long": "x"}])
def test_a_caption_that_is_no_text_is_left_out(folder, caption):
    picture(folder / "odd.png")
    assert with_row(folder, row("odd.png", caption)) == {"odd.png": "its caption is no text"}


def test_a_caption_may_hold_any_line_separator(folder):
    text = "two\u2028lines\x85of text"
    (folder / "metadata.jsonl").write_text(json.dumps(row("good.png", text), ensure_ascii=False), encoding="utf-8")
    assert opened(folder).caption(0) == text


def test_a_file_name_that_leaves_the_folder_is_left_out(folder):
    outside = picture(folder.parent / "secret.png")
    sibling = picture(folder.parent / "in-other" / "x.png")  # shares the folder's prefix
    (folder / "link.png").symlink_to(outside)
    (folder / "out").symlink_to(folder.parent / "in-other")
    names = ["../secret.png", str(outside), str(sibling), "sub/../../secret.png", "link.png", "out/x.png", ".."]
    found = with_row(folder, *map(row, names))
    assert found == dict.fromkeys(names, "its file name leaves the folder")


def test_a_link_that_stays_inside_is_followed(folder):
    (folder / "again.png").symlink_to("good.png")
    lines(folder / "metadata.jsonl", row("again.png"))
    assert opened(folder).image(0).shape == (16, 16, 3)


def test_a_loop_of_links_is_left_out(folder):
    (folder / "a.png").symlink_to("b.png")
    (folder / "b.png").symlink_to("a.png")
    assert set(with_row(folder, row("a.png"))) == {"a.png"}


def test_captions_beside_pictures_do_not_leave_the_folder_either(folder):
    (folder / "metadata.jsonl").unlink()
    (folder.parent / "secret.txt").write_text("a secret")
    (folder / "good.txt").symlink_to(folder.parent / "secret.txt")
    with pytest.raises(BenchError, match="its caption is empty"):
        opened(folder)


def test_a_file_name_may_wander_inside_the_folder(folder):
    (folder / "sub").mkdir()
    lines(folder / "metadata.jsonl", row("good.png"), row("./sub/../good.png", "again"))
    assert len(opened(folder)) == 2


@pytest.mark.parametrize("line", ["{", "[]", "3", "null", '{"file_name": "good.png"}', '{"text": "x"}', "\x00"])
def test_a_damaged_line_of_the_table_is_named(folder, line):
    assert with_row(folder, line) == {"metadata.jsonl:2": "no row with file_name and text"}


@pytest.mark.parametrize("name", ["a\x00b.png", "x" * 5000 + ".png"])
def test_a_file_name_that_no_file_can_have_is_left_out(folder, name):
    assert len(with_row(folder, row(name))) == 1


def test_a_file_too_long_to_be_a_picture_is_left_out(folder, monkeypatch):
    (folder / "big.png").write_bytes(bytes(5000))
    monkeypatch.setattr(pictures, "MAX_BYTES", 4999)
    assert with_row(folder, row("big.png")) == {"big.png": "its picture takes 5000 bytes, more than the 4999 allowed"}


@pytest.mark.parametrize("name", ["metadata.jsonl", "good.txt"])
def test_text_in_another_encoding_ends_in_one_line_or_is_left_out(folder, name):
    (folder / "metadata.jsonl").unlink()
    (folder / name).write_bytes('{"file_name": "good.png", "text": "caf\xe9"}'.encode("latin-1"))
    with pytest.raises(BenchError) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_valid_pair_ends_in_one_line(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(BenchError, match="holds no usable image-caption pair"):
        opened(tmp_path / "in")
    picture(tmp_path / "in" / "a.png")
    lines(tmp_path / "in" / "metadata.jsonl", row("a.png", ""), row("b.png"))
    with pytest.raises(BenchError, match=r"pair; 2 left out, e\.g\. a\.png: its caption is empty") as caught:
        opened(tmp_path / "in")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", noise(form="PNG")[:3000], bomb()])
def test_opening_decodes_nothing_and_asking_says_what_is_wrong(folder, data):
    (folder / "bad.png").write_bytes(data)
    lines(folder / "metadata.jsonl", row("bad.png"), row("good.png"))
    corpus = opened(folder)
    assert len(corpus) == 2 and corpus.problems() == []
    with pytest.raises(BadPair):
        corpus.image(0)
    assert corpus.image(1).shape == (16, 16, 3)


def test_a_picture_that_is_gone_since_cannot_be_had(folder):
    corpus = opened(folder)
    (folder / "good.png").unlink()
    with pytest.raises(BadPair, match="not there"):
        corpus.image(0)


def test_a_png_called_jpg_is_a_picture_all_the_same(folder):
    (folder / "x.jpg").write_bytes(encoded(BLUE))
    lines(folder / "metadata.jsonl", row("x.jpg"))
    assert (opened(folder).image(0) == BLUE).all()


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_buckets_keep_the_shape(tmp_path):
    for name, size in {"wide": (640, 384), "tall": (300, 500), "square": (99, 99)}.items():
        picture(tmp_path / "in" / f"{name}.png", size).with_suffix(".txt").write_text(name)
    square, shaped = opened(tmp_path / "in", 64), opened(tmp_path / "in", 64, aspect_buckets=True)
    assert [square.size(i) for i in range(3)] == [(64, 64)] * 3
    assert {shaped.caption(i): shaped.size(i) for i in range(3)} == {
        "wide": (80, 48), "tall": (48, 80), "square": (64, 64),
    }  # fmt: skip
    for corpus in (square, shaped):
        assert all(corpus.image(i).shape == (*corpus.size(i)[::-1], 3) for i in range(3))
    assert square.fingerprint != shaped.fingerprint


def test_the_fingerprint_follows_pictures_captions_and_resolution(folder):
    first = opened(folder).fingerprint
    assert opened(folder).fingerprint == first != opened(folder, 32).fingerprint
    lines(folder / "metadata.jsonl", row("good.png", "another caption"))
    second = opened(folder).fingerprint
    picture(folder / "good.png", (33, 33))
    assert len({first, second, opened(folder).fingerprint}) == 3


def test_the_fingerprint_does_not_depend_on_where_the_folder_lies(folder):
    first = opened(folder).fingerprint
    assert opened(folder.rename(folder.parent / "moved")).fingerprint == first


def test_a_full_disk_ends_in_one_line_and_leaves_nothing_behind(folder, monkeypatch):
    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFull, match="the disk is full: could not write the listing"):
        opened(folder)
    assert not list((folder.parent / "cache" / "corpora" / "listings").iterdir())


def test_workers_may_get_a_corpus_by_pickle(folder):
    corpus = opened(folder)
    other = pickle.loads(pickle.dumps(corpus))
    assert other.caption(0) == corpus.caption(0) and other.key(0) == corpus.key(0)
    assert (other.image(0) == corpus.image(0)).all() and np.array_equal(other.size(0), corpus.size(0))
