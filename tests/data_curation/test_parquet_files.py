"""Parquet files and saved datasets: columns are found or named, row groups are read once, damage costs its own rows."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pairs import COLORS, color, encoded, parquet, problems, saved_dataset, table

from bench.corpus import BadPair
from bench.errors import BenchError
from data_curation import parquet_files
from data_curation.parquet_files import ParquetFiles
from data_curation.saved_dataset import SavedDataset

IMAGES = [encoded(c) for c in COLORS.values()]
CAPTIONS = [f"a {name} one" for name in COLORS]


def opened(path, **settings):
    return ParquetFiles(path, path.parent / "cache", 16, **settings)


def reopened(path, **settings):
    return SavedDataset(path, path.parent / "cache", 16, **settings)


@pytest.mark.parametrize("struct", [True, False])
def test_pairs_of_several_files_come_in_order(tmp_path, struct):
    parquet(tmp_path / "in" / "b.parquet", table(IMAGES[2:], CAPTIONS[2:], struct=struct))
    parquet(tmp_path / "in" / "a.parquet", table(IMAGES[:2], CAPTIONS[:2], struct=struct), rows=1)
    corpus = opened(tmp_path / "in")
    assert [corpus.caption(i) for i in range(3)] == CAPTIONS
    assert [color(corpus.image(i)) for i in range(3)] == ["red", "green", "blue"]
    assert corpus.label(2) == "b.parquet:0" and corpus.problems() == []


def test_plain_columns_are_tags(tmp_path):
    content = table(IMAGES, CAPTIONS, kind=["poster", "ui", None], year=[1, 2, 3], nested=[[1], [2], [3]])
    corpus = opened(parquet(tmp_path / "x.parquet", content))
    assert [corpus.tags(i) for i in range(3)] == [
        {"kind": "poster", "year": "1"},
        {"kind": "ui", "year": "2"},
        {"year": "3"},
    ]


def test_columns_may_be_named(tmp_path):
    content = table(IMAGES, CAPTIONS).rename_columns(["bits", "words"])
    path = parquet(tmp_path / "x.parquet", content)
    with pytest.raises(
        BenchError, match=r"has no column of images; name one of its columns \(bits, words\) with \?image="
    ):
        opened(path)
    with pytest.raises(BenchError, match="has no column of captions named 'wrds'"):
        opened(path, image="bits", caption="wrds")
    assert opened(path, image="bits", caption="words").caption(1) == CAPTIONS[1]


@pytest.mark.parametrize("column", [["a.png"] * 3, [1, 2, 3], [{"path": "a.png"}] * 3])
def test_a_column_that_holds_no_pictures_ends_in_one_line(tmp_path, column):
    path = parquet(tmp_path / "x.parquet", pa.table({"image": column, "text": CAPTIONS}))
    with pytest.raises(BenchError, match=r"the column image of .* not encoded pictures"):
        opened(path)


def test_rows_without_a_caption_are_left_out_and_those_without_a_picture_cannot_be_had(tmp_path):
    for struct in (True, False):
        content = table([IMAGES[0], None, b"", b"no picture", IMAGES[1]], ["a", "b", "c", "d", None], struct=struct)
        corpus = opened(parquet(tmp_path / f"{struct}.parquet", content))
        assert len(corpus) == 4 and problems(corpus) == {f"{struct}.parquet:4": "its caption is no text"}
        assert color(corpus.image(0)) == "red"
        for index in (1, 2, 3):
            with pytest.raises(BadPair):
                corpus.read(index)


def test_a_path_instead_of_bytes_is_not_followed(tmp_path):
    cells = pa.array(
        [{"bytes": None, "path": "/etc/passwd"}, None], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    corpus = opened(parquet(tmp_path / "x.parquet", pa.table({"image": cells, "text": ["a", "b"]})))
    with pytest.raises(BadPair, match="given as a path outside the file"):
        corpus.image(0)
    with pytest.raises(BadPair, match="missing"):
        corpus.image(1)


def test_a_row_group_is_read_once_while_it_is_needed(tmp_path, monkeypatch):
    corpus = opened(parquet(tmp_path / "x.parquet", table(IMAGES * 4, CAPTIONS * 4), rows=3))
    read, load = [], pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, group, **how: read.append(group) or load(self, group, **how)
    )
    for index in range(12):
        assert color(corpus.image(index)) == list(COLORS)[index % 3]
    assert read == [0, 1, 2, 3]
    for group in reversed(range(4)):  # the groups read last are kept, and no others
        corpus.image(3 * group)
    assert read == [0, 1, 2, 3, *reversed(range(4 - parquet_files.GROUPS))]


def test_workers_may_get_a_corpus_by_pickle(tmp_path):
    corpus = opened(parquet(tmp_path / "x.parquet", table(IMAGES, CAPTIONS)))
    corpus.image(0)
    assert color(pickle.loads(pickle.dumps(corpus)).image(2)) == "blue"


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_file_that_is_cut_short_ends_in_one_line(tmp_path, keep):
    path = parquet(tmp_path / "x.parquet", table(IMAGES, CAPTIONS))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BenchError, match=r"x\.parquet is no whole Parquet file"):
        opened(path)


def test_damage_inside_costs_only_its_row_group(tmp_path):
    path = parquet(tmp_path / "x.parquet", table(IMAGES * 2, CAPTIONS * 2), rows=3)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    corpus = opened(path)
    assert color(corpus.image(2)) == "blue"
    with pytest.raises(BadPair, match=r"row group 1 of x\.parquet cannot be read"):
        corpus.image(3)


def test_a_damaged_column_of_captions_is_listed(tmp_path):
    path = parquet(tmp_path / "in" / "x.parquet", table(IMAGES * 400, CAPTIONS * 400), rows=600)
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    parquet(tmp_path / "in" / "y.parquet", table(IMAGES, CAPTIONS))
    corpus = opened(tmp_path / "in")
    assert "the rest is lost" in problems(corpus)["x.parquet"] and 3 <= len(corpus) < 1203


def test_no_row_with_a_caption_ends_in_one_line(tmp_path):
    with pytest.raises(BenchError, match="holds no usable image-caption pair; 3 left out"):
        opened(parquet(tmp_path / "x.parquet", table(IMAGES, [None, "", " "])))


def test_folders_and_files_that_a_system_left_are_no_parquet_files(tmp_path):
    parquet(tmp_path / "in" / "x.parquet" / "part-0.parquet", table(IMAGES, CAPTIONS))
    for name in ("._x.parquet", ".ipynb_checkpoints/x.parquet", "__MACOSX/x.parquet"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    corpus = opened(tmp_path / "in")
    assert corpus.label(0) == "x.parquet/part-0.parquet:0" and len(corpus) == 3 and corpus.problems() == []
    assert len(opened(tmp_path / "in" / "x.parquet")) == 3


def test_a_column_may_spell_an_accent_in_another_way(tmp_path):
    content = table(IMAGES, CAPTIONS, **{"le\u0301gende": ["un", "deux", "trois"]})
    assert opened(parquet(tmp_path / "x.parquet", content), caption="l\u00e9gende").caption(1) == "deux"


def test_two_columns_of_one_name_end_in_one_line(tmp_path):
    content = pa.Table.from_arrays([*table(IMAGES, CAPTIONS).columns, pa.array(CAPTIONS)], ["image", "text", "text"])
    with pytest.raises(BenchError, match="has two columns 'text'; rename one of them"):
        opened(parquet(tmp_path / "x.parquet", content))


@pytest.mark.parametrize("layout", ["parquet", "saved"])
def test_a_caption_of_broken_utf8_costs_its_own_row(tmp_path, layout):
    raw = pa.array([b"a red one", b"caf\xe9", b"a blue one"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    content = table(IMAGES, CAPTIONS, struct=layout == "saved").set_column(1, "text", broken)
    if layout == "saved":
        corpus = reopened(saved_dataset(tmp_path / "in", content))
    else:
        corpus = opened(parquet(tmp_path / "x.parquet", content))
    assert [corpus.caption(i) for i in range(len(corpus))] == ["a red one", "a blue one"]
    assert color(corpus.image(1)) == "blue"
    (reason,) = problems(corpus).values()
    assert reason == "its caption is no valid Unicode; save it as UTF-8"


def test_hundreds_of_columns_are_not_named_one_by_one(tmp_path):
    columns = {f"column{number:03d}": [1] for number in range(300)}
    with pytest.raises(BenchError, match=r"\(column000, .*column007, and 292 more\) with \?image=COLUMN"):
        opened(parquet(tmp_path / "x.parquet", pa.table(columns)))


# -- datasets.save_to_disk ---------------------------------------------------------------------------------------------


def test_a_saved_dataset_is_read_without_the_package(tmp_path):
    folder = saved_dataset(
        tmp_path / "in",
        table(IMAGES[:2], CAPTIONS[:2], struct=True, kind=["a", "b"]),
        table(IMAGES[2:], CAPTIONS[2:], struct=True, kind=["c"]),
    )
    corpus = reopened(folder)
    assert [corpus.caption(i) for i in range(3)] == CAPTIONS
    assert [color(corpus.image(i)) for i in range(3)] == ["red", "green", "blue"]
    assert [corpus.tags(i)["kind"] for i in range(3)] == ["a", "b", "c"]


def test_a_split_is_chosen(tmp_path):
    for name, number in (("train", 0), ("test", 1)):
        saved_dataset(tmp_path / "in" / name, table(IMAGES[number:], CAPTIONS[number:], struct=True))
    (tmp_path / "in" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert len(reopened(tmp_path / "in")) == 3 and len(reopened(tmp_path / "in", split="test")) == 2
    with pytest.raises(BenchError, match="unknown split 'tset'; did you mean 'test'"):
        reopened(tmp_path / "in", split="tset")


@pytest.mark.parametrize("split", ["validation", "train"])
def test_a_split_where_there_is_none_ends_in_one_line(tmp_path, split):
    folder = saved_dataset(tmp_path / "in", table(IMAGES, CAPTIONS, struct=True))
    with pytest.raises(BenchError, match=f"has no splits, and '{split}' was asked for"):
        reopened(folder, split=split)


def test_another_split_than_the_only_one_ends_in_one_line(tmp_path):
    saved_dataset(tmp_path / "in" / "only", table(IMAGES, CAPTIONS, struct=True))
    (tmp_path / "in" / "dataset_dict.json").write_text(json.dumps({"splits": ["only"]}))
    with pytest.raises(BenchError, match="unknown split 'validation'"):
        reopened(tmp_path / "in", split="validation")
    assert len(reopened(tmp_path / "in")) == len(reopened(tmp_path / "in", split="only")) == 3


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_a_time_that_python_has_not_is_no_tag_and_costs_nothing_else(tmp_path, kind):
    late = pa.array([253402300800, 0, None], pa.timestamp("s"))  # the year 10000
    far = pa.array([0, 0, 0], pa.timestamp("s", tz="Nowhere/At_All"))
    content = table(IMAGES, CAPTIONS, struct=True, late=late, far=far, kind=["a", "b", "c"])
    if kind == "parquet":
        corpus = opened(parquet(tmp_path / "x.parquet", content))
    else:
        corpus = reopened(saved_dataset(tmp_path / "in", content))
    assert len(corpus) == 3 and corpus.problems() == []
    assert [corpus.tags(i) for i in range(3)] == [
        {"kind": "a"}, {"kind": "b", "late": "1970-01-01 00:00:00"}, {"kind": "c"},
    ]  # fmt: skip


def test_a_damaged_saved_dataset_ends_in_one_line(tmp_path):
    folder = saved_dataset(tmp_path / "in", table(IMAGES, CAPTIONS, struct=True))
    (stream,) = folder.glob("*.arrow")
    whole = stream.read_bytes()
    stream.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BenchError, match="is cut short or damaged"):
        reopened(folder)
    stream.unlink()
    with pytest.raises(BenchError, match="is not there, although"):
        reopened(folder)
    (folder / "state.json").write_text("{}")
    with pytest.raises(BenchError, match="lists no data files"):
        reopened(folder)


@pytest.mark.parametrize(
    "state",
    [
        [], 3, "x", None, {"_data_files": None}, {"_data_files": "x"}, {"_data_files": {"filename": "x"}},
        {"_data_files": ["x"]}, {"_data_files": [{"filename": 3}]}, {"_data_files": [{"filename": None}]},
        {"_data_files": [{"filename": ""}]}, {"_data_files": [[]]},
    ],
)  # fmt: skip
def test_a_state_of_other_types_ends_in_one_line(tmp_path, state):
    folder = saved_dataset(tmp_path / "in", table(IMAGES, CAPTIONS, struct=True))
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(BenchError, match=r"state\.json lists no data files .*; save the dataset again") as caught:
        reopened(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a\0b", "/etc/passwd", "..", "sub/../../x"])
def test_a_state_that_names_no_file_of_the_folder_ends_in_one_line(tmp_path, name):
    folder = saved_dataset(tmp_path / "in", table(IMAGES, CAPTIONS, struct=True))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(BenchError, match="lies outside the folder"):
        reopened(folder)


@pytest.mark.parametrize("splits", [[], {}, None, {"splits": []}, {"splits": "train"}, {"splits": [3]}, {"splits": 3}])
def test_splits_of_other_types_end_in_one_line(tmp_path, splits):
    saved_dataset(tmp_path / "in" / "train", table(IMAGES, CAPTIONS, struct=True))
    (tmp_path / "in" / "dataset_dict.json").write_text(json.dumps(splits))
    with pytest.raises(BenchError, match=r"dataset_dict\.json lists no splits .*; save the dataset again"):
        reopened(tmp_path / "in")


@pytest.mark.parametrize("split", ["../in", "a/b", "", "."])
def test_a_split_leads_nowhere_else(tmp_path, split):
    saved_dataset(tmp_path / "in" / "train", table(IMAGES, CAPTIONS, struct=True))
    (tmp_path / "in" / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    with pytest.raises(BenchError, match="which no folder can be"):
        reopened(tmp_path / "in")


def test_a_selection_of_rows_is_not_taken_for_all_of_them(tmp_path):
    folder = saved_dataset(tmp_path / "in", table(IMAGES, CAPTIONS, struct=True))
    state = json.loads((folder / "state.json").read_text()) | {"_indices_files": [{"filename": "indices.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(BenchError, match=r"is a selection of rows .*flatten_indices\(\) and save the dataset again"):
        reopened(folder)


def test_offsets_that_lead_astray_end_in_one_line(tmp_path):
    """Arrow follows them wherever they lead, out of the file too."""
    folder = saved_dataset(tmp_path / "in", table(IMAGES, CAPTIONS, struct=True))
    (stream,) = folder.glob("*.arrow")
    offsets = np.cumsum([0, *map(len, IMAGES)], dtype=np.int32)
    data = stream.read_bytes()
    assert data.count(offsets.tobytes()) == 1
    stream.write_bytes(data.replace(offsets.tobytes(), (offsets * 100_000).tobytes()))
    with pytest.raises(BenchError, match="is cut short or damaged"):
        reopened(folder)


def test_a_snapshot_of_the_hubs_cache_is_read_through_its_links(tmp_path):
    repo = tmp_path / "datasets--me--pictures"
    folder = saved_dataset(repo / "snapshots" / "0123abcd", table(IMAGES, CAPTIONS, struct=True))
    (stream,) = folder.glob("*.arrow")
    (repo / "blobs").mkdir()
    stream.rename(repo / "blobs" / "aaaa")
    stream.symlink_to("../../blobs/aaaa")
    assert SavedDataset(folder, tmp_path / "cache", 16).caption(2) == CAPTIONS[2]


def test_a_saved_dataset_names_no_file_outside(tmp_path):
    saved_dataset(tmp_path / "other", table(IMAGES, CAPTIONS, struct=True))
    folder = saved_dataset(tmp_path / "in", table(IMAGES, CAPTIONS, struct=True))
    outside = "../other/data-00000-of-00001.arrow"
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": outside}]}))
    with pytest.raises(BenchError, match="lies outside the folder"):
        reopened(folder)


def test_what_datasets_itself_saves_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": data, "path": None} for data in IMAGES], "text": CAPTIONS}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset.save_to_disk(str(tmp_path / "one"), num_shards=2)
    datasets.DatasetDict({"train": dataset}).save_to_disk(str(tmp_path / "dict"))
    dataset.to_parquet(str(tmp_path / "x.parquet"))
    for corpus in (reopened(tmp_path / "one"), reopened(tmp_path / "dict"), opened(tmp_path / "x.parquet")):
        assert [corpus.caption(i) for i in range(3)] == CAPTIONS
        assert [color(corpus.image(i)) for i in range(3)] == ["red", "green", "blue"]
