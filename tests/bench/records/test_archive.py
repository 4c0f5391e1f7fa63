"""A run packed into one file draws the report that its folder draws."""

from __future__ import annotations

import io
import lzma
import tarfile
import tempfile
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.records import archive
from bench.records.archive import pack, unpacked
from bench.report import render_report, shown_images


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
    pack(run.folder, tmp_path / "records.tar.xz", *shown_images(run.folder))
    return tmp_path / "records.tar.xz"


def test_the_report_of_an_archive_is_that_of_its_run(run, packed, tmp_path):
    render_report([run.folder], tmp_path / "folder")
    render_report([packed], tmp_path / "archive")
    drawn = files(tmp_path / "folder")
    assert {"main_results.md", "training_dynamics.png", "samples.png", "compute.csv"} <= drawn.keys()
    assert files(tmp_path / "archive") == drawn


def test_it_holds_no_weights_and_of_images_those_that_are_shown_and_all_final_ones(run, packed):
    with tarfile.open(packed) as archive:
        names = archive.getnames()
    assert not [name for name in names if name.endswith((".pt", ".safetensors", ".txt"))]
    kept, there = ([n for n in each if n.endswith(".png")] for each in (names, map(str, run.folder.rglob("*.png"))))
    assert 0 < len(kept) < len(there)
    last = {path.parents[1].name for path in run.folder.glob("alpha--*/evaluations/*/images/*")}
    final = [path for path in run.folder.rglob("*.png") if path.parents[1].name in ("0", max(last, key=int))]
    below = [path.relative_to(run.folder.parent).as_posix() for path in final]
    assert below and all(name in names or f"{name}.webp" in names for name in below)
    assert not [name for name in names if name.endswith(".webp") and name.removesuffix(".webp") in names]


def test_an_archive_is_called_as_its_run(run, packed, tmp_path):
    """The files of all reference reports have one name."""
    assert archive.run_name(packed) == archive.run_name(run.folder) == run.folder.name
    (tmp_path / "broken.tar.xz").write_bytes(b"x")
    assert archive.run_name(tmp_path / "broken.tar.xz") == "broken"
    assert archive.run_name(tmp_path / "gone.tar.xz") == "gone"


def test_equal_records_give_equal_bytes(run, packed, tmp_path):
    pack(run.folder, tmp_path / "again.tar.xz", *shown_images(run.folder))
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
        pack(run.folder, tmp_path / "records.zip", *shown_images(run.folder))


def packed_with(path, *entries):
    with tarfile.open(path, "w:xz") as file:
        for entry, content in entries:
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def test_an_archive_that_unpacks_without_limit_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    bomb = packed_with(tmp_path / "bomb.tar.xz", (tarfile.TarInfo("run/experiment.json"), bytes(2 << 20)))
    assert bomb.stat().st_size < 10_000
    with (
        pytest.raises(BenchError, match=r"bomb\.tar\.xz is no archive of a run \(it unpacks to more than"),
        unpacked([bomb]),
    ):
        pass
    assert not list((tmp_path / "scratch").iterdir())


def test_a_header_that_asks_for_terabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    header = tarfile.TarInfo("x")
    header.size, header.type = 1 << 40, tarfile.XHDTYPE
    (tmp_path / "bomb.tar.xz").write_bytes(lzma.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(4 << 20)))
    with pytest.raises(BenchError, match="unpacks to more than"), unpacked([tmp_path / "bomb.tar.xz"]):
        pass


def test_an_archive_of_countless_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_FILES", 10)
    bomb = packed_with(tmp_path / "bomb.tar.xz", *((tarfile.TarInfo(f"run/{n}.json"), b"{}") for n in range(11)))
    with pytest.raises(BenchError, match="it holds more than 10 files"), unpacked([bomb]):
        pass


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_is_neither_a_file_nor_a_folder_is_refused(tmp_path, kind):
    entry = tarfile.TarInfo("run/experiment.json")
    entry.type, entry.linkname = kind, "/etc/passwd"
    path = packed_with(tmp_path / "evil.tar.xz", (entry, b""))
    with pytest.raises(BenchError, match="neither a file nor a folder"), unpacked([path]):
        pass


def test_a_record_that_names_jobs_outside_reads_nothing_there(run, tmp_path):
    outside = tmp_path / "x--y--s0"
    outside.mkdir()
    (outside / "job.json").write_text("{")  # would be called damaged if it were read
    run.experiment["jobs"] = ["../x--y--s0"]
    run.save()
    with pytest.raises(BenchError, match=r"job '\.\./x--y--s0' is not named <method>--<subset>--s<seed>"):
        render_report([run.folder], tmp_path / "out")


def test_packing_follows_no_link(run, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    drawn = sorted(run.folder.glob("alpha--*/evaluations/*/images/*.png"))
    for image in drawn:
        image.unlink()
        image.symlink_to(tmp_path / "secret")
    with pytest.raises(BenchError, match=r"images/.*\.png is a link, and an archive follows no link"):
        pack(run.folder, tmp_path / "records.tar.xz", *shown_images(run.folder))
    assert not (tmp_path / "records.tar.xz").exists()


def test_packing_follows_no_link_to_a_record_or_a_folder(run, tmp_path):
    job = next(run.folder.glob("alpha--*"))
    job.rename(tmp_path / "elsewhere")
    job.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BenchError, match=r"alpha--.* is a link, and an archive follows no link"):
        pack(run.folder, tmp_path / "records.tar.xz", *shown_images(run.folder))


def test_a_run_that_is_given_as_a_dot_is_packed_under_its_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.folder)
    pack(Path(), tmp_path / "records.tar.xz", *shown_images(Path()))
    with tarfile.open(tmp_path / "records.tar.xz") as file:
        assert {name.partition("/")[0] for name in file.getnames()} == {"demo"}
