"""A folder of pictures as a corpus: what cannot be used is listed with its reason and replaced by nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.errors import BenchError
from data_curation.image_folder import ImageFolder

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(path: Path, size: tuple[int, int] = (20, 20), color: tuple[int, ...] = RED, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


def table(folder: Path, *rows: object) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def row(name: str, text: object = "a caption") -> dict[str, object]:
    return {"file_name": name, "text": text}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with one good pair."""
    picture(tmp_path / "in" / "good.png")
    table(tmp_path / "in", row("good.png", "  a red picture\n"))
    return tmp_path / "in"


def problems(folder: Path) -> dict[str, str]:
    corpus = ImageFolder(folder, 16)
    assert len(corpus) == 1 and corpus.caption(0) == "a red picture"
    return {problem.item: problem.reason for problem in corpus.problems()}


def with_row(folder: Path, *rows: object) -> Path:
    table(folder, row("good.png", "a red picture"), *rows)
    return folder


def test_pairs_come_in_the_tables_order_with_trimmed_captions(folder):
    picture(folder / "sub" / "blue.jpg", color=BLUE)
    table(folder, row("sub/blue.jpg", "blue"), row("good.png", " red "))
    corpus = ImageFolder(folder, 16)
    assert [corpus.caption(i) for i in range(len(corpus))] == ["blue", "red"]
    assert corpus.image(0)[8, 8].argmax() == 2 and corpus.image(1)[8, 8].argmax() == 0
    assert corpus.problems() == [] and corpus.name == "in"


def test_captions_may_lie_beside_the_pictures(tmp_path):
    for name in ("b.PNG", "a.webp", "c.jpeg"):
        picture(tmp_path / name).with_suffix(".txt").write_text(f"caption of {name}\n")
    picture(tmp_path / "d.png")
    (tmp_path / "notes.md").write_text("no picture")
    corpus = ImageFolder(tmp_path, 16)
    assert [corpus.caption(i) for i in range(3)] == ["caption of a.webp", "caption of b.PNG", "caption of c.jpeg"]
    assert [(p.item, p.reason) for p in corpus.problems()] == [("d.png", "its caption is empty")]


# -- what is left out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n"])
def test_an_unreadable_picture_is_left_out(folder, content):
    (folder / "bad.png").write_bytes(content)
    assert "cannot be read as a picture" in problems(with_row(folder, row("bad.png")))["bad.png"]


def test_a_truncated_picture_is_left_out(folder):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / "bad.png")
    (folder / "bad.png").write_bytes((folder / "bad.png").read_bytes()[:3000])
    assert "cannot be read as a picture" in problems(with_row(folder, row("bad.png")))["bad.png"]


def test_a_missing_picture_and_a_folder_are_left_out(folder):
    (folder / "sub").mkdir()
    assert set(problems(with_row(folder, row("none.png"), row("sub"), row("")))) == {"none.png", "sub", ""}


@pytest.mark.parametrize("caption", ["", "   ", "\n\t"])
def test_an_empty_caption_is_left_out(folder, caption):
    picture(folder / "mute.png")
    assert problems(with_row(folder, row("mute.png", caption))) == {"mute.png": "its caption is empty"}


@pytest.mark.parametrize("caption", [None, 3, {"long": "x"}])
def test_a_caption_that_is_no_text_is_left_out(folder, caption):
    picture(folder / "odd.png")
    assert len(problems(with_row(folder, row("odd.png", caption)))) == 1


def test_a_caption_may_hold_any_line_separator(folder):
    text = "two\u2028lines\x85of text"
    (folder / "metadata.jsonl").write_text(json.dumps(row("good.png", text), ensure_ascii=False), encoding="utf-8")
    assert ImageFolder(folder, 16).caption(0) == text


def test_a_file_name_that_leaves_the_folder_is_left_out(folder):
    outside = picture(folder.parent / "secret.png")
    sibling = picture(folder.parent / "in-other" / "x.png")  # shares the folder's prefix
    (folder / "link.png").symlink_to(outside)
    names = ["../secret.png", str(outside), str(sibling), "sub/../../secret.png", "link.png"]
    found = problems(with_row(folder, *map(row, names)))
    assert found == dict.fromkeys(names, "its file name leaves the folder")


def test_a_file_name_may_wander_inside_the_folder(folder):
    with_row(folder, row("./sub/../good.png", "again"))
    assert len(ImageFolder(folder, 16)) == 2


@pytest.mark.parametrize("line", ["{", "[]", "3", "null", '{"file_name": "good.png"}', '{"text": "x"}', "\x00"])
def test_a_damaged_line_of_the_table_is_named(folder, line):
    assert problems(with_row(folder, line)) == {"metadata.jsonl:2": "no JSON line with file_name and text"}


def test_a_file_name_that_no_file_can_have_is_left_out(folder):
    assert len(problems(with_row(folder, row("a\x00b.png")))) == 1


@pytest.mark.parametrize("name", ["metadata.jsonl", "good.txt"])
def test_text_in_another_encoding_ends_in_one_line_or_is_left_out(folder, name):
    (folder / "metadata.jsonl").unlink()
    (folder / name).write_bytes('{"file_name": "good.png", "text": "caf\xe9"}'.encode("latin-1"))
    with pytest.raises(BenchError) as caught:
        ImageFolder(folder, 16)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_valid_pair_ends_in_one_line(tmp_path):
    with pytest.raises(BenchError, match="holds no usable image-caption pair"):
        ImageFolder(tmp_path, 16)
    picture(tmp_path / "a.png")
    table(tmp_path, row("a.png", ""), row("b.png"))
    with pytest.raises(BenchError, match=r"pair; 2 left out, e\.g\. .*its caption is empty") as caught:
        ImageFolder(tmp_path, 16)
    assert "\n" not in str(caught.value)


# -- pictures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(20, 20), (64, 32), (31, 97), (8, 8), (1000, 10)])
def test_pictures_come_square_at_the_resolution_asked_for(tmp_path, size):
    picture(tmp_path / "a.png", size)
    table(tmp_path, row("a.png"))
    image = ImageFolder(tmp_path, 16).image(0)
    assert image.shape == (16, 16, 3) and image.dtype == np.uint8 and (image == RED).all()


def test_pictures_are_cropped_to_the_centre(tmp_path):
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, 16:32] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    table(tmp_path, row("a.png"))
    assert (ImageFolder(tmp_path, 16).image(0) == 200).all()


@pytest.mark.parametrize(("mode", "color"), [("L", 128), ("RGBA", (*RED, 255)), ("P", 0), ("1", 1)])
def test_every_colour_mode_becomes_rgb(tmp_path, mode, color):
    picture(tmp_path / "a.png", color=color, mode=mode)
    table(tmp_path, row("a.png"))
    assert ImageFolder(tmp_path, 16).image(0).shape == (16, 16, 3)


def test_the_fingerprint_follows_pictures_captions_and_resolution(folder):
    first = ImageFolder(folder, 16).fingerprint
    assert ImageFolder(folder, 16).fingerprint == first != ImageFolder(folder, 32).fingerprint
    table(folder, row("good.png", "another caption"))
    second = ImageFolder(folder, 16).fingerprint
    picture(folder / "good.png", color=BLUE)
    assert len({first, second, ImageFolder(folder, 16).fingerprint}) == 3
