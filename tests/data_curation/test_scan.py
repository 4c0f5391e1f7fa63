"""A scan tries every pair once: what is bad is listed and counted, exact duplicates are dropped, memory is bounded."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pairs import bomb, encoded, hy_soar, lines, noise

from bench.corpus import BadPair
from bench.errors import BenchError
from bench.machine.crew import Crew
from data_curation import parts, scan
from data_curation.hy_soar import HYSOAR
from data_curation.image_folder import ImageFolder
from data_curation.paths import Inside


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "PART", 4)


def folder_of(folder: Path, *pairs: tuple[bytes, str]) -> ImageFolder:
    """A corpus of these encoded pictures and captions."""
    folder.mkdir()
    for number, (data, _) in enumerate(pairs):
        (folder / f"{number:03d}.png").write_bytes(data)
    rows = [{"file_name": f"{number:03d}.png", "text": caption} for number, (_, caption) in enumerate(pairs)]
    lines(folder / "metadata.jsonl", *rows)
    return ImageFolder(folder, folder.parent / "cache", 16)


@pytest.fixture
def corpus(tmp_path) -> ImageFolder:
    """Ten pairs: 3 is no picture, 5 is cut short, 7 a bomb, 8 is 0 again; 9 has 0's picture and its own caption."""
    pairs = [(noise(number, form="PNG"), f"caption {number}") for number in range(10)]
    pairs[3], pairs[5], pairs[7] = (b"<html>", "three"), (pairs[5][0][:2000], "five"), (bomb(), "seven")
    pairs[8], pairs[9] = pairs[0], (pairs[0][0], "caption 9")
    return folder_of(tmp_path / "in", *pairs)


def test_every_pair_is_tried_and_the_bad_ones_say_why(corpus, tmp_path):
    ticks = []
    scan.scan(corpus, tmp_path, Crew(tick=ticks.append))
    frame = scan.scan_parts(corpus, tmp_path).read(scan.SCHEMA.names).to_pandas()
    assert ticks == [4, 4, 2] and list(frame["index"]) == list(range(10))
    assert set(frame.index[frame["problem"].notna()]) == {3, 5, 7}
    for index in set(range(10)) - {3, 5, 7}:
        assert frame["key"][index] == corpus.key(index)
        assert (frame["width"][index], frame["height"][index]) == corpus.size(index)


def test_usable_pairs_are_distinct_and_counted(corpus, tmp_path):
    scan.scan(corpus, tmp_path)
    frame, counts = scan.usable(corpus, tmp_path)
    assert list(frame["index"]) == [
        0,
        1,
        2,
        4,
        6,
        9,
    ]  # the first of a duplicate is kept, another caption is no duplicate
    assert counts == scan.Counts(listed=10, left_out=3, duplicates=1, kept=6)
    assert str(counts) == "6 usable pairs (3 left out, 1 exact duplicates dropped)"


def test_what_is_left_out_is_written_with_its_reason(tmp_path):
    corpus = folder_of(tmp_path / "in", (encoded(), "a"), (b"no picture", "b"), (encoded(), " "))
    scan.scan(corpus, tmp_path)
    rows, path = scan.write_problems(corpus, tmp_path)
    assert dict(rows) == {
        "002.png": "its caption is empty",
        "001.png": "it cannot be read as a picture (UnidentifiedImageError)",
    }
    with path.open() as file:
        assert list(csv.reader(file)) == [["item", "reason"], *map(list, rows)]


def test_a_scan_goes_on_at_the_first_missing_part(corpus, tmp_path, monkeypatch):
    scan.scan(corpus, tmp_path)
    whole = scan.scan_parts(corpus, tmp_path).read(scan.SCHEMA.names)
    scan.scan_parts(corpus, tmp_path).path(4).unlink()
    read, asked = ImageFolder.read, []
    monkeypatch.setattr(ImageFolder, "read", lambda self, index: asked.append(index) or read(self, index))
    scan.scan(corpus, tmp_path)
    assert sorted(asked) == [4, 5, 6, 7]
    assert scan.scan_parts(corpus, tmp_path).read(scan.SCHEMA.names).equals(whole)


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_do_disjoint_parts_and_all_of_them(corpus, tmp_path, world_size):
    scan.scan(corpus, tmp_path / "one")
    ticks = []
    for rank in range(world_size):
        scan.scan(corpus, tmp_path / "many", Crew(rank, world_size, tick=ticks.append))
    assert sum(ticks) == 10
    one, many = (scan.scan_parts(corpus, tmp_path / name).read(scan.SCHEMA.names) for name in ("one", "many"))
    assert one.equals(many)


def test_a_missing_part_ends_in_one_line(corpus, tmp_path):
    scan.scan(corpus, tmp_path, Crew(0, 2))
    with pytest.raises(BenchError, match=r"part-000000004\.parquet is not there; let every shard finish"):
        scan.usable(corpus, tmp_path)


@pytest.mark.parametrize("damage", ["bytes", "rows", "columns", "empty"])
def test_a_damaged_part_ends_in_one_line(corpus, tmp_path, damage):
    scan.scan(corpus, tmp_path)
    path = scan.scan_parts(corpus, tmp_path).path(4)
    match damage:
        case "bytes":
            path.write_bytes(path.read_bytes()[:50])
        case "rows":
            pd.read_parquet(path)[:2].to_parquet(path)
        case "columns":
            pd.read_parquet(path).drop(columns="key").to_parquet(path)
        case "empty":
            path.write_bytes(b"")
    with pytest.raises(BenchError, match=r"part-000000004\.parquet .*delete it and its pairs are done again"):
        scan.usable(corpus, tmp_path)


def exchange(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    values = frame[column].tolist()
    return frame.assign(**{column: [values[1], values[0], *values[2:]]})


@pytest.mark.parametrize("column", ["key", "index"])
@pytest.mark.parametrize("keep", [True, False])
def test_two_values_exchanged_are_noticed(corpus, tmp_path, column, keep):
    scan.scan(corpus, tmp_path)
    path = scan.scan_parts(corpus, tmp_path).path(0)
    metadata = pq.read_schema(path).metadata
    table = pa.Table.from_pandas(exchange(pd.read_parquet(path), column), scan.SCHEMA, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(metadata if keep else None), path)
    with pytest.raises(BenchError, match=r"part-000000000\.parquet is damaged .*delete it and its pairs"):
        scan.usable(corpus, tmp_path)


def test_a_name_that_is_no_utf8_is_written_in_letters(tmp_path):
    corpus = folder_of(tmp_path / "in", (encoded(), "a"), (encoded(), "b"))
    (tmp_path / "in" / "001.png").rename(tmp_path / "in" / b"caf\xe9.png".decode("utf-8", "surrogateescape"))
    corpus = ImageFolder(tmp_path / "in", tmp_path / "cache", 16)
    scan.scan(corpus, tmp_path)
    _, path = scan.write_problems(corpus, tmp_path)
    assert "caf\\xe9.png" in path.read_text(encoding="utf-8")


def test_a_corpus_without_one_usable_pair_ends_in_one_line(tmp_path):
    corpus = folder_of(tmp_path / "in", (b"x", "a"), (b"y", "b"), (encoded(), ""))
    scan.scan(corpus, tmp_path)
    with pytest.raises(
        BenchError, match=r"in has no usable pair: all 3 are left out, e\.g\. because it cannot be read"
    ):
        scan.usable(corpus, tmp_path)


def test_a_mislabelled_picture_is_counted(tmp_path):
    path = hy_soar(tmp_path / "in")
    md5 = json.loads(path.read_text().splitlines()[1])["md5"]
    (tmp_path / "in" / "images" / f"{md5}.jpg").write_bytes(encoded(form="JPEG"))
    corpus = HYSOAR(path, tmp_path / "cache", 16)
    scan.scan(corpus, tmp_path)
    frame, counts = scan.usable(corpus, tmp_path)
    assert list(frame["index"]) == [0, 2] and counts.left_out == 1
    assert "its MD5 is" in dict(scan.write_problems(corpus, tmp_path)[0])[f"{md5}.jpg"]


def test_trouble_with_the_disk_is_no_problem_of_a_pair(corpus, tmp_path, monkeypatch):
    def broken(self, name):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Inside, "read", broken)
    with pytest.raises(OSError, match="Input/output error"):
        scan.scan(corpus, tmp_path)
    assert not scan.scan_parts(corpus, tmp_path).folder.exists()


def test_pictures_in_memory_are_bounded(corpus, monkeypatch):
    monkeypatch.setattr(scan, "PIXEL_BYTES", 3 * 16 * 16 * 3)  # three pictures
    groups = [[pair.index for pair in group] for group in scan.read(corpus, range(1, 9))]
    assert groups == [[1, 2, 3], [4, 5, 6], [7, 8]]


def test_a_first_pair_that_has_no_size_does_not_stop_a_part(tmp_path):
    corpus = folder_of(tmp_path / "in", (b"no picture", "a"), (encoded(size=(40, 20)), "b"))
    shaped = ImageFolder(tmp_path / "in", tmp_path / "cache", 64, aspect_buckets=True)
    with pytest.raises(BadPair):
        shaped.size(0)
    assert [pair.problem is None for group in scan.read(shaped, range(2)) for pair in group] == [False, True]
    scan.scan(shaped, tmp_path)
    frame, _ = scan.usable(shaped, tmp_path)
    assert [tuple(row) for row in frame[["width", "height"]].to_numpy()] == [shaped.size(1)] == [(96, 48)]
    assert corpus.fingerprint != shaped.fingerprint


def test_a_corpus_with_only_the_old_methods_can_be_scanned(tmp_path):
    from fakes import FakeCorpus

    fake = FakeCorpus(size=5)
    scan.scan(fake, tmp_path)
    frame, _ = scan.usable(fake, tmp_path)
    assert list(frame["key"]) == [fake.key(i) for i in range(5)] and (frame["width"] == 16).all()
    assert np.array_equal(fake.read(3)[0], fake.image(3)) and fake.tags(0) == {} and fake.label(2) == "2"
