"""A run packed into one file draws the report that its folder draws."""

from __future__ import annotations

import io
import tarfile

import pytest

from bench.errors import BenchError
from bench.records.archive import pack, unpacked
from bench.report import render_report


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def packed(run, tmp_path):
    """A run with weights, a checkpoint and images that no report shows, as an archive."""
    (run.folder / "alpha--high_aesthetic--s0").mkdir(exist_ok=True)
    for name in ("checkpoint.pt", "weights/transformer/model.safetensors", "traceback.txt"):
        heavy = next(run.folder.glob("alpha--*")) / name
        heavy.parent.mkdir(parents=True, exist_ok=True)
        heavy.write_bytes(b"heavy")
    pack(run.folder, tmp_path / "records.tar.xz")
    return tmp_path / "records.tar.xz"


def test_the_report_of_an_archive_is_that_of_its_run(run, packed, tmp_path):
    render_report([run.folder], tmp_path / "folder")
    render_report([packed], tmp_path / "archive")
    drawn = files(tmp_path / "folder")
    assert {"main_results.md", "training_dynamics.png", "samples.png", "compute.csv"} <= drawn.keys()
    assert files(tmp_path / "archive") == drawn


def test_it_holds_no_weights_and_only_the_images_that_are_shown(run, packed):
    with tarfile.open(packed) as archive:
        names = archive.getnames()
    assert not [name for name in names if name.endswith((".pt", ".safetensors", ".txt"))]
    kept, there = ([n for n in each if n.endswith(".png")] for each in (names, map(str, run.folder.rglob("*.png"))))
    assert 0 < len(kept) < len(there)


def test_equal_records_give_equal_bytes(run, packed, tmp_path):
    pack(run.folder, tmp_path / "again.tar.xz")
    assert (tmp_path / "again.tar.xz").read_bytes() == packed.read_bytes()


def test_what_it_unpacks_is_gone_afterwards(packed):
    with unpacked([packed]) as [folder]:
        assert (folder / "experiment.json").is_file()
    assert not folder.exists()


def test_an_entry_that_leaves_the_folder_is_refused(tmp_path):
    path = tmp_path / "evil.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        entry = tarfile.TarInfo("../outside.json")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"{}"))
    with pytest.raises(BenchError, match=r"evil\.tar\.xz is no archive of a run"), unpacked([path]):
        pass
    assert not (tmp_path / "outside.json").exists()


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_another_file_ends_in_one_line(tmp_path, content):
    path = tmp_path / "other.tar.xz"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"other\.tar\.xz is no archive of a run"), unpacked([path]):
        pass


def test_an_archive_has_its_ending(run, tmp_path):
    with pytest.raises(BenchError, match=r"an archive ends in \.tar\.xz"):
        pack(run.folder, tmp_path / "records.zip")
