"""A folder of pictures as a corpus: what cannot be used is listed with its reason and replaced by nothing."""

from __future__ import annotations

import csv
import errno
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pairs import BLUE, RED, bomb, encoded, lines, noise, problems
from PIL import Image

from bench.corpus import BadPair
from bench.errors import BenchError
from bench.records import DiskFull, pictures
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
    assert problems(corpus) == {"e.png": "it has no caption: e.txt: its file is not there"}


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


def test_a_damaged_table_in_parquet_ends_in_one_line(folder):
    (folder / "metadata.jsonl").unlink()
    path = folder / "metadata.parquet"
    pd.DataFrame([row("good.png")] * 50).to_parquet(path)
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    with pytest.raises(BenchError, match=r"metadata\.parquet is damaged after row 0; write it again"):
        opened(folder)


def test_a_text_of_broken_utf8_in_a_parquet_table_costs_its_own_row(folder):
    (folder / "metadata.jsonl").unlink()
    raw = pa.array([b"fine", b"caf\xe9"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    pq.write_table(pa.table({"file_name": ["good.png", "good.png"], "text": texts}), folder / "metadata.parquet")
    corpus = opened(folder)
    assert captions(corpus) == {"good.png": "fine"}
    assert problems(corpus) == {"good.png": "its caption is no valid Unicode; save it as UTF-8"}


def test_a_table_without_the_columns_ends_in_one_line(folder):
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text("a,b\nx,y\n")
    with pytest.raises(BenchError, match=r"1 left out, .*no row with file_name and text"):
        opened(folder)


# -- captions ----------------------------------------------------------------------------------------------------------

BOM = b"\xef\xbb\xbf"


def beside(tmp_path: Path, **captions: bytes | None) -> ImageFolder:
    """A folder of pictures with these captions beside them; None for no file."""
    for name, caption in captions.items():
        path = picture(tmp_path / "in" / f"{name}.png")
        if caption is not None:
            path.with_suffix(".txt").write_bytes(caption)
    return opened(tmp_path / "in")


def test_a_missing_an_undecodable_and_an_empty_caption_are_three_reasons(tmp_path):
    corpus = beside(tmp_path, a=b"fine", b=None, c=b"caf\xe9", d=b" \n", e=BOM, f="café".encode("utf-16"))
    assert [corpus.caption(i) for i in range(len(corpus))] == ["fine"]
    assert problems(corpus) == {
        "b.png": "it has no caption: b.txt: its file is not there",
        "c.png": "its caption c.txt is no UTF-8 text (byte 3); save it as UTF-8",
        "d.png": "its caption is empty",
        "e.png": "its caption is empty",
        "f.png": "its caption f.txt is no UTF-8 text (byte 0); save it as UTF-8",
    }


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path):
    corpus = beside(tmp_path, a=BOM + b"a poster")
    assert corpus.caption(0) == "a poster"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_byte_order_mark_is_no_part_of_a_table(folder, kind):
    (folder / "metadata.jsonl").unlink()
    path = folder / f"metadata.{kind}"
    if kind == "parquet":
        pd.DataFrame([row("good.png", "\ufeffa poster")]).to_parquet(path)
    elif kind == "csv":
        path.write_bytes(BOM + "file_name,text\ngood.png,\ufeffa poster\n".encode())
    else:
        path.write_bytes(BOM + json.dumps(row("good.png", "\ufeffa poster")).encode())
    corpus = opened(folder)
    assert corpus.caption(0) == "a poster" and corpus.problems() == []


def csv_of(folder: Path, text: str) -> ImageFolder:
    """A folder of a.png to d.png with this table of rows."""
    for name in "abcd":
        picture(folder / f"{name}.png")
    (folder / "good.png").unlink()
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text(text)
    return opened(folder)


def captions(corpus: ImageFolder) -> dict[str, str]:
    return {corpus.label(index): corpus.caption(index) for index in range(len(corpus))}


def test_a_bare_comma_is_listed_and_cuts_no_caption(folder):
    corpus = csv_of(folder, 'file_name,text\na.png,a cat, on a mat\nb.png,a dog\nc.png\nd.png,"one, two"\n')
    assert captions(corpus) == {"b.png": "a dog", "d.png": "one, two"}
    found = problems(corpus)
    assert found["metadata.csv:2"].startswith("it has 3 fields and the header has 2 (file_name, text)")
    assert found["metadata.csv:4"].startswith("it has 1 fields and the header has 2 (file_name, text)")


@pytest.mark.parametrize(
    "unclosed",
    [
        'a.png,"a cat\nb.png,a dog\nc.png,"a hen"\nd.png,a cow\n',
        'a.png,"a cat\nb.png,a dog\nc.png,a hen\nd.png,a cow\n',
        'a.png,"a cat\nb.png,a dog\nc.png,a hen"\nd.png,a cow\n',
        'a.png,"a cat\n\nb.png,a dog\nc.png,a hen\nd.png,a cow',
        '"a.png,a cat\nb.png,a dog\nc.png,a hen\nd.png,a cow',
        'a.png,"a "cat"\nb.png,a dog\nc.png,a hen\nd.png,a cow',
    ],
)
def test_an_unclosed_quote_costs_its_own_row(folder, unclosed):
    corpus = csv_of(folder, "file_name,text\n" + unclosed)
    found = captions(corpus)
    assert {name: found[name].strip('"') for name in ("b.png", "c.png", "d.png")} == found | {"c.png": "a hen"}
    assert found["b.png"] == "a dog" and found["d.png"] == "a cow"
    reason = problems(corpus)["metadata.csv:2"]
    assert "a quote in it does not close" in reason


def test_a_caption_of_several_lines_is_one(folder):
    corpus = csv_of(folder, 'file_name,text\na.png,"a sign\nthat says ""b.png""\nand, more"\nb.png,a dog\n')
    assert captions(corpus) == {"a.png": 'a sign\nthat says "b.png"\nand, more', "b.png": "a dog"}


def test_a_table_may_have_a_column_of_numbers_without_a_name(folder):
    """As pandas writes one."""
    assert captions(csv_of(folder, ",file_name,text\n0,a.png,a cat\n1,b.png,a dog\n")) == {
        "a.png": "a cat", "b.png": "a dog",
    }  # fmt: skip


def test_columns_without_a_name_at_the_end_hide_no_comma(folder):
    corpus = csv_of(folder, "file_name,text,,\na.png,a cat, on a mat,\nb.png,a dog,,\n")
    assert captions(corpus) == {"b.png": "a dog"}
    assert "the header has 2 (file_name, text)" in problems(corpus)["metadata.csv:2"]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_table_in_utf16_ends_in_one_line(folder, name):
    (folder / "metadata.jsonl").unlink()
    (folder / name).write_text("file_name,text\ngood.png,x\n", encoding="utf-16")
    with pytest.raises(BenchError, match=r"metadata\.\w+ is UTF-16; save it as UTF-8"):
        opened(folder)


def test_two_columns_of_one_name_end_in_one_line(folder):
    with pytest.raises(BenchError, match=r"metadata\.csv has two columns 'text'; rename one of them"):
        csv_of(folder, "file_name,text,text\na.png,a,b\n")


def test_a_row_of_many_columns_names_a_few(folder):
    lines(folder / "metadata.jsonl", {f"column{number:03d}": 1 for number in range(300)})
    with pytest.raises(BenchError, match=r"column007, and 292 more; name the column") as caught:
        opened(folder)
    assert "column008" not in str(caught.value)


# -- every file is used or counted -------------------------------------------------------------------------------------


def test_pictures_of_other_formats_and_halves_of_pairs_are_counted(tmp_path):
    folder = tmp_path / "in"
    picture(folder / "a.png").with_suffix(".txt").write_text("a")
    for form in ("ppm", "jp2"):
        Image.new("RGB", (8, 8)).save(folder / f"b.{form}")
    (folder / "c.HEIC").write_bytes(b"x")
    (folder / "photo").write_bytes(encoded(form="JPEG"))
    (folder / "alone.txt").write_text("a caption")
    (folder / "notes.md").write_text("no picture")
    found = problems(opened(folder))
    assert set(found) == {"b.ppm", "b.jp2", "c.HEIC", "photo", "alone.txt"}
    assert "its format (.ppm) is none that is read: " in found["b.ppm"]
    assert found["alone.txt"] == "a caption without a picture"


@pytest.mark.skipif("AVIF" not in pictures.FORMATS, reason="Pillow was built without AVIF")
def test_avif_is_read(tmp_path):
    picture(tmp_path / "in" / "a.avif", color=BLUE).with_suffix(".txt").write_text("blue")
    corpus = opened(tmp_path / "in")
    assert corpus.caption(0) == "blue" and corpus.image(0)[8, 8].argmax() == 2 and corpus.problems() == []


def test_pictures_that_no_row_names_are_counted(folder):
    for name in ("more.png", "sub/other.jpg", "old.jp2"):
        picture(folder / name)
    assert with_row(folder) == dict.fromkeys(
        ["more.png", "sub/other.jpg", "old.jp2"], "no row of metadata.jsonl names it"
    )


@pytest.mark.parametrize(
    "place", [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir", "sub/.hidden", "lost+found", "$RECYCLE.BIN"]
)
@pytest.mark.parametrize("table", [True, False])
def test_what_systems_leave_is_no_member(tmp_path, place, table):
    folder = tmp_path / "in"
    picture(folder / "a.png").with_suffix(".txt").write_text("new")
    picture(folder / place / "a.png").with_suffix(".txt").write_text("old")
    for name in ("._a.png", "._a.txt", ".DS_Store", "Thumbs.db", "a.png~", "#a.png#"):
        (folder / name).write_bytes(encoded())
    if table:
        lines(folder / "metadata.jsonl", row("a.png", "new"))
    corpus = opened(folder)
    assert captions(corpus) == {"a.png": "new"} and corpus.problems() == []


def test_a_hidden_folder_may_hold_the_corpus_itself(tmp_path):
    picture(tmp_path / ".data" / "a.png").with_suffix(".txt").write_text("one")
    assert len(opened(tmp_path / ".data")) == 1


def test_a_link_to_a_folder_is_counted(tmp_path):
    picture(tmp_path / "in" / "a.png").with_suffix(".txt").write_text("one")
    picture(tmp_path / "other" / "b.png")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "other")
    assert problems(opened(tmp_path / "in")) == {"more": "it is a link to a folder, which is not followed"}


def test_a_folder_that_cannot_be_listed_is_counted(tmp_path, monkeypatch):
    picture(tmp_path / "in" / "a.png").with_suffix(".txt").write_text("one")
    (tmp_path / "in" / "closed").mkdir()
    scandir = os.scandir

    def closed(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert problems(opened(tmp_path / "in")) == {"closed": "it cannot be listed (PermissionError)"}


# -- names -------------------------------------------------------------------------------------------------------------

COMPOSED, APART = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("disk", "row_says"), [(COMPOSED, APART), (APART, COMPOSED)])
def test_an_accent_may_be_spelled_in_two_ways(tmp_path, disk, row_says):
    folder = tmp_path / "in"
    picture(folder / disk / f"{disk}.png", color=BLUE)
    lines(folder / "metadata.jsonl", {"file_name": f"{row_says}/{row_says}.png", disk: "one"})
    corpus = opened(folder, caption=row_says)
    assert corpus.caption(0) == "one" and corpus.image(0)[8, 8].argmax() == 2 and corpus.problems() == []


@pytest.mark.parametrize(("image", "text"), [(COMPOSED, APART), (APART, COMPOSED)])
def test_a_caption_may_spell_its_pictures_name_in_another_way(tmp_path, image, text):
    picture(tmp_path / "in" / f"{image}.png")
    (tmp_path / "in" / f"{text}.txt").write_text("one")
    corpus = opened(tmp_path / "in")
    assert corpus.caption(0) == "one" and corpus.problems() == []


def test_a_name_that_is_no_utf8_is_listed_in_letters(tmp_path):
    folder = tmp_path / "in"
    picture(folder / "a.png").with_suffix(".txt").write_text("one")
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    picture(folder / "b.png").rename(folder / name).with_suffix(".txt").write_text("two")
    corpus = opened(folder)
    assert captions(corpus) == {"a.png": "one"}
    assert list(problems(corpus)) == ["caf\\xe9.png"]


def test_a_snapshot_of_the_hubs_cache_is_read_through_its_links(tmp_path):
    repo = tmp_path / "hub" / "datasets--me--pictures"
    folder = repo / "snapshots" / "0123abcd" / "train"
    folder.mkdir(parents=True)
    picture(repo / "blobs" / "aaaa.png").rename(repo / "blobs" / "aaaa")
    secret = picture(tmp_path / "secret.png")
    (folder / "a.png").symlink_to("../../../blobs/aaaa")
    (folder / "b.png").symlink_to(secret)
    lines(folder / "metadata.jsonl", row("a.png", "one"), row("b.png", "two"))
    corpus = ImageFolder(folder, tmp_path / "cache", 16)
    assert corpus.image(0).shape == (16, 16, 3) and captions(corpus) == {"a.png": "one"}
    assert problems(corpus) == {"b.png": "its file name leaves the folder"}


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
    linked = {"out": "it is a link to a folder, which is not followed"}
    assert found == dict.fromkeys(names, "its file name leaves the folder") | linked


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
    with pytest.raises(BenchError, match=r"it has no caption: good\.txt: its file name leaves the folder"):
        opened(folder)


def test_a_file_name_may_wander_inside_the_folder(folder):
    (folder / "sub").mkdir()
    lines(folder / "metadata.jsonl", row("good.png"), row("./sub/../good.png", "again"))
    assert len(opened(folder)) == 2


@pytest.mark.parametrize("line", ["{", "[]", "3", "null", "{}", "\x00"])
def test_a_damaged_line_of_the_table_is_named(folder, line):
    assert with_row(folder, line) == {"metadata.jsonl:2": "no row with file_name and text"}


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ({"file_name": "good.png", "words": "x"}, "file_name, words; name the column of captions with ?caption=COLUMN"),
        ({"text": "x"}, "text"),
        ({"file_name": 3, "text": "x"}, "file_name, text"),
    ],
)
def test_a_row_without_its_columns_says_which_it_has(folder, line, has):
    assert with_row(folder, line) == {"metadata.jsonl:2": f"no row with file_name and text; it has {has}"}


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


def test_a_picture_that_is_gone_while_all_are_read_stops_the_reading(folder):
    """Nothing may write down that a picture is bad because a disk was away."""
    corpus = opened(folder)
    (folder / "good.png").rename(folder / "away")
    with pytest.raises(BenchError, match=r"good\.png of in was read before and now is not \(its file is not there\)"):
        corpus.read(0)
    (folder / "away").rename(folder / "good.png")
    assert (corpus.read(0)[0] == RED).all()


def test_a_name_may_be_absolute_inside_the_folder(folder):
    picture(folder / "sub" / "blue.png", color=BLUE)
    lines(folder / "metadata.jsonl", row(str(folder / "good.png")), row(str(folder / "sub" / "blue.png")))
    corpus = opened(folder)
    assert len(corpus) == 2 and corpus.problems() == []


@pytest.mark.parametrize("tabled", [True, False])
def test_files_of_another_layout_are_counted(folder, tabled):
    if not tabled:
        (folder / "metadata.jsonl").unlink()
        (folder / "good.txt").write_text("a caption")
    for name in ("x.tar", "sub/y.parquet", "z.arrow"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    reason = "a corpus of another layout than the files beside it; give it a folder of its own"
    assert problems(opened(folder)) == dict.fromkeys(["sub/y.parquet", "x.tar", "z.arrow"], reason)


def test_a_column_of_a_table_that_is_not_there_ends_in_one_line(tmp_path):
    picture(tmp_path / "in" / "a.png").with_suffix(".txt").write_text("a caption")
    with pytest.raises(BenchError, match=r"has no table \(.*\), so no column; leave \?caption= out"):
        opened(tmp_path / "in", caption="long")


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
